// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Tunnel devices that the kernel lacks: Geneve, GRE with a frame inside, and IP in IP without one.
 *
 * A device is one end of a veth pair. What is sent on it is put into its tunnel at its egress, and goes on to where the
 * routes lead; the veth itself sees only a copy, for taps and counters. Packets in tunnels are taken out at the ingress
 * of the devices that they come in by, and come in by the tunnel's device. What the kernel keeps beside a packet of its
 * tunnel (the metadata) it forgets on that way, so that it waits in `arrivals` until the packet is there.
 */
#include "../silicon/room.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_GRE_ 47
#define ETH_P_TEB_ 0x6558
#define HEADER_ROOM 400
#define PER_CPU 2048 /* arrivals of a CPU: more than wait for it (net.core.netdev_max_backlog) */
#define NO_TUNNEL_KEY (1ULL << 4) /* Linux 6.2 */
#define FIB_LOOKUP_SKIP_NEIGH (1U << 2)
#define FIB_LOOKUP_SRC (1U << 4) /* Linux 6.7 */
#define DONT_FRAGMENT 0x4000
#define DEFAULT_TTL 64
#define TUN_KEY_ 0x0004 /* flags of a bpf_tunnel_key */
#define TUN_DF_ 0x0100

/* The last two have no frame inside: a packet's Ethernet header is the veth's alone. */
enum tunnel_kind { KIND_GENEVE = 1, KIND_GRETAP = 2, KIND_IP6GRETAP = 3, KIND_IPIP = 4, KIND_SIT = 5 };
#define is_bare(kind) ((kind) >= KIND_IPIP)
#define IPPROTO_IPIP_ 4
#define IPPROTO_IPV6_ 41
#define ECN 3
#define ECN_CE 3
#define ECN_ECT_0 2

/* A device, by its ifindex. */
struct device {
	u32 id; /* of its tunnel, network byte order */
	u16 port; /* UDP, network byte order */
	u8 kind, collects; /* enum tunnel_kind; whether each packet says what its tunnel is */
	u8 ipv6, keyed, ttl, tos; /* ttl 0: the default; tos 1: that of the packet inside */
	u8 dont_fragment, protocol; /* IP protocol of a tunnel without a header; 0: any */
	u32 far; /* ifindex of the veth's other end, which packets go in by, so that the kernel counts them */
	u8 local[16], remote[16]; /* IPv4: the last 4 */
};

/* Which device the packets of a tunnel come in by: those with this id from this end, or ANY. */
struct place {
	u16 port; /* UDP, network byte order; 0: GRE */
	u8 ipv6, keyed;
	u32 id;
	u8 remote[16];
};
#define BARE 3 /* as `keyed`: `id` is the IP protocol, as a tunnel without a header has no id */
#define ANY 2 /* as `keyed`: the device takes what no other does, of either IP version */

struct arrival {
	struct bpf_tunnel_key key;
	u32 options_len;
	u64 flags;
	u8 options[OPTIONS_MAX];
};

struct work {
	u16 len;
	u8 ip, l4;
	u16 has_udp, unused;
	u8 header[HEADER_ROOM];
};

/* clang-format off */
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __uint(map_flags, BPF_F_NO_PREALLOC);
	 __type(key, u32); __type(value, struct device); } devices SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __uint(map_flags, BPF_F_NO_PREALLOC);
	 __type(key, struct place); __type(value, u32); } places SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, PER_CPU); __type(key, u32);
	 __type(value, struct arrival); } arrivals SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32);
	 __type(value, u32); } turns SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32);
	 __type(value, struct work); } works SEC(".maps");
/* clang-format on */

const volatile struct {
	u32 cpus; /* that have arrivals of their own */
} constants = { 1 };

/* Whether an address of an outer header is one of this host, as the device `near` sees it. */
static __always_inline int is_local(struct __sk_buff *skb, u32 near, u32 ipv6, const u8 *src, const u8 *dst)
{
	struct bpf_fib_lookup p = {};

	p.family = ipv6 ? AF_INET6 : AF_INET;
	p.ifindex = near;
	if (ipv6) {
		__builtin_memcpy(p.ipv6_src, src, 16);
		__builtin_memcpy(p.ipv6_dst, dst, 16);
	} else {
		__builtin_memcpy(&p.ipv4_src, src + 12, 4);
		__builtin_memcpy(&p.ipv4_dst, dst + 12, 4);
	}
	return bpf_fib_lookup(skb, &p, sizeof(p), FIB_LOOKUP_SKIP_NEIGH) == BPF_FIB_LKUP_RET_NOT_FWDED;
}

/* A packet's outer headers, as far as they decide which device it is for. */
struct seen {
	struct place place;
	u8 src[16], dst[16];
	u32 inner; /* where the frame inside begins */
	u32 options; /* and its options */
	u32 options_len;
	u8 tos, ttl, checksum, ipv6;
};

/* 0: there is no tunnel. */
static __always_inline int read_outer(struct __sk_buff *skb, struct seen *s)
{
	u8 h[IPV6_LEN], proto;
	u32 l4 = ETH_LEN;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN, h, IPV4_LEN) || h[0] != IPV4_WITHOUT_OPTIONS ||
		    *(u16 *)(h + IPV4_FRAGMENT) & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS))
			return 0;
		proto = h[IPV4_PROTOCOL];
		s->tos = h[IPV4_TOS];
		s->ttl = h[IPV4_TTL];
		__builtin_memcpy(s->src + 12, h + IPV4_SRC, 4);
		__builtin_memcpy(s->dst + 12, h + IPV4_DST, 4);
		l4 += IPV4_LEN;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN, h, IPV6_LEN))
			return 0;
		proto = h[IPV6_NEXT_HEADER];
		s->tos = h[0] << 4 | h[1] >> 4;
		s->ttl = h[IPV6_HOP_LIMIT];
		__builtin_memcpy(s->src, h + IPV6_SRC, 16);
		__builtin_memcpy(s->dst, h + IPV6_DST, 16);
		s->ipv6 = 1;
		l4 += IPV6_LEN;
	} else {
		return 0;
	}
	if (!s->ipv6 && (proto == IPPROTO_IPIP_ || proto == IPPROTO_IPV6_)) {
		s->place.keyed = BARE;
		s->place.id = bpf_htonl(proto);
		s->inner = l4;
		__builtin_memcpy(s->place.remote, s->src, 16);
		return skb->len >= l4 + (proto == IPPROTO_IPIP_ ? IPV4_LEN : IPV6_LEN);
	}
	if (proto != IPPROTO_UDP && proto != IPPROTO_GRE_)
		return 0;
	/* With a frame inside, a packet has so many octets there, whatever its header. */
	if (bpf_skb_load_bytes(skb, l4, h, UDP_LEN + GENEVE_LEN))
		return 0;
	if (proto == IPPROTO_UDP) {
		const u8 *g = h + UDP_LEN;

		if (g[0] >> 6 || *(u16 *)(g + 2) != bpf_htons(ETH_P_TEB_))
			return 0;
		s->place.port = *(u16 *)(h + UDP_DST);
		s->place.keyed = 1;
		s->place.id = *(u32 *)(g + GENEVE_ID_AT) & bpf_htonl(0xffffff00);
		s->place.id = bpf_htonl(bpf_ntohl(s->place.id) >> 8);
		s->checksum = !!*(u16 *)(h + UDP_CHECKSUM);
		s->options = l4 + UDP_LEN + GENEVE_LEN;
		s->options_len = (g[0] & 0x3f) * 4;
		s->inner = s->options + s->options_len;
	} else {
		u16 flags = bpf_ntohs(*(u16 *)h);
		u32 at = GRE_LEN;

		if (flags & ~(GRE_CHECKSUM | GRE_KEY | GRE_SEQUENCE) || *(u16 *)(h + 2) != bpf_htons(ETH_P_TEB_))
			return 0;
		if (flags & GRE_CHECKSUM) {
			s->checksum = 1;
			at += 4;
		}
		if (flags & GRE_KEY) {
			s->place.keyed = 1;
			s->place.id = at == GRE_LEN ? *(u32 *)(h + GRE_LEN) : *(u32 *)(h + GRE_LEN + 4);
			at += 4;
		}
		if (flags & GRE_SEQUENCE)
			at += 4;
		s->inner = l4 + at;
	}
	s->place.ipv6 = s->ipv6;
	__builtin_memcpy(s->place.remote, s->src, 16);
	return skb->len >= s->inner + ETH_LEN;
}

/* The device that a packet is for; 0: none. */
static __always_inline u32 device_of(struct seen *s)
{
	u32 *found = bpf_map_lookup_elem(&places, &s->place);
	struct place any = { .port = s->place.port, .keyed = ANY };

	if (found)
		return *found;
	if (s->place.keyed == BARE) {
		any = s->place;
		__builtin_memset(any.remote, 0, sizeof any.remote);
	} else if (!s->place.port)
		any.ipv6 = s->ipv6; /* a device of GRE is of one version */
	found = bpf_map_lookup_elem(&places, &any);
	return found ? *found : 0;
}

static __always_inline void set_key(struct arrival *a, const struct seen *s, u32 collects)
{
	__builtin_memset(&a->key, 0, sizeof(a->key));
	a->flags = s->checksum ? 0 : BPF_F_ZERO_CSUM_TX;
	if (!s->place.keyed)
		a->flags |= NO_TUNNEL_KEY;
	a->key.tunnel_id = bpf_ntohl(s->place.id);
	a->key.tunnel_tos = s->tos;
	a->key.tunnel_ttl = s->ttl;
	/* As what is received: set_tunnel_key() calls remote where a packet goes. */
	if (s->ipv6) {
		a->flags |= BPF_F_TUNINFO_IPV6;
		__builtin_memcpy(a->key.remote_ipv6, s->dst, 16);
		__builtin_memcpy(a->key.local_ipv6, s->src, 16);
	} else {
		a->key.remote_ipv4 = bpf_ntohl(*(u32 *)(s->dst + 12));
		a->key.local_ipv4 = bpf_ntohl(*(u32 *)(s->src + 12));
	}
	if (!collects)
		a->flags = ~0ULL;
}

/*
 * Take off an outer IPv4 header that a packet of the other or the same version follows, which keeps the Ethernet header.
 * ip_tunnel_rcv() and IP_ECN_decapsulate(): congestion that the outer header tells of is told by the inner one; what
 * does not let itself be told is dropped.
 */
static __always_inline int strip_bare(struct __sk_buff *skb, struct seen *s)
{
	u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	u16 type = bpf_htons(ETH_P_IP), word, marked;

	if (s->place.id == bpf_htonl(IPPROTO_IPV6_)) {
		type = bpf_htons(ETH_P_IPV6);
		flags |= DECAP_L3_IPV6;
	}
	if (bpf_skb_adjust_room(skb, -IPV4_LEN, BPF_ADJ_ROOM_MAC, flags) ||
	    bpf_skb_store_bytes(skb, ETH_TYPE, &type, sizeof type, 0) ||
	    bpf_skb_load_bytes(skb, ETH_LEN, &word, sizeof word))
		return -1;
	if ((s->tos & ECN) != ECN_CE)
		return 0;
	if (type == bpf_htons(ETH_P_IPV6)) {
		marked = word | bpf_htons(ECN_CE << 4);
		if (!(word & bpf_htons(ECN << 4)))
			return -1;
	} else {
		marked = word | bpf_htons(ECN_CE);
		if (!(word & bpf_htons(ECN)) ||
		    (marked != word && bpf_l3_csum_replace(skb, ETH_LEN + IPV4_CHECKSUM, word, marked, sizeof word)))
			return -1;
	}
	return bpf_skb_store_bytes(skb, ETH_LEN, &marked, sizeof marked, 0) ? -1 : 0;
}

/* The ingress of every device of the host, behind all other programs. */
SEC("tc")
int tunnel_in(struct __sk_buff *skb)
{
	struct seen s = {};
	u32 zero = 0, near, slot, len, at, *turn;
	struct device *d;
	struct arrival *a;

	if (skb->pkt_type != PACKET_HOST || skb->vlan_present || !read_outer(skb, &s))
		return TCX_NEXT;
	near = device_of(&s);
	d = near ? bpf_map_lookup_elem(&devices, &near) : 0;
	turn = bpf_map_lookup_elem(&turns, &zero);
	if (!d || !turn || near == skb->ifindex || !is_local(skb, near, s.ipv6, s.src, s.dst))
		return TCX_NEXT;
	slot = bpf_get_smp_processor_id() % constants.cpus * PER_CPU + (*turn)++ % PER_CPU;
	a = bpf_map_lookup_elem(&arrivals, &slot);
	if (!a)
		return TCX_DROP;
	set_key(a, &s, d->collects);
	a->options_len = 0;
	len = s.options_len;
	at = s.options;
	if (is_length(len, OPTIONS_MAX - 1)) {
		if (bpf_skb_load_bytes(skb, at, a->options, len))
			return TCX_DROP;
		a->options_len = len;
	}
	if (is_bare(d->kind) ? strip_bare(skb, &s) : strip(skb, s.inner) < 0)
		return TCX_DROP;
	skb->tc_index = slot + 1;
	return bpf_redirect(d->far, 0);
}

/* The ingress of a tunnel device, before all other programs. */
SEC("tc")
int tunnel_arrive(struct __sk_buff *skb)
{
	u32 slot = skb->tc_index, ifindex = skb->ifindex, len;
	struct arrival *a;
	struct device *d = bpf_map_lookup_elem(&devices, &ifindex);

	skb->tc_index = 0;
	if (!slot || !d)
		return TCX_NEXT;
	slot--;
	if (is_bare(d->kind)) /* its Ethernet header was for the device below */
		bpf_skb_change_type(skb, PACKET_HOST);
	a = bpf_map_lookup_elem(&arrivals, &slot);
	if (!a)
		return TCX_DROP;
	if (a->flags != ~0ULL) {
		if (bpf_skb_set_tunnel_key(skb, &a->key, sizeof(a->key), a->flags) &&
		    (!(a->flags & NO_TUNNEL_KEY) ||
		     bpf_skb_set_tunnel_key(skb, &a->key, sizeof(a->key), a->flags & ~NO_TUNNEL_KEY)))
			return TCX_DROP;
		len = a->options_len;
		if (is_length(len, OPTIONS_MAX - 1) && bpf_skb_set_tunnel_opt(skb, a->options, len))
			return TCX_DROP;
	}
	return TCX_NEXT;
}

/* The tunnel that a packet is to go into: what it says itself, or what the device says. -1: none. */
static __always_inline int wanted(struct __sk_buff *skb, struct device *d, struct bpf_tunnel_key *key, u32 *ipv6)
{
	*ipv6 = 0;
	if (d->collects) {
		if (!bpf_skb_get_tunnel_key(skb, key, sizeof(*key), BPF_F_TUNINFO_FLAGS)) {
			u32 near = key->remote_ipv4;

			/* The kernel calls remote where a packet comes from. */
			key->remote_ipv4 = bpf_htonl(key->local_ipv4);
			key->local_ipv4 = bpf_htonl(near);
			return 0;
		}
		*ipv6 = 1;
		if (bpf_skb_get_tunnel_key(skb, key, sizeof(*key), BPF_F_TUNINFO_FLAGS | BPF_F_TUNINFO_IPV6))
			return -1;
		u8 near[16];

		__builtin_memcpy(near, key->remote_ipv6, 16);
		__builtin_memcpy(key->remote_ipv6, key->local_ipv6, 16);
		__builtin_memcpy(key->local_ipv6, near, 16);
		return 0;
	}
	*ipv6 = d->ipv6;
	key->tunnel_id = bpf_ntohl(d->id);
	key->tunnel_tos = d->tos;
	key->tunnel_ttl = d->ttl;
	key->tunnel_flags = (d->keyed ? bpf_htons(TUN_KEY_) : 0) | (d->dont_fragment ? bpf_htons(TUN_DF_) : 0);
	if (d->ipv6) {
		__builtin_memcpy(key->remote_ipv6, d->remote, 16);
		__builtin_memcpy(key->local_ipv6, d->local, 16);
	} else {
		__builtin_memcpy(&key->remote_ipv4, d->remote + 12, 4);
		__builtin_memcpy(&key->local_ipv4, d->local + 12, 4);
	}
	return 0;
}

/*
 * Send a packet out of a device to where its outer header leads. The kernel looks up the route once more: told of the
 * next hop, it would keep the route that the packet had inside, and where a packet waits for the neighbour's address,
 * take that of a neighbour of the tunnel device in the end.
 */
static __always_inline int to_next_hop(u32 ifindex)
{
	return bpf_redirect_neigh(ifindex, 0, 0, 0);
}

/*
 * Put an outer IPv4 header in front of a packet without a frame (ip_tunnel_xmit()). What the device leaves open is as
 * in the packet inside: TTL, and with the lowest bit of the TOS set, this too; so is congestion notification.
 */
static __always_inline int put_on_bare(struct __sk_buff *skb, struct device *d, const struct bpf_fib_lookup *p)
{
	u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	u8 in[IPV4_LEN], out[2 + IPV4_LEN] = {}, *ip = out + 2, tos, ttl, inner_tos;
	u32 sum = 0, fragment = d->dont_fragment ? DONT_FRAGMENT : 0;
	u8 proto = skb->protocol == bpf_htons(ETH_P_IPV6) ? IPPROTO_IPV6_ : IPPROTO_IPIP_;

	if (skb->vlan_present || (proto == IPPROTO_IPIP_ && skb->protocol != bpf_htons(ETH_P_IP)) ||
	    (d->protocol && d->protocol != proto) || (d->kind == KIND_IPIP && proto != IPPROTO_IPIP_) ||
	    bpf_skb_load_bytes(skb, ETH_LEN, in, sizeof in))
		return -1;
	if (proto == IPPROTO_IPV6_) {
		inner_tos = in[0] << 4 | in[1] >> 4;
		ttl = in[IPV6_HOP_LIMIT];
	} else {
		inner_tos = in[IPV4_TOS];
		ttl = in[IPV4_TTL];
		fragment |= bpf_ntohs(*(u16 *)(in + IPV4_FRAGMENT)) & DONT_FRAGMENT;
	}
	tos = d->tos & 1 ? inner_tos : d->tos;
	tos = (tos & ~ECN) | ((inner_tos & ECN) == ECN_CE ? ECN_ECT_0 : inner_tos & ECN);
	*(u16 *)out = bpf_htons(ETH_P_IP);
	ip[0] = IPV4_WITHOUT_OPTIONS;
	ip[IPV4_TOS] = tos;
	ip[IPV4_TTL] = d->ttl ?: ttl;
	ip[IPV4_PROTOCOL] = proto;
	*(u16 *)(ip + IPV4_FRAGMENT) = bpf_htons(fragment);
	if (!fragment)
		*(u16 *)(ip + 4) = bpf_get_prandom_u32();
	__builtin_memcpy(ip + IPV4_SRC, &p->ipv4_src, 4);
	__builtin_memcpy(ip + IPV4_DST, d->remote + 12, 4);
	if (bpf_skb_adjust_room(skb, IPV4_LEN, BPF_ADJ_ROOM_MAC, flags | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))
		return -1;
	*(u16 *)(ip + IPV4_TOTAL_LENGTH) = bpf_htons(skb->len - ETH_LEN);
#pragma unroll
	for (int i = 0; i < IPV4_LEN / 2; i++)
		sum += *(u16 *)(ip + 2 * i);
	*(u16 *)(ip + IPV4_CHECKSUM) = fold(sum);
	return bpf_skb_store_bytes(skb, ETH_TYPE, out, sizeof out, 0) ? -1 : 0;
}

/* The egress of a tunnel device. */
SEC("tc")
int tunnel_out(struct __sk_buff *skb)
{
	u32 zero = 0, ifindex = skb->ifindex, ipv6, mark = skb->mark, at, hash;
	struct device *d = bpf_map_lookup_elem(&devices, &ifindex);
	struct work *w = bpf_map_lookup_elem(&works, &zero);
	struct bpf_tunnel_key key = {};
	struct bpf_fib_lookup p = {};
	int options = 0;
	u32 flags = FIB_LOOKUP_SKIP_NEIGH;
	u8 proto;

	if (!d || !w || mark == SELF_MARK)
		return TCX_NEXT;
	if (wanted(skb, d, &key, &ipv6))
		return TCX_DROP;
	hash = bpf_get_hash_recalc(skb);
	p.ifindex = ifindex;
	if (ipv6) {
		p.family = AF_INET6;
		__builtin_memcpy(p.ipv6_src, key.local_ipv6, 16);
		__builtin_memcpy(p.ipv6_dst, key.remote_ipv6, 16);
		if (!(p.ipv6_src[0] | p.ipv6_src[1] | p.ipv6_src[2] | p.ipv6_src[3]))
			flags |= FIB_LOOKUP_SRC;
	} else {
		p.family = AF_INET;
		p.ipv4_src = key.local_ipv4;
		p.ipv4_dst = key.remote_ipv4;
		if (!p.ipv4_src)
			flags |= FIB_LOOKUP_SRC;
	}
	if (bpf_fib_lookup(skb, &p, sizeof(p), flags))
		return TCX_DROP;
	skb->mark = SELF_MARK;
	bpf_clone_redirect(skb, ifindex, 0);
	skb->mark = mark;
	if (is_bare(d->kind)) {
		if (!*(u32 *)(d->remote + 12) || put_on_bare(skb, d, &p))
			return TCX_DROP;
		return to_next_hop(p.ifindex);
	}

	__builtin_memset(w->header, 0, ETH_LEN + IPV6_LEN + UDP_LEN + GENEVE_LEN);
	proto = d->kind == KIND_GENEVE ? IPPROTO_UDP : IPPROTO_GRE_;
	w->ip = ETH_LEN;
	if (ipv6) {
		*(u16 *)(w->header + ETH_TYPE) = bpf_htons(ETH_P_IPV6);
		*(u32 *)(w->header + ETH_LEN) = bpf_htonl(6 << 28 | key.tunnel_tos << 20);
		w->header[ETH_LEN + IPV6_NEXT_HEADER] = proto;
		w->header[ETH_LEN + IPV6_HOP_LIMIT] = key.tunnel_ttl ?: DEFAULT_TTL;
		__builtin_memcpy(w->header + ETH_LEN + IPV6_SRC, p.ipv6_src, 16);
		__builtin_memcpy(w->header + ETH_LEN + IPV6_DST, key.remote_ipv6, 16);
		at = ETH_LEN + IPV6_LEN;
	} else {
		*(u16 *)(w->header + ETH_TYPE) = bpf_htons(ETH_P_IP);
		w->header[ETH_LEN] = IPV4_WITHOUT_OPTIONS;
		w->header[ETH_LEN + IPV4_TOS] = key.tunnel_tos;
		if (key.tunnel_flags & bpf_htons(TUN_DF_))
			*(u16 *)(w->header + ETH_LEN + IPV4_FRAGMENT) = bpf_htons(DONT_FRAGMENT);
		w->header[ETH_LEN + IPV4_TTL] = key.tunnel_ttl ?: DEFAULT_TTL;
		w->header[ETH_LEN + IPV4_PROTOCOL] = proto;
		__builtin_memcpy(w->header + ETH_LEN + IPV4_SRC, &p.ipv4_src, 4);
		__builtin_memcpy(w->header + ETH_LEN + IPV4_DST, &key.remote_ipv4, 4);
		at = ETH_LEN + IPV4_LEN;
	}
	bounded(at);
	if (at > ETH_LEN + IPV6_LEN)
		return TCX_DROP;
	w->l4 = at;
	w->has_udp = d->kind == KIND_GENEVE;
	if (w->has_udp) {
		*(u16 *)(w->header + at + UDP_DST) = d->port;
		at += UDP_LEN;
		*(u16 *)(w->header + at + 2) = bpf_htons(ETH_P_TEB_);
		*(u32 *)(w->header + at + GENEVE_ID_AT) = bpf_htonl(key.tunnel_id << 8);
		at += GENEVE_LEN;
		if (d->collects && key.tunnel_flags & bpf_htons(TUN_OPTIONS))
			options = bpf_skb_get_tunnel_opt(skb, w->header + at, OPTIONS_MAX);
		if (options > 0 && options < OPTIONS_MAX) {
			u32 critical = 0;

			for (u32 i = 0, o = at; i < 32 && o < at + options; i++) {
				bounded(o);
				if (o > HEADER_ROOM - 4)
					break;
				critical |= w->header[o + 2] & 0x80;
				o += 4 + (w->header[o + 3] & 0x1f) * 4;
			}
			w->header[at - GENEVE_LEN] = (u32)options >> 2;
			w->header[at - GENEVE_LEN + 1] = critical ? 0x40 : 0;
			at += options;
		}
	} else {
		*(u16 *)(w->header + at + 2) = bpf_htons(ETH_P_TEB_);
		if (key.tunnel_flags & bpf_htons(TUN_KEY_)) {
			*(u16 *)(w->header + at) = bpf_htons(GRE_KEY);
			*(u32 *)(w->header + at + GRE_LEN) = bpf_htonl(key.tunnel_id);
			at += 4;
		}
		at += GRE_LEN;
	}
	w->len = at;
	if (put_on(skb, (struct outer_headers *)w, HEADER_ROOM, hash) < 0)
		return TCX_DROP;
	return to_next_hop(p.ifindex);
}

char _license[] SEC("license") = "Dual BSD/GPL";
