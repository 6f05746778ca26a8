// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What NAT has made of sources, so that another connection of the same source looks the same to its peers
 * (find_appropriate_src() in nf_nat_core.c). Linux has a list of connections for each source. Here a source has the few
 * mappings that its connections have, and the number of these: those that a new connection was given last come first.
 */
#pragma once

#include "connection_records.h"

static __always_inline void key_of_source(struct tuple *key, const struct tuple *original)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memcpy(key->src, original->src, 16);
	key->src_port = original->src_port;
	key->zone = original->zone;
	key->proto = original->proto;
	key->family = original->family;
}

#define NOBODYS 2 /* the tag of a source that is being removed; the tag of one that is in use is odd */

/* Tells sources apart whose memory the map has given from one to the other since it was looked up. */
static __always_inline u32 tag_of_source(const struct tuple *original)
{
	return (original->w[0] ^ original->w[1] ^ original->w[1] >> 32 ^ (u32)original->src_port << 16) | 1;
}

/* The mapping of a connection: the source that its replies go to. */
static __always_inline void mapping_of(struct mapping *m, const struct connection *c)
{
	u32 icmp = c->reply.proto == (c->reply.family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);

	m->w[0] = c->reply.w[2];
	m->w[1] = c->reply.w[3];
	m->port = icmp ? c->reply.src_port : c->reply.dst_port;
}

static __always_inline int same_mapping(const struct mapping *a, const struct mapping *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->port == b->port;
}

/* The source that this_flight()->key names. As in record_named(), the key has to be in a map. */
static __always_inline struct source *source_named(void)
{
	struct flight *p = this_flight();

	return p ? bpf_map_lookup_elem(&sources, &p->key) : 0;
}

static __always_inline struct source *name_source(void)
{
	struct flight *p = this_flight();

	if (!p)
		return 0;
	bpf_map_update_elem(&sources, &p->key, p->no_source, BPF_NOEXIST);
	return bpf_map_lookup_elem(&sources, &p->key);
}

static __always_inline void unname_source(void)
{
	struct flight *p = this_flight();

	if (p)
		bpf_map_delete_elem(&sources, &p->key);
}

/*
 * Count a new connection whose source is translated, which no other CPU knows yet. It does not count if its source has
 * other mappings enough, or if there is no memory. Overwrites p->key and p->mapping.
 */
static __always_inline void count_mapping(struct flight *p, struct connection *c)
{
	struct mapping *m = &p->mapping, *first, *second;
	u32 tag = tag_of_source(&c->original), mapped = 1;
	struct source *s;

	key_of_source(&p->key, &c->original);
	mapping_of(m, c);
	m->connections = 1;
	s = source_named();
	if (!s)
		s = name_source();
	if (!s)
		return;
	first = &s->mappings[0];
	second = &s->mappings[1];
	bpf_spin_lock(&s->lock);
	if (!s->tag)
		s->tag = tag;
	if (s->tag != tag) {
		mapped = 0;
	} else if (first->connections && same_mapping(first, m)) {
		first->connections++;
	} else if (second->connections && !same_mapping(second, m)) {
		if (first->connections)
			mapped = 0;
		else
			*first = *m;
	} else {
		m->connections += second->connections;
		if (first->connections)
			*second = *first;
		else
			second->connections = 0;
		*first = *m;
	}
	bpf_spin_unlock(&s->lock);
	c->mapped = mapped;
}

/* No longer count a connection, which has ended. Overwrites p->key and p->mapping. */
static __always_inline void discount_mapping(struct flight *p, struct connection *c)
{
	struct mapping *m = &p->mapping, *first, *second;
	u32 tag = tag_of_source(&c->original), left = 1;
	struct source *s;

	if (!c->mapped)
		return;
	c->mapped = 0;
	key_of_source(&p->key, &c->original);
	mapping_of(m, c);
	s = source_named();
	if (!s)
		return;
	first = &s->mappings[0];
	second = &s->mappings[1];
	bpf_spin_lock(&s->lock);
	if (s->tag == tag) {
		if (first->connections && same_mapping(first, m))
			first->connections--;
		else if (second->connections && same_mapping(second, m))
			second->connections--;
		left = first->connections | second->connections;
		if (!left)
			s->tag = NOBODYS;
	}
	bpf_spin_unlock(&s->lock);
	if (!left)
		unname_source();
}
