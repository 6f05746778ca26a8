// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Push and pop headers at the front of a packet: MPLS labels, network service headers, Ethernet (specified in
 * layers.py).
 *
 * In Open vSwitch's datapath, a packet may begin with its network header. Here such a packet keeps an Ethernet header
 * in front, with the right type and meaningless addresses, and struct work says that it is not part of the packet.
 */
#pragma once

#include "rewrite.h"

enum next_protocol { NEXT_IPV4 = 1, NEXT_IPV6, NEXT_ETHERNET, NEXT_NSH, NEXT_MPLS };

#define ETH_P_TEB 0x6558 /* an Ethernet header follows */

/* The ethertype of the packet; -1: it has a tag, and none of these actions works behind one. */
static __always_inline int untagged_type(struct __sk_buff *skb)
{
	u16 type;

	if (skb->vlan_present || bpf_skb_load_bytes(skb, 12, &type, 2) || is_vlan(type))
		return -1;
	return type;
}

/* Make `room` octets at the front, and write `len` octets of `o->header` there. */
static __always_inline int put_in_front(struct __sk_buff *skb, struct encap *o, u32 room, u32 len)
{
	if (!is_between(len, ETH_LEN, OUTER_MAX) || bpf_skb_change_head(skb, room, 0) ||
	    bpf_skb_store_bytes(skb, 0, o->header, len, 0))
		return -1;
	return settle(skb);
}

/* Push a label stack entry behind the Ethernet header, or, with `outside`, before it: the packet then has none. */
static __always_inline int push_mpls(struct __sk_buff *skb, u32 lse, u16 type, int outside)
{
	u32 zero = 0;
	struct encap *o = bpf_map_lookup_elem(&outer, &zero);

	if (!o || untagged_type(skb) < 0 || bpf_skb_load_bytes(skb, 0, o->header, 12))
		return -1;
	lse = bpf_htonl(lse);
	type = bpf_htons(type);
	__builtin_memcpy(o->header + 12, &type, 2);
	__builtin_memcpy(o->header + 14, &lse, 4);
	return put_in_front(skb, o, outside ? 18 : 4, 18);
}

/*
 * Remove the four octets behind the ethertype, which becomes `type`. The only helper that can is for VLAN tags, so the
 * octets are made to look like one.
 */
static __always_inline int take_four(struct __sk_buff *skb, u16 type)
{
	u16 tag[3] = { bpf_htons(ETH_P_8021Q), 0, type };

	/* settle() moves the tag into the metadata, from where it is removed. */
	return bpf_skb_store_bytes(skb, 12, tag, 6, 0) || settle(skb) || bpf_skb_vlan_pop(skb);
}

/* Remove the room at the front: an Ethernet header follows it. */
static __always_inline int take_room(struct __sk_buff *skb)
{
	u16 ip = bpf_htons(ETH_P_IP);

	if (skb->len < 28 || bpf_skb_store_bytes(skb, 12, &ip, 2, 0) || settle(skb))
		return -1;
	return strip(skb, 14) < 0 ? -1 : 0;
}

/* Returns the new value of no_ethernet, or -1. */
static __always_inline int pop_mpls(struct __sk_buff *skb, u16 type, u32 bare, u32 layered)
{
	int is = untagged_type(skb);

	if (is < 0)
		return -1;
	if (is != bpf_htons(ETH_P_MPLS_UC) && is != bpf_htons(ETH_P_MPLS_MC))
		return bare;
	if (skb->len < 18 || take_four(skb, bpf_htons(type)))
		return -1;
	if (type != ETH_P_TEB || !bare)
		return bare;
	return layered || take_room(skb) ? -1 : 0;
}

static __always_inline int push_nsh(struct __sk_buff *skb, u32 slot, u32 bare)
{
	u32 zero = 0, len;
	struct encap *template = bpf_map_lookup_elem(&encaps, &slot), *o = bpf_map_lookup_elem(&outer, &zero);
	int type = untagged_type(skb);
	u8 next = NEXT_ETHERNET;

	if (!template || !o || type < 0)
		return -1;
	if (bare) {
		next = type == bpf_htons(ETH_P_IP)      ? NEXT_IPV4 :
		       type == bpf_htons(ETH_P_IPV6)    ? NEXT_IPV6 :
		       type == bpf_htons(ETH_P_NSH)     ? NEXT_NSH :
		       type == bpf_htons(ETH_P_MPLS_UC) ? NEXT_MPLS :
							  0;
		if (!next)
			return -1;
	}
	__builtin_memcpy(o, template, sizeof(*o));
	len = o->len; /* with the Ethernet header in front */
	o->header[14 + 3] = next;
	return put_in_front(skb, o, bare ? len - 14 : len, len) ? -1 : 1;
}

/* Returns the new value of no_ethernet, or -1. */
static __always_inline int pop_nsh(struct __sk_buff *skb, u32 bare, u32 layered)
{
	u32 octets;
	u16 type;
	u8 h[8];

	if (!bare || untagged_type(skb) != bpf_htons(ETH_P_NSH) || bpf_skb_load_bytes(skb, 14, h, 8))
		return -1;
	octets = (h[1] & 0x3f) * 4;
	if (octets < 8 || skb->len < 14 + octets || h[3] < NEXT_IPV4 || h[3] > NEXT_MPLS)
		return -1;
	type = h[3] == NEXT_IPV4 ? ETH_P_IP :
	       h[3] == NEXT_IPV6 ? ETH_P_IPV6 :
	       h[3] == NEXT_NSH  ? ETH_P_NSH :
				   ETH_P_MPLS_UC;
	for (u32 i = 0; i < 63; i++) {
		if (i * 4 >= octets)
			break;
		if (take_four(skb, i * 4 + 4 < octets || h[3] == NEXT_ETHERNET ? bpf_htons(0x88b5) : bpf_htons(type)))
			return -1;
	}
	if (h[3] != NEXT_ETHERNET)
		return 1;
	return layered || take_room(skb) ? -1 : 0;
}

static __always_inline int swap_ethernet(struct __sk_buff *skb)
{
	u8 was[12], is[12];

	if (bpf_skb_load_bytes(skb, 0, was, 12))
		return -1;
	__builtin_memcpy(is, was + 6, 6);
	__builtin_memcpy(is + 6, was, 6);
	return bpf_skb_store_bytes(skb, 0, is, 12, 0) ? -1 : 0;
}

/* Rewrite the type behind the outer tag, which may lie beside the packet. */
static __always_inline int set_ethertype(struct __sk_buff *skb, u16 type)
{
	u32 at = 12;
	u16 is;

	if (bpf_skb_load_bytes(skb, at, &is, 2))
		return -1;
	if (!skb->vlan_present && is_vlan(is) && skb->len >= 18)
		at = 16;
	type = bpf_htons(type);
	return bpf_skb_store_bytes(skb, at, &type, 2, 0) ? -1 : 0;
}

/*
 * Do one of these actions. Bit 0 of `state`: the packet has no Ethernet header; bit 1: outer headers were added.
 * Returns whether the packet then has no Ethernet header, or -1.
 */
__noinline int layers(struct __sk_buff *skb, u32 op, u64 arg, u32 state)
{
	u32 bare = state & 1, layered = state & 2;

	switch (op & 0xff) {
	case OP_PUSH_MPLS:
		if (op >> 8)
			return bare || push_mpls(skb, arg >> 32, arg, 1) ? -1 : 1;
		return push_mpls(skb, arg >> 32, arg, 0) ? -1 : !!bare;
	case OP_POP_MPLS:
		return pop_mpls(skb, arg, bare, layered);
	case OP_PUSH_ETHERNET:
		return bare ? 0 : -1;
	case OP_POP_ETHERNET:
		return bare || untagged_type(skb) < 0 ? -1 : 1;
	case OP_SWAP_ETHERNET:
		return swap_ethernet(skb) ? -1 : bare;
	case OP_SET_ETHERTYPE:
		return set_ethertype(skb, arg) ? -1 : bare;
	case OP_PUSH_NSH:
		return push_nsh(skb, arg, bare);
	case OP_POP_NSH:
		return pop_nsh(skb, bare, layered);
	default:
		return -1;
	}
}
