// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The tuple that identifies a packet's connection: addresses, protocol and ports, as Linux's connection tracking reads
 * them.
 *
 * A packet is read only up to its IP length; what follows is padding of the link.
 */
#pragma once

#include "connections.h"

#define NR_ICMP_TYPES 18
#define GRE_VERSION 7
#define GRE_PROTO_PPP 0x880b

enum tuple_of { IS_PACKET, IS_FRAGMENT = 1, NOT_TRACKABLE = -1, NOT_IP = -2 };

/* Whether the protocol's header begins with two ports. */
static __always_inline int has_ports(u32 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP || proto == IPPROTO_UDPLITE;
}

/*
 * Read the ports, or their equivalents, of the transport header at `at`. 0: it is shorter than the kernel needs for the
 * tuple.
 */
static __always_inline int ports_at(struct __sk_buff *skb, struct tuple *t, u32 at, u32 end)
{
	u32 proto = t->proto;
	u16 h[4] = {};

	t->src_port = t->dst_port = 0;
	if (proto == icmp_of(t->family)) {
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, h, 8))
			return 0;
		t->src_port = h[2];
		t->dst_port = h[0];
		return 1;
	}
	if (has_ports(proto)) {
		if (at + 4 > end || bpf_skb_load_bytes(skb, at, h, 4))
			return 0;
		t->src_port = h[0];
		t->dst_port = h[1];
		return 1;
	}
	if (proto == IPPROTO_GRE) {
		if (at + 4 > end || bpf_skb_load_bytes(skb, at, h, 4) || (bpf_ntohs(h[0]) & GRE_VERSION) != 1)
			return 1;
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, h, 8))
			return 1;
		if (h[1] != bpf_htons(GRE_PROTO_PPP))
			return 0;
		t->dst_port = h[3];
	}
	return 1;
}

/* The offset after the IPv6 extension headers from `at` on, and the protocol there in `t`; -1: there is none. */
static __always_inline int skip_extensions(struct __sk_buff *skb, struct tuple *t, u32 at, u32 end)
{
	u32 next = t->proto;

	for (int i = 0; i < EXTENSIONS; i++) {
		u8 e[4];

		if (!is_extension(next))
			break;
		if (next == IPPROTO_NONE || at + 2 > end || bpf_skb_load_bytes(skb, at, e, 2))
			return -1;
		if (next == IPPROTO_FRAGMENT) {
			if (at + 4 > end || bpf_skb_load_bytes(skb, at + 2, e + 2, 2) || e[2] || e[3] & 0xf8)
				return -1;
			at += 8;
		} else {
			at += next == IPPROTO_AH ? (e[1] + 2) * 4 : (e[1] + 1) * 8;
		}
		next = e[0];
	}
	t->proto = next;
	return is_extension(next) ? -1 : (int)at;
}

/*
 * Read the tuple of the network header of this `family` at `at`; the packet ends at `end`. Returns the offset of the
 * transport header; -1: there is none.
 */
__noinline int tuple_at(struct __sk_buff *skb, struct tuple *t, u32 family, u32 at, u32 end)
{
	int l4;

	if (!t)
		return -1;
	__builtin_memset(t->src, 0, 32);
	t->family = family;
	if (family == 4) {
		u8 h[IPV4_LEN];

		if (at + IPV4_LEN > end || bpf_skb_load_bytes(skb, at, h, IPV4_LEN) ||
		    *(u16 *)(h + IPV4_FRAGMENT) & bpf_htons(FRAGMENT_OFFSET))
			return -1;
		__builtin_memcpy(t->src + 12, h + IPV4_SRC, 4);
		__builtin_memcpy(t->dst + 12, h + IPV4_DST, 4);
		t->proto = h[IPV4_PROTOCOL];
		if ((h[0] & 15) < 5)
			return -1;
		l4 = at + (h[0] & 15) * 4;
		if (l4 > (int)end)
			return -1;
	} else {
		u8 next;

		if (at + IPV6_LEN > end || bpf_skb_load_bytes(skb, at + IPV6_NEXT_HEADER, &next, 1) ||
		    bpf_skb_load_bytes(skb, at + IPV6_SRC, t->src, 32))
			return -1;
		t->proto = next;
		l4 = skip_extensions(skb, t, at + IPV6_LEN, end);
		if (l4 < 0)
			return -1;
	}
	return ports_at(skb, t, l4, end) ? l4 : -1;
}

/*
 * Whether the packet ends within the IPv6 extension headers behind the header at `l3`: act_ct drops such a packet before
 * it is trimmed (ipv6_find_hdr() fails).
 */
__noinline int extensions_are_cut(struct __sk_buff *skb, u32 l3)
{
	u32 at = l3 + IPV6_LEN, next;
	u8 e[4];

	if (bpf_skb_load_bytes(skb, l3 + IPV6_NEXT_HEADER, e, 1))
		return 1;
	next = e[0];
	for (int i = 0; i < EXTENSIONS; i++) {
		if (!is_extension(next) || next == IPPROTO_NONE)
			return 0;
		if (bpf_skb_load_bytes(skb, at, e, 2))
			return 1;
		if ((next == IPPROTO_FRAGMENT || next == IPPROTO_ROUTING) && bpf_skb_load_bytes(skb, at, e, 4))
			return 1;
		if (next == IPPROTO_FRAGMENT) {
			if (e[2] || e[3] & 0xf8)
				return 0;
			at += 8;
		} else {
			at += next == IPPROTO_AH ? (e[1] + 2) * 4 : (e[1] + 1) * 8;
		}
		next = e[0];
	}
	return 0;
}

/*
 * Find the network header after the tags and the end of the packet, and trim the packet there. With `strict`,
 * a packet that ends within its IPv6 extension headers is not trackable. Returns enum tuple_of.
 */
__noinline int network_of(struct __sk_buff *skb, struct flight *p, u32 enveloped, u32 strict)
{
	u32 l3 = ETH_LEN, end = skb->len, length;
	u16 type, h[4];

	if (!p || bpf_skb_load_bytes(skb, ETH_TYPE, &type, 2))
		return NOT_IP;
	for (int i = 0; i < 2; i++) {
		/* At most two tags are parsed, in the packet or in its metadata. */
		if (!is_vlan(type) || (i && skb->vlan_present))
			break;
		l3 += TAG_LEN;
		if (bpf_skb_load_bytes(skb, l3 - 2, &type, 2))
			return NOT_IP;
	}
	p->l3 = l3;
	p->end = end;
	p->fragment = 0;
	if (type == bpf_htons(ETH_P_IP)) {
		p->tuple.family = 4;
		if (l3 + IPV4_LEN > end || bpf_skb_load_bytes(skb, l3, h, 8))
			return NOT_TRACKABLE;
		length = bpf_ntohs(h[1]);
		p->fragment = !!(h[3] & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS));
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		p->tuple.family = 6;
		if (l3 + IPV6_LEN > end || bpf_skb_load_bytes(skb, l3, h, 8))
			return NOT_TRACKABLE;
		if (strict && extensions_are_cut(skb, l3))
			return NOT_TRACKABLE;
		length = IPV6_LEN + bpf_ntohs(h[2]);
	} else {
		return NOT_IP;
	}
	if (l3 + length < end) {
		end = l3 + length;
		if (end < ETH_LEN)
			return NOT_TRACKABLE;
		if (!enveloped)
			bpf_skb_change_tail(skb, end, 0); /* fails if the kernel has noted headers beyond the end */
		p->end = end;
	}
	return IS_PACKET;
}
