// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Tunnels without a frame inside: IPv4 and IPv6 in IPv4 (net/ipv4/ipip.c, net/ipv6/sit.c, ip_tunnel.c), GRE
 * (net/ipv4/ip_gre.c) and bare UDP (drivers/net/bareudp.c).
 */
#pragma once

#include "outer_headers.h"

#define ECN 3
#define ECN_CE 3
#define ECN_ECT_0 2

/* What is inside a packet in bare UDP, for a device that may carry this IP protocol; 0: nothing that it may. */
static __always_inline u16 type_inside(struct __sk_buff *skb, u32 at, u8 protocol)
{
	u8 first;

	if (protocol == IPPROTO_MPLS_)
		return bpf_htons(ETH_P_MPLS_UC_);
	if (bpf_skb_load_bytes(skb, at, &first, 1))
		return 0;
	if (first >> 4 == 4 && protocol != IPPROTO_IPV6_)
		return bpf_htons(ETH_P_IP);
	return first >> 4 == 6 && protocol != IPPROTO_IPIP_ ? bpf_htons(ETH_P_IPV6) : 0;
}

/*
 * Take off the outer headers that a packet without a frame follows, which keeps the Ethernet header.
 * ip_tunnel_rcv() and IP_ECN_decapsulate(): congestion that the outer header tells of is told by the inner one; what
 * does not let itself be told is dropped.
 */
static __always_inline int strip_bare(struct __sk_buff *skb, struct seen *s)
{
	u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	u16 type = s->type, word, marked;
	u32 inner = s->inner;

	bounded(inner);
	if (inner < ETH_LEN || inner > TUNNEL_MAX)
		return -1;
	if (is_ip(type) && (u16)skb->protocol != type)
		flags |= type == bpf_htons(ETH_P_IP) ? DECAP_L3_IPV4 : DECAP_L3_IPV6;
	if (bpf_skb_adjust_room(skb, -(s32)(inner - ETH_LEN), BPF_ADJ_ROOM_MAC, flags) ||
	    bpf_skb_store_bytes(skb, ETH_TYPE, &type, sizeof type, 0) || (!is_ip(type) && settle(skb)) ||
	    bpf_skb_load_bytes(skb, ETH_LEN, &word, sizeof word))
		return -1;
	if ((s->tos & ECN) != ECN_CE || !is_ip(type))
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
