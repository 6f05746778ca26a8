// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Find the rule for a packet: in the exact-match cache, or by a search through the masks. */
#pragma once

#include "tunnel.h"

#define WORD(i) (w[i] & mask[i])

/* Flag in a width: the packet is untracked, so all fields of its connection are 0. */
#define UNTRACKED 4
#define READS_TRACKED(width) (((width) & (WIDTH_TRACKED | UNTRACKED)) == WIDTH_TRACKED)

/*
 * Hash a packet under a mask, with a seed: a sum of products with odd random numbers, then mixed. bloom.py computes the
 * same.
 */
static __always_inline u64 masked_hash(const u64 *w, const u64 *mask, u32 width, u64 seed)
{
	u64 h = seed * HASH_SEED + HASH_NARROW;

	if (width & WIDTH_WIDE)
		h += HASH_REST;
	if (READS_TRACKED(width))
		h += HASH_TRACKED;
	h ^= h >> 32;
	h *= HASH_MIX;
	return h ^ h >> 29;
}

/* The rule that matches the packet under the mask of `node`, number `at`; 0: none. */
__noinline int find(union packed *p, struct node *node, u32 at)
{
	u32 index, zero = 0, *found;
	struct key *key = bpf_map_lookup_elem(&masked, &zero);
	struct rule *r;

	if (!p || !node || !key)
		return 0;
	key->node = at;
#pragma unroll
	for (int i = 0; i < WORDS - TRACKED; i++)
		key->w[i] = p->w[i] & node->mask[i];
	if (node->width & WIDTH_TRACKED) {
#pragma unroll
		for (int i = WORDS - TRACKED; i < WORDS; i++)
			key->w[i] = p->w[i] & node->mask[i];
		found = bpf_map_lookup_elem(&stateful_keys, key);
	} else {
		found = bpf_map_lookup_elem(&keys, key);
	}
	if (!found)
		return 0;
	/* A hash element deleted just now may already hold another key: check the rule. */
	index = READ_ONCE(*found);
	r = bpf_map_lookup_elem(&rules, &index);
	return r && r->node == at ? index : 0;
}

static long probe(u32 i, struct work *w)
{
	u32 at = w->s->node, place;
	struct node *node = bpf_map_lookup_elem(&nodes, &at);
	u64 hash, bits, *word;

	if (!node)
		return 1;
	if (node->priority < w->s->first) {
		w->s->node = READ_ONCE(node->next);
		return w->s->node == 0;
	}
	w->s->probes++;
	hash = masked_hash(w->s->p.w, node->mask, node->width, at);
	place = hash >> 40 & (constants.bloom - 1);
	bits = 1ULL << (hash & 63) | 1ULL << (hash >> 6 & 63) | 1ULL << (hash >> 12 & 63);
	word = bpf_map_lookup_elem(&bloom, &place);
	if (word && (READ_ONCE(*word) & bits) == bits) {
		w->s->rule = find(&w->s->p, node, at);
		if (w->s->rule)
			return 1;
	}
	w->s->node = READ_ONCE(node->next);
	return w->s->node == 0;
}

/* The words of a packet in the order of struct cached. */
#define NARROW_WORD(i) WORD(NARROW_AT(i))
#define REST_WORD(i) WORD(REST_AT(i))
#define TRACKED_WORD(i) WORD(WORDS - TRACKED + (i))

/*
 * The cache of one CPU, a cuckoo hash: buckets with two places, and two buckets for each entry, so that nearly all
 * places fill before an entry is lost. If the union of masks is narrow, an entry fits one line of the CPU's cache; each
 * other width has a cache of its own.
 */
struct cache_key {
	u64 generation;
	const u64 *w, *mask;
	u32 width, one, other; /* buckets */
};

static __always_inline struct cached *way_of(u32 bucket, u32 way, u32 width)
{
	if (width & WIDTH_TRACKED) {
		struct stateful_bucket *b = bpf_map_lookup_elem(&stateful_cache, &bucket);

		return b ? &b->way[way].first : 0;
	}
	if (width & WIDTH_WIDE) {
		struct wide_bucket *b = bpf_map_lookup_elem(&wide_cache, &bucket);

		return b ? &b->way[way].first : 0;
	}
	struct bucket *b = bpf_map_lookup_elem(&cache, &bucket);

	return b ? &b->way[way] : 0;
}

/* The words of an entry that are not narrow, and those about connections. */
static __always_inline u64 *rest_of(const struct cached *c, u32 width)
{
	return width & WIDTH_TRACKED ? ((struct stateful_cached *)c)->rest : ((struct wide_cached *)c)->rest;
}

static __always_inline u64 *tracked_of(const struct cached *c)
{
	return ((struct stateful_cached *)c)->tracked;
}

static __always_inline int cache_holds(const struct cached *c, const struct cache_key *key, u32 width)
{
	const u64 *w = key->w, *mask = key->mask;
	u64 differ = c->generation ^ key->generation;

	read_again(mask);
#pragma unroll
	for (int i = 0; i < NARROW; i++)
		differ |= c->narrow[i] ^ NARROW_WORD(i);
	if (width & WIDTH_WIDE) {
		const u64 *rest = rest_of(c, width);

#pragma unroll
		for (int i = 0; i < REST; i++)
			differ |= rest[i] ^ REST_WORD(i);
	}
	if (width & WIDTH_TRACKED) {
		const u64 *tracked = tracked_of(c);

#pragma unroll
		for (int i = 0; i < TRACKED; i++)
			differ |= READS_TRACKED(width) ? tracked[i] ^ TRACKED_WORD(i) : tracked[i];
	}
	return differ == 0;
}

static __always_inline struct cached *cache_find(const struct cache_key *key, u32 width)
{
	struct cached *c;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		c = way_of(i < 2 ? key->one : key->other, i & 1, width);
		if (c && cache_holds(c, key, width))
			return c;
	}
	return 0;
}

/*
 * Choose a place in a bucket for an entry of `generation`: an empty one, or the one with the oldest generation, which
 * may be stale. 0: both are newer; with `must`, one of them is chosen all the same.
 */
static __always_inline struct cached *cache_place(u32 bucket, u32 width, u64 generation, int must)
{
	struct cached *one = way_of(bucket, 0, width), *two = way_of(bucket, 1, width), *older;

	if (!one || !two)
		return 0;
	older = one->generation <= two->generation ? one : two;
	if (older->generation < generation)
		return older;
	if (older->generation > generation && !must)
		return 0;
	return bpf_get_prandom_u32() & 1 ? one : two;
}

/* Move the evicted entry to its other bucket, where it may evict another. */
static __always_inline void cache_put(const struct cache_key *key, u32 rule, u32 width)
{
	u32 size = width & WIDTH_TRACKED ? sizeof(struct stateful_cached) :
		   width & WIDTH_WIDE    ? sizeof(struct wide_cached) :
					   sizeof(struct cached);
	struct cached *c = cache_place(key->one, width, key->generation, 1), *to;
	const u64 *w = key->w, *mask = key->mask;

	if (!c)
		return;
	if (c->generation && c->other) {
		to = cache_place(key->one ^ c->other, width, c->generation, 0);
		if (to)
			__builtin_memcpy(to, c, size);
	}
	c->generation = key->generation;
	c->rule = rule;
	c->other = key->one ^ key->other;
#pragma unroll
	for (int i = 0; i < NARROW; i++)
		c->narrow[i] = NARROW_WORD(i);
	if (width & WIDTH_WIDE) {
		u64 *rest = rest_of(c, width);

#pragma unroll
		for (int i = 0; i < REST; i++)
			rest[i] = REST_WORD(i);
	}
	if (width & WIDTH_TRACKED) {
		u64 *tracked = tracked_of(c);

#pragma unroll
		for (int i = 0; i < TRACKED; i++)
			tracked[i] = TRACKED_WORD(i);
	}
}

/* Search the masks from w->s->node on: the first rule that matches; 0: none. */
static __always_inline u32 search(struct work *w, struct stats *s)
{
	w->s->rule = 0;
	w->s->probes = 0;
	bpf_loop(MASKS, probe, w, 0);
	s->probes[w->s->table >> 31] += w->s->probes;
	return w->s->rule;
}

static __always_inline void cache_key(struct cache_key *key, const u64 *w, struct node *merged, u32 width,
				      u64 generation)
{
	u32 buckets = width & WIDTH_TRACKED ? constants.stateful_buckets :
		      width & WIDTH_WIDE    ? constants.wide_buckets :
					      constants.buckets;
	u32 base = bpf_get_smp_processor_id() * buckets;
	u64 hash;

	/* While both change, a packet may meet one generation with two unions: keep widths apart. */
	key->generation = generation << 2 | (width & WIDTH_STATEFUL);
	hash = masked_hash(w, merged->mask, width, key->generation);
	key->w = w;
	key->mask = merged->mask;
	key->width = width;
	key->one = base + (hash & (buckets - 1));
	key->other = base + (hash >> 32 & (buckets - 1));
}

/* Look the packet up in the cache, under the union of masks `merged`: its rule, 0 for no rule; -1: not cached. */
__noinline int recall(union packed *p, struct node *merged, u64 generation)
{
	struct cache_key key;
	struct cached *c;

	if (!p || !merged)
		return -1;
	cache_key(&key, p->w, merged, merged->width, generation);
	c = key.width == WIDTH_STATEFUL ? cache_find(&key, WIDTH_STATEFUL) :
	    key.width == WIDTH_TRACKED  ? cache_find(&key, WIDTH_TRACKED) :
	    key.width == WIDTH_WIDE     ? cache_find(&key, WIDTH_WIDE) :
					  cache_find(&key, WIDTH_NARROW);
	return c ? c->rule : -1;
}

/* Store it in the cache. */
__noinline int remember(union packed *p, struct node *merged, u64 generation, u32 rule)
{
	struct cache_key key;

	if (!p || !merged)
		return 0;
	cache_key(&key, p->w, merged, merged->width, generation);
	if (key.width == WIDTH_STATEFUL)
		cache_put(&key, rule, WIDTH_STATEFUL);
	else if (key.width == WIDTH_TRACKED)
		cache_put(&key, rule, WIDTH_TRACKED);
	else if (key.width == WIDTH_WIDE)
		cache_put(&key, rule, WIDTH_WIDE);
	else
		cache_put(&key, rule, WIDTH_NARROW);
	return 0;
}

static __always_inline struct mask_list *mask_list_for(struct port *in, struct mask_list_id *id, u32 hint)
{
	u32 at, *found;
	struct mask_list *masks;

	bounded(hint);
	if (hint >= 2 * STAGES)
		return 0;
	at = READ_ONCE(in->hints[hint]);
	masks = bpf_map_lookup_elem(&mask_lists, &at);
	if (masks && READ_ONCE(masks->generation) && masks->table == id->table && masks->in_port == id->in_port)
		return masks;
	found = bpf_map_lookup_elem(&mask_list_of, id);
	if (!found)
		return 0;
	at = READ_ONCE(*found);
	masks = bpf_map_lookup_elem(&mask_lists, &at);
	if (!masks || masks->table != id->table || masks->in_port != id->in_port)
		return 0;
	/* Hints are kept for the port's own tables only: those reached by goto may differ for each packet. */
	if (in->tables[hint / 2] == (id->table & ~TUNNEL_LIST))
		in->hints[hint] = at;
	return masks;
}

/* The rule for the packet in the table (w->s->table | list) of the port; 0: none. */
static __noinline u32 lookup(struct work *w, u32 list)
{
	struct mask_list_id id = { .table = w->s->table | list |
					    (w->s->state.no_ethernet && w->s->table >> 31 ? BARE_LIST : 0),
				   .in_port = w->in->id };
	struct stats *s = this_stats();
	struct mask_list *masks;
	struct node *merged;
	u32 at;
	u64 generation;
	int rule;

	if (!s)
		return 0;
	masks = mask_list_for(w->in, &id, (w->s->state.stage & (STAGES - 1)) * 2 + (list != 0));
	if (!masks)
		goto none;
	/* Read the generation first: what a list that is changing yields is then cached under the old one. */
	generation = READ_ONCE(masks->generation);
	barrier();
	at = READ_ONCE(masks->merged);
	w->s->node = READ_ONCE(masks->first);
	if (!w->s->node)
		goto none;
	if (list)
		parse_tunnel(w);
	else
		parse(w);
	merged = bpf_map_lookup_elem(&nodes, &at);
	if (!merged)
		goto none;
	if (w->s->first) {
		search(w, s); /* the cache has the first of all rules */
		goto found;
	}
	rule = recall(&w->s->p, merged, generation);
	if (rule >= 0) {
		w->s->rule = rule;
		s->cache_hits[w->s->table >> 31]++;
	} else {
		rule = search(w, s);
		remember(&w->s->p, merged, generation, rule);
	}
found:
	if (!w->s->rule)
		goto none;
	s->hit[w->s->table >> 31]++;
	return w->s->rule;
none:
	if (!list)
		s->missed[w->s->table >> 31]++;
	return 0;
}
