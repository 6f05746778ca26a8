// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Copies of a packet that go their own way. No helper copies a packet for the program to keep, but a copy can be sent
 * on a device (the one for upcalls), and the program at that device's egress (`onward`) runs before this one continues.
 * So a copy is handled completely before the packet itself.
 */
#pragma once

#include "express.h"
#include "jhash.h"
#include "layers.h"

#define SINGLE 0x80000000

/* Send a copy on with the action list `entry`, or, with SINGLE, its first action only. -1: failed. */
__noinline int copy(struct __sk_buff *skb, struct state *state, u32 slot, u32 table, u32 entry)
{
	u32 zero = 0, ifindex;
	struct continuation *e = bpf_map_lookup_elem(&copied, &zero);
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	u32 failed;

	if (!e || !c || !state || state->depth >= COPIES)
		return -1;
	ifindex = READ_ONCE(c->upcall_ifindex);
	if (!ifindex)
		return -1;
	e->slot = slot;
	e->table = table;
	e->entry = entry & ~SINGLE;
	e->state = *state;
	e->state.single = !!(entry & SINGLE);
	e->state.depth++;
	e->state.lookups += COPY_LOOKUPS;
	e->active = 1;
	barrier();
	WATCH_CLONE(skb, ifindex, 0);
	/* If nothing took it over, it could not be made, or no program runs there. */
	failed = READ_ONCE(e->active);
	e->active = 0;
	/* The kernel has one object per CPU for tunnel metadata that programs set: the copy may have overwritten it. */
	if (state->given_tunnel || (constants.tracing && c->test_tunnel))
		set_tunnel(skb, state->given_tunnel);
	return failed ? -1 : 0;
}

enum hash_algorithm { HASH_L4, HASH_SYMMETRIC };

/* A hash that is the same for both directions of a flow. */
static __always_inline u32 symmetric_hash(struct __sk_buff *skb, struct fields *f)
{
	u32 either = 0, sum = 0, ports = 0;

	if (!f)
		return 0;
	read_fields(skb, f, AS_OVS);
	if (f->eth_type == bpf_htons(ETH_P_ARP) || f->eth_type == bpf_htons(ETH_P_RARP)) {
		__builtin_memset(f->arp_sha, 0, 6);
		__builtin_memset(f->arp_tha, 0, 6);
	}
	for (int i = 0; i < 4; i++) {
		u32 src, dst;

		__builtin_memcpy(&src, f->ip_src + 4 * i, 4);
		__builtin_memcpy(&dst, f->ip_dst + 4 * i, 4);
		src = bpf_ntohl(src);
		dst = bpf_ntohl(dst);
		either = rotated(either, 7) ^ src ^ dst;
		sum = rotated(sum, 7) + src + dst;
	}
	if (f->ip_proto == IPPROTO_TCP || f->ip_proto == IPPROTO_UDP || f->ip_proto == IPPROTO_SCTP)
		ports = (u32)(bpf_ntohs(f->l4_src) ^ bpf_ntohs(f->l4_dst)) << 16 |
			((bpf_ntohs(f->l4_src) + bpf_ntohs(f->l4_dst)) & 0xffff);
	return jhash(either, sum, ports ^ f->ip_proto, JHASH_INITIAL);
}

/* Compute the hash of Open vSwitch's action "hash". */
static __always_inline u32 dp_hash(struct __sk_buff *skb, struct fields *f, u32 algorithm, u32 basis)
{
	u32 zero = 0, hash;
	struct config *c = bpf_map_lookup_elem(&config, &zero);

	if (algorithm == HASH_SYMMETRIC)
		hash = symmetric_hash(skb, f);
	else
		hash = constants.tracing && c ? c->test_hash : bpf_get_hash_recalc(skb);
	return jhash(hash, 0, 0, basis + JHASH_INITIAL + 4) ?: 1;
}

/* Decide at random, with this probability out of 2^32. */
static __always_inline int chosen(u32 probability)
{
	u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&config, &zero);

	if (probability == 0xffffffff)
		return 1;
	return probability && (constants.tracing && c ? c->test_hash : bpf_get_prandom_u32()) <= probability;
}

/* Decrement the TTL or hop limit. 0: it has expired; -1: failed. */
static __always_inline int dec_ttl(struct __sk_buff *skb, struct fields *f)
{
	u32 l3 = ETH_LEN;
	u8 h[1];

	if (!f)
		return -1;
	read_fields(skb, f, 0);
	if (f->cvlan_tci)
		return 1;
	if (f->vlan_tci && !skb->vlan_present)
		l3 = ETH_LEN + TAG_LEN;
	if (f->eth_type == bpf_htons(ETH_P_IP)) {
		if (skb->len < l3 + IPV4_LEN || bpf_skb_load_bytes(skb, l3 + IPV4_TTL, h, 1))
			return -1;
		if (h[0] <= 1)
			return 0;
		return rewrite(skb, f, OP_SET | LAYER_IPV4 << 8 | 2 << 16, (u64)(h[0] - 1) << 32 | 0xff) < 0 ? -1 : 1;
	}
	if (f->eth_type == bpf_htons(ETH_P_IPV6)) {
		if (skb->len < l3 + IPV6_LEN || bpf_skb_load_bytes(skb, l3 + IPV6_HOP_LIMIT, h, 1))
			return -1;
		if (h[0] <= 1)
			return 0;
		return rewrite(skb, f, OP_SET | LAYER_IPV6 << 8 | 1 << 16, (u64)(h[0] - 1) << 56 | 0xff000000) < 0 ?
			       -1 :
			       1;
	}
	return 1;
}

/* Mark the packet as having met congestion, if its transport can do with it (RFC 3168). */
static __always_inline int congest(struct __sk_buff *skb, struct fields *f)
{
	u32 l3 = ETH_LEN;
	u8 h[2];

	if (!f)
		return -1;
	read_fields(skb, f, 0);
	if (f->cvlan_tci)
		return 0;
	if (f->vlan_tci && !skb->vlan_present)
		l3 = ETH_LEN + TAG_LEN;
	if (f->eth_type == bpf_htons(ETH_P_IP)) {
		if (skb->len < l3 + IPV4_LEN || bpf_skb_load_bytes(skb, l3, h, 2))
			return -1;
		if (!(h[1] & 3) || (h[1] & 3) == 3)
			return 0;
		return rewrite(skb, f, OP_SET | LAYER_IPV4 << 8, 0x300ULL << 32 | 0x300) < 0 ? -1 : 0;
	}
	if (f->eth_type == bpf_htons(ETH_P_IPV6)) {
		if (skb->len < l3 + IPV6_LEN || bpf_skb_load_bytes(skb, l3, h, 2))
			return -1;
		if (!(h[1] & 0x30) || (h[1] & 0x30) == 0x30)
			return 0;
		return rewrite(skb, f, OP_SET | LAYER_IPV6 << 8, 0x3000ULL << 32 | 0x3000) < 0 ? -1 : 0;
	}
	return 0;
}

/* Leave out a tag, wherever it is: Open vSwitch has it beside the packet. A truncated tag is not one. */
static __always_inline u32 untagged_length(struct __sk_buff *skb, u32 length)
{
	return !skb->vlan_present && is_vlan((u16)skb->protocol) && skb->len >= 18 ? length - 4 : length;
}

/* Whether the packet, or each segment of a super-packet, has no more octets than `most`. */
static __always_inline int fits(struct __sk_buff *skb, u32 most, u32 bare)
{
	u32 length = untagged_length(skb, skb->len), size = skb->gso_size, headers;

	if (bare)
		length -= 14;
	if (length <= most)
		return 1;
	if (!size)
		return 0;
	headers = header_length(skb, 0);
	return headers && untagged_length(skb, headers + size) <= most;
}

/* Value and mask. Two functions: the compiler would merge them into pointer arithmetic that the verifier refuses. */
__noinline int set_mark(struct __sk_buff *skb, u64 arg)
{
	skb->mark = (skb->mark & ~(u32)arg) | (u32)(arg >> 32);
	return 0;
}

__noinline int set_priority(struct __sk_buff *skb, u64 arg)
{
	skb->priority = (skb->priority & ~(u32)arg) | (u32)(arg >> 32);
	return 0;
}

enum rarely { NOTHING, BRANCH };

/*
 * Do one of the less usual actions. BRANCH: do the list that it names, in place of what follows or with a copy; -1:
 * failed.
 */
__noinline int rare(struct __sk_buff *skb, struct fields *f, struct state *state, u32 op, u64 arg)
{
	int done;

	if (!f || !state)
		return -1;
	switch (op & 0xff) {
	case OP_SAMPLE:
		return chosen(arg >> 32) ? BRANCH : NOTHING;
	case OP_CHECK_LENGTH:
		return fits(skb, arg >> 32, state->no_ethernet) ? NOTHING : BRANCH;
	case OP_DEC_TTL:
		done = dec_ttl(skb, f);
		return done < 0 ? -1 : done ? NOTHING : BRANCH;
	case OP_CHANCE:
		return chosen(arg >> 32) ? BRANCH : NOTHING;
	case OP_CONGEST:
		return congest(skb, f) ? -1 : NOTHING;
	case OP_HASH:
		state->dp_hash = dp_hash(skb, f, arg >> 32, arg);
		return NOTHING;
	case OP_SET_META:
		return op >> 8 ? set_priority(skb, arg) : set_mark(skb, arg);
	default:
		done = layers(skb, op, arg, state->no_ethernet | state->layered << 1);
		if (done < 0)
			return -1;
		state->no_ethernet = done;
		if ((op & 0xff) == OP_PUSH_MPLS || (op & 0xff) == OP_PUSH_NSH)
			state->layered = state->enveloped = 1;
		return NOTHING;
	}
}
