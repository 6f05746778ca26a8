// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Find, insert and remove the connections of a node. */
#pragma once

#include "ct_sources.h"

/* The protocol ICMP of this family, 4 or 6. */
static __always_inline u32 icmp_of(u32 family)
{
	return family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
}

/* The type of the reply to an ICMP message of this type; 0xff: there is none. */
static __always_inline u8 icmp_answer(u8 type, u32 family)
{
	if (family == 4)
		return type == 8 ? 0 : type == 0 ? 8 : type >= 13 && type <= 18 ? ((type - 1) ^ 1) + 1 : 0xff;
	return type == 128 ? 129 : type == 129 ? 128 : type == 139 ? 140 : type == 140 ? 139 : 0xff;
}

/* Compute the tuple of the other direction. 0: there is none. */
static __always_inline int invert(const struct tuple *t, struct tuple *inverse)
{
	u32 icmp = t->proto == icmp_of(t->family);
	u8 type = bpf_ntohs(t->dst_port) >> 8;

	__builtin_memcpy(inverse->src, t->dst, 16);
	__builtin_memcpy(inverse->dst, t->src, 16);
	inverse->zone = t->zone;
	inverse->proto = t->proto;
	inverse->family = t->family;
	if (!icmp) {
		inverse->src_port = t->dst_port;
		inverse->dst_port = t->src_port;
		return 1;
	}
	type = icmp_answer(type, t->family);
	inverse->src_port = t->src_port;
	inverse->dst_port = bpf_htons((u16)type << 8 | (bpf_ntohs(t->dst_port) & 0xff));
	return type != 0xff;
}

static __always_inline int same_tuple(const struct tuple *a, const struct tuple *b)
{
	u64 differ = 0;

#pragma unroll
	for (int i = 0; i < 5; i++)
		differ |= a->w[i] ^ b->w[i];
	return !differ;
}

/* An arbitrary order of tuples. */
static __always_inline int before_tuple(const struct tuple *a, const struct tuple *b)
{
#pragma unroll
	for (int i = 0; i < 5; i++)
		if (a->w[i] != b->w[i])
			return a->w[i] < b->w[i];
	return 1;
}

static __always_inline void key_of(struct tuple *key, const struct tuple *one, const struct tuple *other)
{
	*key = before_tuple(one, other) ? *one : *other;
}

static __always_inline void exact_key_of(struct tuple *key, const struct tuple *one)
{
	*key = *one;
	key->family |= EXACT;
}

/*
 * Find, name and remove a record by this_flight()->key, which is p->key: before Linux 6.2 a key has to be on the stack or
 * in a map, which memory that a global function is given is not, and the stack has no room for it.
 */
static __always_inline u32 *record_named(void)
{
	struct flight *p = this_flight();

	return p ? bpf_map_lookup_elem(&tuples, &p->key) : 0;
}

static __always_inline long name_record(u32 at)
{
	struct flight *p = this_flight();

	return p ? bpf_map_update_elem(&tuples, &p->key, &at, BPF_NOEXIST) : -1;
}

static __always_inline void unname(void)
{
	struct flight *p = this_flight();

	if (p)
		bpf_map_delete_elem(&tuples, &p->key);
}

/* The same with expectations. */
static __always_inline struct expectation *expectation_of(void)
{
	struct flight *p = this_flight();

	return p ? bpf_map_lookup_elem(&expectations, &p->key) : 0;
}

static __always_inline void fulfil(void)
{
	struct flight *p = this_flight();

	if (p)
		bpf_map_delete_elem(&expectations, &p->key);
}

/* The record `at`, or the new connection if `at` is 0. */
static __always_inline struct connection *connection_or_fresh(struct flight *p, u32 at)
{
	return at ? connection_at(at) : &p->fresh;
}

/* The timeouts of a connection: its policy's, or its protocol's `own`. */
static __always_inline struct policy *timeouts_of(struct connection *c, u32 own)
{
	u32 policy = c->policy ?: own;

	return bpf_map_lookup_elem(&policies, &policy);
}

/* Report events to user space, if a program listens to them and the connection's event mask has them. */
static __always_inline void announce(struct connection *c, u32 at, u32 events)
{
	struct tracker *t = the_tracker();
	struct ct_event *e;

	if (!t || !(READ_ONCE(t->events) & events) || !(c->event_mask & events))
		return;
	e = bpf_ringbuf_reserve(&ct_events, sizeof(*e), 0);
	if (!e)
		return;
	e->now = coarse_now_ns();
	e->at = at;
	e->events = events;
	e->connection = *c;
	bpf_ringbuf_submit(e, 0);
}

/* Whether the connection's zone has counted it until now. */
static __always_inline int stop_counting(struct connection *c)
{
	u32 zone = c->original.zone;
	struct zone *z = bpf_map_lookup_elem(&zones, &zone);

	if (!z || __sync_lock_test_and_set(&c->uncounted, 1))
		return 0;
	__sync_fetch_and_add(&z->count, -1);
	return 1;
}

/* One holder of a record less; the last frees it. */
static __always_inline void let_go(struct connection *c, u32 at)
{
	if (__sync_fetch_and_add(&c->holders, -1) == 1)
		bpf_map_push_elem(&free_connections, &at, 0);
}

/* Hold the record of a master, which exists. 0: it is ending. */
static __always_inline int hold(struct connection *master)
{
	u32 holders = READ_ONCE(master->holders);

	return holders && __sync_val_compare_and_swap(&master->holders, holders, holders + 1) == holders;
}

/* Remove a connection; 1 if it existed. Overwrites p->key. */
__noinline int forget(struct flight *p, u32 at)
{
	struct connection *c = connection_at(at);
	struct tracker *t = the_tracker();
	struct connection *master;
	u32 was, above;

	if (!p || !c || !t)
		return 0;
	was = __sync_fetch_and_and(&c->status, ~IPS_CONFIRMED);
	if (!(was & IPS_CONFIRMED))
		return 0;
	if (was & IPS_NAT_MASK) {
		exact_key_of(&p->key, &c->original);
		unname();
		exact_key_of(&p->key, &c->reply);
	} else {
		key_of(&p->key, &c->original, &c->reply);
	}
	unname();
	if (!p->quiet)
		announce(c, at, CT_EVENT_DESTROY);
	stop_counting(c);
	discount_mapping(p, c);
	__sync_fetch_and_add(&t->count, -1);
	above = c->master;
	c->status = 0;
	let_go(c, at);
	master = above ? connection_at(above) : 0;
	if (master)
		let_go(master, above);
	return 1;
}

/*
 * The record that a key names, if its connection has the packet's tuple: twice its number, plus the direction; else 0.
 * `*stale`: the number of an expired one.
 */
static __always_inline u32 peek(struct flight *p, u32 *stale)
{
	u32 at, *found, reply;
	struct connection *c;

	*stale = 0;
	found = record_named();
	if (!found)
		return 0;
	at = READ_ONCE(*found);
	c = connection_at(at);
	if (!c || !(READ_ONCE(c->status) & IPS_CONFIRMED))
		return 0;
	/* If both are equal, the kernel also finds the reply first. Without NAT, a tuple may be its own inverse. */
	if (same_tuple(&c->original, &p->tuple))
		reply = same_tuple(p->key.family & EXACT ? &c->reply : &p->inverse, &p->tuple);
	else if (same_tuple(&c->reply, &p->tuple))
		reply = 1;
	else
		return 0;
	if (READ_ONCE(c->expires) <= p->now) {
		*stale = at;
		return 0;
	}
	return at << 1 | reply;
}

/* The same, but an expired connection is removed. */
__noinline u32 found_by_key(struct flight *p)
{
	u32 found, stale;

	if (!p)
		return 0;
	found = peek(p, &stale);
	if (stale)
		forget(p, stale);
	return found;
}

/* The connection of p->tuple, whose inverse is p->inverse: twice its record's number, plus the direction; or 0. */
static __always_inline u32 find_connection(struct flight *p)
{
	struct tracker *t = the_tracker();
	u32 found;

	key_of(&p->key, &p->tuple, &p->inverse);
	found = found_by_key(p);
	if (found || !t || !READ_ONCE(t->translated))
		return found;
	exact_key_of(&p->key, &p->tuple);
	return found_by_key(p);
}

/* The same, noted in p->at and p->reply; 0: there is none. */
static __always_inline struct connection *note_connection(struct flight *p)
{
	u32 found = find_connection(p);
	struct connection *c = connection_at(found >> 1);

	if (!found || !c)
		return 0;
	p->at = found >> 1;
	p->reply = found & 1;
	return c;
}

/* The same for a packet that NAT has left with p->tuple, if it was `translated`: the inverse of the other direction's. */
static __always_inline struct connection *note_connection_after(struct flight *p, u32 translated)
{
	struct connection *c;

	if (!invert(&p->tuple, &p->inverse))
		return 0;
	if (translated) {
		p->present = p->tuple;
		p->tuple = p->inverse;
		p->inverse = p->present;
	}
	c = note_connection(p);
	if (c && translated)
		p->reply ^= 1;
	return c;
}

/* Whether p->key names a connection other than p->fresh, because another packet was faster. */
static __always_inline int key_taken(struct flight *p)
{
	u32 stale, found = peek(p, &stale);
	struct connection *c = connection_at(found >> 1);

	return found && c && !same_tuple(&c->original, &p->fresh.original);
}

/*
 * Whether a connection has p->tuple, so that the new p->fresh cannot have it. Removes none: NAT calls this with little
 * room in the call stack (the verifier allows 8 nested calls).
 */
static __always_inline int tuple_taken(struct flight *p)
{
	if (!invert(&p->tuple, &p->inverse))
		return 0;
	key_of(&p->key, &p->tuple, &p->inverse);
	if (key_taken(p))
		return 1;
	exact_key_of(&p->key, &p->tuple);
	return key_taken(p);
}

/* Whether a connection has this tuple; an expired one is removed. */
static __always_inline int occupied(struct flight *p, const struct tuple *one, const struct tuple *inverse)
{
	p->tuple = *one;
	p->inverse = *inverse;
	return find_connection(p) != 0;
}

/* The key names another record. */
#define EEXIST 17
#define NAME_TAKEN 1
#define NO_MEMORY 2

/*
 * Let p->key name the record; replaces a stale key. 0: done; NAME_TAKEN; NO_MEMORY.
 *
 * `tuples` is not preallocated, because most connections have one key and some two. The kernel takes an entry from a
 * stock of each CPU, which it fills without waiting for memory (kernel/bpf/memalloc.c), so under pressure there may be
 * none (ENOMEM). It fills the stock as soon as the update has let interrupts through: the second attempt may succeed.
 * The same holds for a bucket whose lock could not be had (EBUSY, or since Linux 6.15 EDEADLK and ETIMEDOUT).
 */
static __always_inline int name(struct flight *p, u32 at)
{
	long failed = name_record(at);

	if (!failed)
		return 0;
	if (failed == -EEXIST) {
		p->tuple = p->key;
		p->tuple.family &= ~EXACT;
		if (found_by_key(p))
			return NAME_TAKEN;
	}
	failed = name_record(at);
	return !failed ? 0 : failed == -EEXIST ? NAME_TAKEN : NO_MEMORY;
}

/* The number of a free record; 0: there is none. */
static __always_inline u32 take_record(struct tracker *t)
{
	u32 at = 0;

	if (!bpf_map_pop_elem(&free_connections, &at) && at)
		return at;
	if (READ_ONCE(t->next) > t->max)
		return 0;
	at = __sync_fetch_and_add(&t->next, 1);
	return at && at <= t->max ? at : 0;
}

/* Insert p->fresh: the number of its record; 0: no room or memory; -1: another connection has one of its tuples. */
__noinline int insert(struct flight *p)
{
	struct tracker *t = the_tracker();
	struct tracker_stats *s = this_tracker_stats();
	struct connection *c, *master = 0;
	struct zone *z;
	u32 at, zone;
	int failed, nat;

	if (!p || !t || !s)
		return 0;
	nat = p->fresh.status & IPS_NAT_MASK;
	/* An exact key never equals one that is not. */
	if (nat || t->translated) {
		invert(&p->fresh.original, &p->wanted);
		invert(&p->fresh.reply, &p->present);
		if (occupied(p, &p->fresh.original, &p->wanted) || occupied(p, &p->fresh.reply, &p->present)) {
			s->insert_failed++;
			return -1;
		}
	}
	if (__sync_fetch_and_add(&t->count, 1) >= t->max)
		goto full;
	at = take_record(t);
	if (!at)
		goto full;
	c = connection_at(at);
	if (!c)
		goto full;
	if (!p->fresh.id)
		p->fresh.id = __sync_fetch_and_add(&t->ids, 1) + 1;
	p->fresh.status |= IPS_CONFIRMED;
	p->fresh.holders = 1;
	if (p->fresh.master) {
		master = connection_at(p->fresh.master);
		if (!master || !hold(master)) {
			master = 0;
			p->fresh.master = 0;
		}
	}
	*c = p->fresh;
	if (nat & IPS_SRC_NAT)
		count_mapping(p, c);
	if (nat) {
		t->translated = 1;
		exact_key_of(&p->key, &p->fresh.original);
		failed = name(p, at);
		if (!failed && !same_tuple(&p->fresh.original, &p->fresh.reply)) {
			exact_key_of(&p->key, &p->fresh.reply);
			failed = name(p, at);
			if (failed) {
				exact_key_of(&p->key, &p->fresh.original);
				unname();
			}
		}
	} else {
		key_of(&p->key, &p->fresh.original, &p->fresh.reply);
		failed = name(p, at);
	}
	if (failed) {
		discount_mapping(p, c);
		c->status = 0;
		let_go(c, at);
		if (master)
			let_go(master, p->fresh.master);
		__sync_fetch_and_add(&t->count, -1);
		if (failed == NO_MEMORY)
			return 0;
		s->insert_failed++;
		return -1;
	}
	zone = p->fresh.original.zone;
	z = bpf_map_lookup_elem(&zones, &zone);
	if (z)
		__sync_fetch_and_add(&z->count, 1);
	s->insert++;
	return at;
full:
	__sync_fetch_and_add(&t->count, -1);
	return 0;
}
