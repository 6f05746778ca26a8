// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* VRF devices and their ports (drivers/net/vrf.c). */
#pragma once

#include <linux/ip.h>
#include <linux/ipv6.h>

#include "programs.h"

#define SKIP_NEIGH (1U << 2) /* BPF_FIB_LOOKUP_SKIP_NEIGH, Linux 6.3 */
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
