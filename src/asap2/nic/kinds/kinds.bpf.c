// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The packet paths of link kinds that the kernel lacks.
 *
 * A device of such a kind is one end of a veth pair, the near end; the far end, which nobody sees, is in the network
 * namespace of the device below. What is sent on the device comes in at the far end, where a program gives it to the
 * device below; a program at the ingress of the device below gives what is for the device to the far end.
 *
 * Each program is loaded once for each device that it runs at, and `self` says which entry of the maps is that
 * device's: an ifindex means something in one network namespace alone. The programs of the NIC and of the node's
 * software pipeline come before these (BPF_F_BEFORE), as TC comes before VLAN devices in the kernel.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TCX_NEXT TC_ACT_UNSPEC
#define QOS_ENTRIES 16
#define SKIP_NEIGH (1U << 2) /* BPF_FIB_LOOKUP_SKIP_NEIGH, Linux 6.3 */

const volatile struct {
	__u32 self;
} constants;

/* A device, by its id: what it stands on, and the tag that a VLAN device pushes. */
struct device {
	__u32 lower; /* ifindex, in the far end's network namespace */
	__u16 protocol; /* in network byte order */
	__u16 vid;
	__u32 qos; /* entries of the map of priorities */
	struct {
		__u32 priority, pcp;
	} egress[QOS_ENTRIES];
	__u32 ingress[8]; /* priority by PCP */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

/* The VLANs of a device that has VLAN devices. */
struct vlan {
	__u32 lower; /* its id, not an ifindex */
	__u16 protocol; /* in network byte order */
	__u16 vid;
};

struct upper {
	__u32 id;
	__u32 far; /* ifindex of the far end */
	__u32 marks; /* whether it maps PCPs to priorities */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct vlan);
	__type(value, struct upper);
} vlans SEC(".maps");

static __always_inline struct device *own(void)
{
	__u32 self = constants.self;

	return bpf_map_lookup_elem(&devices, &self);
}

/* The far end of a device that sends nowhere. */
SEC("tc")
int discard(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

/*
 * The egress of a VLAN device with a map of priorities: a veth forgets a packet's priority, so that the PCP that it
 * stands for travels in tc_index.
 */
SEC("tc")
int vlan_mark(struct __sk_buff *skb)
{
	struct device *d = own();

	if (!d)
		return TCX_NEXT;
	for (__u32 i = 0; i < QOS_ENTRIES && i < d->qos; i++)
		if (d->egress[i].priority == skb->priority) {
			skb->tc_index = d->egress[i].pcp & 7;
			break;
		}
	return TCX_NEXT;
}

/* The far end of a VLAN device. */
SEC("tc")
int vlan_out(struct __sk_buff *skb)
{
	struct device *d = own();
	__u16 pcp = skb->tc_index & 7;

	if (!d || bpf_skb_vlan_push(skb, d->protocol, pcp << 13 | d->vid) < 0)
		return TC_ACT_SHOT;
	skb->tc_index = 0;
	return bpf_redirect(d->lower, 0);
}

/* The ingress of a device with VLAN devices. */
SEC("tc")
int vlan_in(struct __sk_buff *skb)
{
	struct vlan key = { .lower = constants.self };
	struct upper *upper;
	__u16 pcp;

	if (!skb->vlan_present)
		return TCX_NEXT;
	key.protocol = skb->vlan_proto;
	key.vid = skb->vlan_tci & 0xfff;
	pcp = skb->vlan_tci >> 13;
	upper = bpf_map_lookup_elem(&vlans, &key);
	if (!upper)
		return TCX_NEXT;
	if (bpf_skb_vlan_pop(skb) < 0)
		return TC_ACT_SHOT;
	if (upper->marks)
		skb->tc_index = pcp;
	return bpf_redirect(upper->far, 0);
}

/* The ingress of a VLAN device with a map of priorities. */
SEC("tc")
int vlan_read(struct __sk_buff *skb)
{
	struct device *d = own();

	if (d)
		skb->priority = d->ingress[skb->tc_index & 7];
	skb->tc_index = 0;
	return TCX_NEXT;
}

#define PORTS 16
#define TUNNELS 3 /* in one another, that a hash looks through */

enum { ROUND_ROBIN, ACTIVE_BACKUP, XOR, BROADCAST, LACP, TLB, ALB }; /* BOND_MODE_* */
enum { LAYER2, LAYER34, LAYER23, ENCAP23, ENCAP34, VLAN_SRCMAC }; /* BOND_XMIT_POLICY_* */

/* A bond, by its id. */
struct bond {
	__u32 mode;
	__u32 policy;
	__u32 next; /* of ROUND_ROBIN */
	__u32 count; /* of the ports that are used */
	__u32 ports[PORTS]; /* their ifindexes; the active one first */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct bond);
} bonds SEC(".maps");

/* The port of a bond, by the port's id. */
struct port {
	__u32 far; /* ifindex of the bond's far end */
	__u32 listens; /* a backup does not */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct port);
} bond_ports SEC(".maps");

/* What of a packet decides which port it goes by: struct flow_keys, as far as bonds use it. */
struct flow {
	__u32 at; /* where the headers begin that are still to be read */
	__u32 addresses, ports; /* as they lie in the packet; those of IPv6 are folded */
	__u32 icmp; /* type, code and id of an ICMP query, else 0 */
	__u16 protocol; /* Ethernet's, of what is at `at`, in network byte order */
	__u8 ip; /* the IP protocol of what follows; 0: that is not looked at */
};

/* bond_flow_ip(): 0 if there is no IP header. What follows a fragment's header is not looked at (`ip` is 0). */
static __always_inline int flow_ip(struct __sk_buff *skb, struct flow *f)
{
	__u32 words[10], length;

	f->ip = 0;
	if (f->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, f->at, words, 20) < 0)
			return 0;
		length = (bpf_ntohl(words[0]) >> 24 & 15) * 4;
		if (!(bpf_ntohl(words[1]) & 0x3fff))
			f->ip = bpf_ntohl(words[2]) >> 16;
		f->addresses = words[3] ^ words[4];
	} else if (f->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, f->at, words, 40) < 0)
			return 0;
		length = 40;
		f->ip = bpf_ntohl(words[1]) >> 8;
		f->addresses = words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7] ^ words[8] ^ words[9];
	} else {
		return 0;
	}
	f->at += length;
	f->ports = 0;
	switch (f->ip) { /* proto_ports_offset() */
	case 6:
	case 17:
	case 33: /* DCCP */
	case 50: /* ESP */
	case 132:
	case 136: /* UDP-Lite */
		bpf_skb_load_bytes(skb, f->at, &f->ports, sizeof f->ports);
		break;
	case 51: /* AH */
		bpf_skb_load_bytes(skb, f->at + 4, &f->ports, sizeof f->ports);
		break;
	}
	return 1;
}

/* skb_flow_get_icmp_tci(); an error is of the flow whose packet it has (bond_flow_dissect). */
static __always_inline void flow_icmp(struct __sk_buff *skb, struct flow *f, __u32 errors)
{
	__u8 h[8];
	__u32 error, query;

	f->icmp = 0;
	if ((f->ip != 1 && f->ip != 58) || bpf_skb_load_bytes(skb, f->at, h, sizeof h) < 0)
		return;
	if (f->ip == 1) {
		query = h[0] == 0 || h[0] == 8 || h[0] == 13 || h[0] == 14;
		error = errors && (h[0] == 3 || h[0] == 4 || h[0] == 5 || h[0] == 11 || h[0] == 12);
	} else {
		query = h[0] == 128 || h[0] == 129;
		error = errors && h[0] >= 1 && h[0] <= 4;
	}
	if (query) {
		__u16 id = h[4] << 8 | h[5];

		/* the kernel's structure: two octets, and a number of this host; 0 stands for none */
		__builtin_memcpy((__u8 *)&f->icmp, h, 2);
		id = id ?: 1;
		__builtin_memcpy((__u8 *)&f->icmp + 2, &id, 2);
	} else if (error) {
		f->at += sizeof h;
		flow_ip(skb, f);
	}
}

/* The innermost packet in tunnels of IP and GRE, for the policies encap2+3 and encap3+4. */
static __always_inline void flow_inside(struct __sk_buff *skb, struct flow *f)
{
	for (int i = 0; i < TUNNELS; i++) {
		struct flow in = { .at = f->at };
		__u16 gre[2];

		if (f->ip == 4) {
			in.protocol = bpf_htons(ETH_P_IP);
		} else if (f->ip == 41) {
			in.protocol = bpf_htons(ETH_P_IPV6);
		} else if (f->ip == 47) {
			if (bpf_skb_load_bytes(skb, in.at, gre, sizeof gre) < 0 || gre[0] & bpf_htons(0x4007))
				return;
			in.at += 4;
			in.at += gre[0] & bpf_htons(0x8000) ? 4 : 0;
			in.at += gre[0] & bpf_htons(0x2000) ? 4 : 0;
			in.at += gre[0] & bpf_htons(0x1000) ? 4 : 0;
			in.protocol = gre[1];
			if (in.protocol == bpf_htons(0x6558)) { /* a frame */
				if (bpf_skb_load_bytes(skb, in.at + 12, &in.protocol, 2) < 0)
					return;
				in.at += ETH_HLEN;
			}
		} else {
			return;
		}
		if (!flow_ip(skb, &in))
			return;
		*f = in;
	}
}

/* bond_xmit_hash() of drivers/net/bonding/bond_main.c. */
static __always_inline __u32 bond_hash(struct __sk_buff *skb, __u32 policy)
{
	struct flow f = { .at = ETH_HLEN, .protocol = skb->protocol };
	__u32 hash, l34 = policy == LAYER34 || policy == ENCAP34;
	__u8 h[ETH_HLEN];

	if (bpf_skb_load_bytes(skb, 0, h, sizeof h) < 0)
		return 0;
	if (policy == VLAN_SRCMAC) {
		hash = (h[6] << 16 | h[7] << 8 | h[8]) ^ (h[9] << 16 | h[10] << 8 | h[11]);
		return skb->vlan_present ? hash ^ skb->vlan_tci : hash;
	}
	hash = h[5] ^ h[11] ^ bpf_ntohs(f.protocol);
	if (policy == LAYER2 || !flow_ip(skb, &f))
		return hash;
	if (policy == ENCAP23 || policy == ENCAP34)
		flow_inside(skb, &f);
	flow_icmp(skb, &f, policy == LAYER34);
	if (l34)
		hash = f.icmp ?: f.ports;
	hash ^= f.addresses;
	hash ^= hash >> 16;
	hash ^= hash >> 8;
	return l34 ? hash >> 1 : hash;
}

/* The far end of a bond. */
SEC("tc")
int bond_out(struct __sk_buff *skb)
{
	__u32 self = constants.self, at = 0, count;
	struct bond *b = bpf_map_lookup_elem(&bonds, &self);

	if (!b)
		return TC_ACT_SHOT;
	count = b->count;
	if (!count || count > PORTS)
		return TC_ACT_SHOT;
	switch (b->mode) {
	case ROUND_ROBIN:
		at = __sync_fetch_and_add(&b->next, 1) % count;
		break;
	case XOR:
	case LACP:
	case TLB:
		at = bond_hash(skb, b->policy) % count;
		break;
	case BROADCAST:
		for (__u32 i = 1; i < PORTS && i < count; i++)
			bpf_clone_redirect(skb, b->ports[i], 0);
		break;
	}
	asm volatile("" : "+r"(at)); /* the compiler knows that it is below count, the verifier does not */
	if (at >= PORTS)
		return TC_ACT_SHOT;
	return bpf_redirect(b->ports[at], 0);
}

/* The ingress of a bond's port. What is for the link's other end (01:80:c2:00:00:0x) stays at the port. */
SEC("tc")
int bond_in(struct __sk_buff *skb)
{
	__u32 self = constants.self;
	struct port *p = bpf_map_lookup_elem(&bond_ports, &self);
	__u8 to[6];

	if (!p)
		return TCX_NEXT;
	if (bpf_skb_load_bytes(skb, 0, to, sizeof to) < 0)
		return TC_ACT_SHOT;
	if (to[0] == 1 && to[1] == 0x80 && to[2] == 0xc2 && !to[3] && !to[4] && to[5] < 16)
		return TCX_NEXT;
	return p->listens ? bpf_redirect(p->far, 0) : TC_ACT_SHOT;
}

#define MACVLANS 32

enum { PRIVATE = 1, VEPA = 2, BRIDGE = 4, PASSTHRU = 8 }; /* MACVLAN_MODE_* */

/* A macvlan device, by its id. */
struct macvlan {
	__u32 lower; /* ifindex, in the far end's network namespace */
	__u32 below; /* the same device's id */
	__u32 far; /* ifindex of its own far end */
	__u32 mode;
};

/* Those that are up on a device, by that one's id. */
struct macvlans {
	__u32 count;
	__u32 passthru; /* there is one, and it takes all */
	struct {
		__u32 far, mode;
	} each[MACVLANS];
};

struct address {
	__u32 below;
	__u8 mac[6];
	__u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct macvlan);
} macvlan_devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct macvlans);
} macvlans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, struct macvlan);
} macvlan_addresses SEC(".maps");

/* Copies of a frame for many to each device of *m* but that of *own*, and with *mode* to those alone. */
static __always_inline void macvlan_flood(struct __sk_buff *skb, struct macvlans *m, __u32 own, __u32 mode)
{
	for (__u32 i = 0; i < MACVLANS && i < m->count; i++)
		if (m->each[i].far != own && (!mode || m->each[i].mode == mode))
			bpf_clone_redirect(skb, m->each[i].far, 0);
}

/* The far end of a macvlan device. */
SEC("tc")
int macvlan_out(struct __sk_buff *skb)
{
	__u32 self = constants.self;
	struct macvlan *d = bpf_map_lookup_elem(&macvlan_devices, &self), *other;
	struct address to = {};
	struct macvlans *m;

	if (!d || bpf_skb_load_bytes(skb, 0, to.mac, sizeof to.mac) < 0)
		return TC_ACT_SHOT;
	if (d->mode == BRIDGE) {
		to.below = d->below;
		if (!(to.mac[0] & 1)) {
			other = bpf_map_lookup_elem(&macvlan_addresses, &to);
			if (other && other->mode == BRIDGE)
				return bpf_redirect(other->far, 0);
		} else if ((m = bpf_map_lookup_elem(&macvlans, &to.below)))
			macvlan_flood(skb, m, d->far, BRIDGE);
	}
	return bpf_redirect(d->lower, 0);
}

/* The ingress of a device with macvlan devices. */
SEC("tc")
int macvlan_in(struct __sk_buff *skb)
{
	struct address to = { .below = constants.self };
	struct macvlans *m = bpf_map_lookup_elem(&macvlans, &to.below);
	struct macvlan *d;

	if (!m || bpf_skb_load_bytes(skb, 0, to.mac, sizeof to.mac) < 0)
		return TCX_NEXT;
	if (m->passthru)
		return bpf_redirect(m->each[0].far, 0);
	if (to.mac[0] & 1) {
		macvlan_flood(skb, m, 0, 0);
		return TCX_NEXT;
	}
	d = bpf_map_lookup_elem(&macvlan_addresses, &to);
	return d ? bpf_redirect(d->far, 0) : TCX_NEXT;
}

#define AF_INET_ 2
#define AF_INET6_ 10
#define IPPROTO_ICMPV6_ 58
#define ND_FIRST 133 /* router solicitation */
#define ND_LAST 137 /* redirect */

/* By the id of a VRF's port: where its packets go on; by a VRF's own id: the VRF itself. */
struct vrf_port {
	__u32 to; /* ifindex: the VRF's far end; the VRF */
	__u8 mac[6]; /* of the VRF */
	__u16 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct vrf_port);
} vrf_ports SEC(".maps");

/* The ingress of a VRF's port: vrf_ip_rcv(), vrf_ip6_rcv(). What means something on this link alone stays at it. */
SEC("tc")
int vrf_in(struct __sk_buff *skb)
{
	__u32 self = constants.self;
	struct vrf_port *p = bpf_map_lookup_elem(&vrf_ports, &self);
	__u8 to[4], next, type;

	if (!p || skb->pkt_type != 0 /* PACKET_HOST */ || skb->vlan_present)
		return TCX_NEXT;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 16, to, sizeof to) < 0 || to[0] >= 224)
			return TCX_NEXT;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 24, to, sizeof to) < 0 || to[0] == 0xff ||
		    (to[0] == 0xfe && to[1] >> 6 == 2) || bpf_skb_load_bytes(skb, ETH_HLEN + 6, &next, 1) < 0)
			return TCX_NEXT;
		if (next == IPPROTO_ICMPV6_ &&
		    (bpf_skb_load_bytes(skb, ETH_HLEN + 40, &type, 1) < 0 || (type >= ND_FIRST && type <= ND_LAST)))
			return TCX_NEXT;
	} else {
		return TCX_NEXT;
	}
	if (bpf_skb_store_bytes(skb, 0, p->mac, sizeof p->mac, 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(p->to, 0);
}

/*
 * The far end of a VRF: what a socket bound to it sends goes on by the VRF's table, as the rules for this device say.
 * What is for this host comes in by the VRF.
 */
SEC("tc")
int vrf_out(struct __sk_buff *skb)
{
	__u32 self = constants.self, far = skb->ifindex;
	struct vrf_port *vrf = bpf_map_lookup_elem(&vrf_ports, &self);
	struct bpf_redir_neigh next = {};
	struct bpf_fib_lookup p = {};
	long found;

	if (!vrf)
		return TC_ACT_SHOT;
	p.ifindex = far;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof ip) < 0)
			return TC_ACT_SHOT;
		p.family = AF_INET_;
		p.l4_protocol = ip.protocol;
		p.tos = ip.tos & 0x1c;
		p.ipv4_src = ip.saddr;
		p.ipv4_dst = ip.daddr;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof ip) < 0)
			return TC_ACT_SHOT;
		p.family = AF_INET6_;
		p.l4_protocol = ip.nexthdr;
		__builtin_memcpy(p.ipv6_src, &ip.saddr, 16);
		__builtin_memcpy(p.ipv6_dst, &ip.daddr, 16);
	} else {
		return TC_ACT_SHOT;
	}
	found = bpf_fib_lookup(skb, &p, sizeof p, SKIP_NEIGH);
	if (found == BPF_FIB_LKUP_RET_NOT_FWDED)
		return bpf_redirect(far, 0);
	if (found || p.ifindex == vrf->to || p.ifindex == far)
		return TC_ACT_SHOT;
	next.nh_family = p.family;
	if (p.family == AF_INET_)
		next.ipv4_nh = p.ipv4_dst;
	else
		__builtin_memcpy(next.ipv6_nh, p.ipv6_dst, 16);
	return bpf_redirect_neigh(p.ifindex, &next, sizeof next, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
