// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Make room for outer headers, and remove them (specified in tunnel.py). */
#pragma once

#include "base.h"

/*
 * Set skb->protocol to what the packet begins with; a tag in the metadata is lost, a tag in the packet moves there. No
 * helper does this, but if a tag is popped, the kernel looks at what follows it.
 */
static __always_inline int settle(struct __sk_buff *skb)
{
	if (!skb->vlan_present && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 0))
		return -1;
	if (bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 0) || bpf_skb_vlan_pop(skb))
		return -1;
	/* This fails if the packet ends inside the next tag, which then stays. */
	bpf_skb_vlan_pop(skb);
	return 0;
}

#define LEAST (ETH_LEN + IPV4_LEN) /* the kernel requires that an Ethernet and an IP header remain */

/*
 * Remove everything before the Ethernet header at `inner`, from a packet that the kernel takes for IP. 1: the packet
 * has changed; -1: failed.
 */
__noinline int strip(struct __sk_buff *skb, u32 inner)
{
	u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET, family = 0;
	u16 type, becomes = bpf_htons(ETH_P_IP);
	u32 left, tags = 0;
	s32 room;
	u8 eth[ETH_LEN];

	if (inner < ETH_LEN || inner > TUNNEL_MAX || bpf_skb_load_bytes(skb, inner, eth, ETH_LEN))
		return -1;
	type = *(u16 *)(eth + ETH_TYPE);
	left = skb->len - inner;
	bounded(left);
	/* A shorter packet keeps tags, which can be popped one by one. */
	if (left < LEAST)
		tags = (LEAST - left + TAG_LEN - 1) / TAG_LEN;
	if (type == bpf_htons(ETH_P_IPV6) && left >= ETH_LEN + IPV6_LEN)
		becomes = type;
	if ((u16)skb->protocol != becomes)
		family = becomes == bpf_htons(ETH_P_IP) ? DECAP_L3_IPV4 : DECAP_L3_IPV6;
	room = -(s32)(inner - TAG_LEN * tags);
	if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, flags | family)) {
		/* Before Linux 6.4, the kernel does not know that the family changes. */
		if (!family || bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, flags))
			return -1;
		becomes = 0;
	}
	if (bpf_skb_store_bytes(skb, 0, eth, ETH_TYPE, 0))
		return -1;
	for (u32 i = 0; i < 5; i++) {
		u16 tag[2] = { bpf_htons(ETH_P_8021Q) };

		if (i < tags && bpf_skb_store_bytes(skb, ETH_TYPE + TAG_LEN * i, tag, TAG_LEN, 0))
			return -1;
	}
	if (bpf_skb_store_bytes(skb, ETH_TYPE + TAG_LEN * tags, &type, 2, 0))
		return -1;
	if ((tags || type != becomes) && settle(skb))
		return -1;
	for (u32 i = 1; i <= 5; i++)
		if (i <= tags && bpf_skb_vlan_pop(skb) && i < tags)
			return -1;
	return 1;
}

static __always_inline u16 fold(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The UDP source port of a tunnel, from the hash of the inner packet: udp_flow_src_port() with the default range. */
static __always_inline u16 source_port(u32 hash)
{
	hash ^= hash << 16;
	return (u16)(((u64)hash * (60999 - 32768)) >> 32) + 32768;
}

/* Outer headers. */
struct outer_headers {
	u16 len; /* bytes */
	u8 ip, l4; /* where the IP header begins, and what follows it */
	u16 has_udp; /* that is a UDP header */
	u16 unused;
	u8 header[];
};

/*
 * Put the headers `o` in front, at most `most` bytes (a constant), and fill in lengths, source port (from `hash`) and
 * checksum. Without `frame` (a constant) the packet's Ethernet header does not go inside. 1: the packet has changed; -1:
 * failed.
 *
 * The kernel makes room only in IP packets, so any other packet is made to look like one meanwhile. The kernel is told
 * what is inside, so that it can segment super-packets, except in a tunnel within a tunnel, where it cannot.
 */
static __always_inline int put_before(struct __sk_buff *skb, struct outer_headers *o, const u32 most, u32 hash,
				      const int frame)
{
	u32 len, l2 = ETH_LEN, room, at;
	u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET, told = flags;
	u16 tag[2] = {}, type, ip_type = bpf_htons(ETH_P_IP);
	u8 eth[ETH_LEN];

	if (bpf_skb_load_bytes(skb, 0, eth, ETH_LEN))
		return -1;
	type = *(u16 *)(eth + ETH_TYPE);
	if (!frame) {
		l2 = 0;
	} else if (skb->vlan_present) {
		tag[0] = (u16)skb->vlan_proto;
		tag[1] = bpf_htons(skb->vlan_tci & 0xffff);
		l2 = ETH_LEN + TAG_LEN;
	}
	if (is_ip(type)) {
		if (l2 > ETH_LEN && bpf_skb_vlan_pop(skb))
			return -1;
	} else if (bpf_skb_store_bytes(skb, ETH_TYPE, &ip_type, 2, 0) || settle(skb)) {
		return -1;
	}
	len = o->len;
	if (!is_between(len, ETH_LEN + IPV4_LEN + GRE_LEN, most - ETH_LEN - TAG_LEN))
		return -1;
	room = len + l2 - ETH_LEN;
	if (is_ip(type))
		told |= (o->ip + IPV4_LEN == o->l4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) |
			(o->has_udp ? BPF_F_ADJ_ROOM_ENCAP_L4_UDP : BPF_F_ADJ_ROOM_ENCAP_L4_GRE) |
			(frame ? BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_ENCAP_L2(l2) : 0);
	if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, told) &&
	    (told == flags || bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, flags)))
		return -1;
	/* The inner Ethernet header follows the outer ones, and includes its tag. */
	if (frame) {
		__builtin_memcpy(o->header + len, eth, ETH_TYPE);
		at = len + ETH_TYPE;
		if (l2 > ETH_LEN) {
			__builtin_memcpy(o->header + at, tag, TAG_LEN);
			at += TAG_LEN;
		}
		__builtin_memcpy(o->header + at, eth + ETH_TYPE, 2);
	}
	u32 ip = o->ip, l4 = o->l4;

	bounded(ip);
	bounded(l4);
	if (ip > ETH_LEN + TAG_LEN || l4 > ETH_LEN + TAG_LEN + IPV6_LEN)
		return -1;
	if (o->has_udp) {
		*(u16 *)(o->header + l4 + UDP_SRC) = bpf_htons(source_port(hash));
		*(u16 *)(o->header + l4 + UDP_LENGTH) = bpf_htons(skb->len - l4);
	}
	if (ip + IPV4_LEN == l4) {
		u32 sum = 0;

		*(u16 *)(o->header + ip + IPV4_TOTAL_LENGTH) = bpf_htons(skb->len - ip);
		*(u16 *)(o->header + ip + IPV4_CHECKSUM) = 0;
#pragma unroll
		for (int i = 0; i < IPV4_LEN / 2; i++)
			sum += *(u16 *)(o->header + ip + 2 * i);
		*(u16 *)(o->header + ip + IPV4_CHECKSUM) = fold(sum);
	} else {
		*(u16 *)(o->header + ip + IPV6_PAYLOAD_LENGTH) = bpf_htons(skb->len - ip - IPV6_LEN);
		ip_type = bpf_htons(ETH_P_IPV6);
	}
	room = len + l2;
	if (!is_length(room, most))
		return -1;
	if (bpf_skb_store_bytes(skb, 0, o->header, room, 0))
		return -1;
	return (u16)skb->protocol != ip_type && settle(skb) ? -1 : 1;
}

/* The same for a frame. */
static __always_inline int put_on(struct __sk_buff *skb, struct outer_headers *o, const u32 most, u32 hash)
{
	return put_before(skb, o, most, hash, 1);
}
