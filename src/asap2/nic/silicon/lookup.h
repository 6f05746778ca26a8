// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Which rule: the exact-match cache, and behind it the search through masks. */
#pragma once

#include "tunnel.h"

#define WORD(i) (w[i] & mask[i])

/*
 * Hash of what `mask` leaves of a packet, and of `seed`: a sum of products by odd random numbers, then mixed. bloom.py
 * has the same.
 */
static __always_inline u64 masked_hash(const u64 *w, const u64 *mask, u32 wide, u64 seed)
{
	u64 h = seed * 0x1d8e4e27c47d124f;

	h += WORD(0) * 0x87c37b91114253d5 + WORD(1) * 0x4cf5ad432745937f + WORD(2) * 0x9ddfea08eb382d69 +
	     WORD(3) * 0xff51afd7ed558ccd + WORD(5) * 0xbf58476d1ce4e5b9 + WORD(7) * 0xd6e8feb86659fd93;
	if (wide)
		h += WORD(4) * 0xc4ceb9fe1a85ec53 + WORD(6) * 0x94d049bb133111eb + WORD(8) * 0xa0761d6478bd642f +
		     WORD(9) * 0xe7037ed1a0b428db + WORD(10) * 0x8ebc6af09c88c6e3 + WORD(11) * 0x589965cc75374cc3 +
		     WORD(12) * 0xc6a4a7935bd1e995 + WORD(13) * 0xc2b2ae3d27d4eb4f;
	h ^= h >> 32;
	h *= 0x9e3779b97f4a7c15;
	return h ^ h >> 29;
}

/* The rule that the packet has under the mask of `node`, number `at`, or 0. */
static __noinline u32 find(struct work *w, struct node *node, u32 at)
{
	struct key key = { .node = at };
	struct rule *r;
	u32 index, *found;

#pragma unroll
	for (int i = 0; i < WORDS; i++)
		key.w[i] = w->p.w[i] & node->mask[i];
	found = bpf_map_lookup_elem(&keys, &key);
	if (!found)
		return 0;
	/* A hash element that was deleted just now may already hold another key: its rule tells. */
	index = READ_ONCE(*found);
	r = bpf_map_lookup_elem(&rules, &index);
	return r && r->node == at ? index : 0;
}

static long probe(u32 i, struct work *w)
{
	u32 at = w->node, place;
	struct node *node = bpf_map_lookup_elem(&nodes, &at);
	u64 hash, bits, *word;

	if (!node)
		return 1;
	w->probes++;
	hash = masked_hash(w->p.w, node->mask, node->wide, at);
	place = hash >> 40 & (constants.bloom - 1);
	bits = 1ULL << (hash & 63) | 1ULL << (hash >> 6 & 63) | 1ULL << (hash >> 12 & 63);
	word = bpf_map_lookup_elem(&bloom, &place);
	if (word && (READ_ONCE(*word) & bits) == bits) {
		w->rule = find(w, node, at);
		if (w->rule)
			return 1;
	}
	w->node = READ_ONCE(node->next);
	return w->node == 0;
}

/* Words of a packet in the order of struct cached. */
#define NARROW_WORD(i) WORD((i) < 4 ? (i) : 2 * (i) - 3)
#define REST_WORD(i) WORD((i) < 1 ? 4 : (i) < 2 ? 6 : (i) + 6)

static __always_inline int cache_holds(const struct cached *c, u64 generation, const u64 *w, const u64 *mask, u32 wide)
{
	u64 differ = c->generation ^ generation;

	opaque(mask);	/* mask anew: all the words kept would be stack */
#pragma unroll
	for (int i = 0; i < NARROW; i++)
		differ |= c->narrow[i] ^ NARROW_WORD(i);
	if (wide) {
#pragma unroll
		for (int i = 0; i < WORDS - NARROW; i++)
			differ |= c->rest[i] ^ REST_WORD(i);
	}
	return differ == 0;
}

static __always_inline void cache_fill(struct cached *c, const u64 *w, const u64 *mask, u32 wide)
{
#pragma unroll
	for (int i = 0; i < NARROW; i++)
		c->narrow[i] = NARROW_WORD(i);
	if (wide) {
#pragma unroll
		for (int i = 0; i < WORDS - NARROW; i++)
			c->rest[i] = REST_WORD(i);
	}
}

static __always_inline void cache_copy(struct cached *to, const struct cached *from, u32 wide)
{
	__builtin_memcpy(to, from, offsetof(struct cached, rest));
	if (wide)
		__builtin_memcpy(to->rest, from->rest, sizeof(from->rest));
}

/* The rule that decides in (w->table | list, in port), 0 when there is none. */
static __noinline u32 lookup(struct work *w, u32 list)
{
	struct head_id id = { .table = w->table | list, .in_port = w->in->id };
	struct stats *s = this_stats();
	u32 ovs = w->table >> 31, at, second, base, wide, *found;
	struct cached *c0 = 0, *c1 = 0;
	struct head *head;
	struct node *merged;
	u64 generation, hash;

	if (!s)
		return 0;
	found = bpf_map_lookup_elem(&head_of, &id);
	if (!found)
		goto none;
	at = READ_ONCE(*found);
	head = bpf_map_lookup_elem(&heads, &at);
	if (!head || head->table != id.table || head->in_port != id.in_port)
		goto none;
	/* The generation first: what is found in a list that changes meanwhile is cached under the old one. */
	generation = READ_ONCE(head->generation);
	barrier();
	at = READ_ONCE(head->merged);
	w->node = READ_ONCE(head->first);
	if (!w->node)
		goto none;
	if (list)
		parse_tunnel(w);
	else
		parse(w);
	merged = bpf_map_lookup_elem(&nodes, &at);
	if (!merged)
		goto none;
	/* While both change, packets may meet one generation with two unions: entries of one width are not of another. */
	wide = merged->wide;
	generation = generation << 1 | (wide != 0);
	hash = masked_hash(w->p.w, merged->mask, wide, generation);

	base = bpf_get_smp_processor_id() * constants.cached;

	at = base + (hash & (constants.cached - 1));
	c0 = bpf_map_lookup_elem(&cache, &at);
	second = hash >> 32 & (constants.cached - 1);
	at = base + second;
	c1 = bpf_map_lookup_elem(&cache, &at);
	if (!c0 || !c1)
		goto none;
	if (cache_holds(c0, generation, w->p.w, merged->mask, wide)) {
		w->rule = c0->rule;
		s->cache_hits[ovs]++;
		goto decided;
	}
	if (cache_holds(c1, generation, w->p.w, merged->mask, wide)) {
		w->rule = c1->rule;
		s->cache_hits[ovs]++;
		goto decided;
	}
	w->rule = 0;
	w->probes = 0;
	bpf_loop(MASKS, probe, w, 0);
	s->probes[ovs] += w->probes;
	/* The newest in the first way, the one it displaces in its second. */
	if (c0->generation) {
		at = base + c0->second;
		c1 = bpf_map_lookup_elem(&cache, &at);
		if (c1 && c1 != c0)
			cache_copy(c1, c0, c0->generation & 1);
	}
	c0->generation = generation;
	c0->rule = w->rule;
	c0->second = second;
	cache_fill(c0, w->p.w, merged->mask, wide);
decided:
	if (!w->rule)
		goto none;
	s->hit[ovs]++;
	return w->rule;
none:
	if (!list)
		s->missed[ovs]++;
	return 0;
}
