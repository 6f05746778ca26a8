// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What is known of a packet's connection: in the fields that rules match on, and in its state, for the next action.
 *
 * A connection that is not committed is stored nowhere. An action that commits it looks at the packet again and finds
 * what the previous action found, because the packet's state has the tuple that it used.
 */
#pragma once

#include "ct_look.h"

/* What is known of a packet's connection (struct state). */
enum ct_known {
	CT_UNKNOWN,
	CT_PENDING, /* a new connection, not committed */
	CT_KNOWN, /* the record `connection` */
	CT_GONE, /* the packet has ended its connection */
};

static __always_inline void original_fields(struct tracked *t, struct connection *c)
{
	u32 port;

	__builtin_memcpy(t->ct_src, c->original.src, 16);
	__builtin_memcpy(t->ct_dst, c->original.dst, 16);
	t->ct_proto = c->original.proto;
	if (c->original.proto == icmp_of(c->original.family)) {
		port = bpf_ntohs(c->original.dst_port);
		t->ct_tp_src = bpf_htons(port >> 8);
		t->ct_tp_dst = bpf_htons(port & 0xff);
	} else {
		t->ct_tp_src = c->original.src_port;
		t->ct_tp_dst = c->original.dst_port;
	}
}

static __always_inline void tell_original(struct state *s, struct connection *c)
{
	original_fields(&s->tracked, c);
	if (c->original.proto == icmp_of(c->original.family))
		s->ct_id = c->original.src_port;
}

/* Set the fields that rules match on from the connection `c`, if there is one. */
static __always_inline void tracked_fields(struct tracked *t, struct flight *p, struct connection *c, u32 zone, u32 nat)
{
	u32 state = CT_TRK;

	__builtin_memset(t, 0, sizeof(*t));
	t->ct_zone = bpf_htons(zone);
	if (!c) {
		t->ct_state = CT_TRK | CT_INV;
		return;
	}
	state |= p->info == INFO_NEW ? CT_NEW : p->info % INFO_REPLY == INFO_RELATED ? CT_REL : CT_EST;
	if (p->info >= INFO_REPLY)
		state |= CT_RPL;
	if (!(c->status & IPS_CONFIRMED))
		state |= CT_NEW;
	if (c->master)
		state |= CT_REL;
	t->ct_state = state | nat;
	t->ct_mark = bpf_htonl(c->mark);
	__builtin_memcpy(t->ct_labels, c->labels, 16);
	original_fields(t, c);
}

static __always_inline void tell_fields(struct state *s, struct flight *p, struct connection *c, u32 zone, u32 nat)
{
	tracked_fields(&s->tracked, p, c, zone, nat);
	if (c && c->original.proto == icmp_of(c->original.family))
		s->ct_id = c->original.src_port;
}

/* The same for p's connection. The original tuple is its master's, if it has one. */
__noinline int tell_found(struct state *s, struct flight *p, u32 zone)
{
	struct connection *c, *master;
	u32 at;

	if (!s || !p)
		return 0;
	c = connection_or_fresh(p, p->at);
	tell_fields(s, p, c, zone, 0);
	if (!c || !c->master)
		return 0;
	at = c->master;
	master = connection_at(at);
	if (master)
		tell_original(s, master);
	return 0;
}

/* The tuple of the new connection that the packet's fields describe. */
static __always_inline void tuple_of_fields(struct tuple *tuple, struct state *s)
{
	struct tracked *t = &s->tracked;

	__builtin_memcpy(tuple->src, t->ct_src, 16);
	__builtin_memcpy(tuple->dst, t->ct_dst, 16);
	tuple->proto = t->ct_proto;
	if (t->ct_proto == icmp_of(tuple->family)) {
		tuple->src_port = s->ct_id;
		tuple->dst_port = bpf_htons((bpf_ntohs(t->ct_tp_src) & 0xff) << 8 | (bpf_ntohs(t->ct_tp_dst) & 0xff));
	} else {
		tuple->src_port = t->ct_tp_src;
		tuple->dst_port = t->ct_tp_dst;
	}
}

/* An identifier by which a packet recognizes its new connection. */
__noinline int name_connection(struct flight *p)
{
	struct tracker *t = the_tracker();

	if (p && t && !p->at)
		p->fresh.id = __sync_fetch_and_add(&t->ids, 1) + 1;
	return 0;
}

/* Note in the packet's state that its connection is that of p->at, or the new one. */
static __always_inline void know(struct state *s, struct flight *p)
{
	struct connection *c = connection_or_fresh(p, p->at);

	s->ct_known = CT_KNOWN;
	s->ct_info = p->info;
	s->connection = p->at;
	s->connection_id = c ? c->id : 0;
}

/*
 * Whether the result of an earlier action is valid here. 1: it is, and is in p->at, p->reply and p->info (p->at 0: a
 * new connection). 0: the connection must be looked up.
 */
__noinline int still_known(struct __sk_buff *skb, struct flight *p, struct state *s, struct tracking *r, u32 ovs)
{
	u32 executed = 1;
	struct connection *c;

	if (!p || !s || !r)
		return 0;
	if (s->ct_known == CT_UNKNOWN) {
		executed = s->tracked.ct_state & CT_TRK && !(s->tracked.ct_state & CT_INV) &&
			   s->tracked.ct_zone == bpf_htons(r->zone);
		if (!ovs || !(executed || (!s->tracked.ct_state && r->flags & CT_FORCE)))
			return 0;
		/* The packet comes from user space: does its connection exist? */
		p->tuple.zone = r->zone;
		if (tuple_at(skb, &p->tuple, p->tuple.family, p->l3, p->end) < 0)
			return 0;
		c = note_connection_after(p, s->tracked.ct_state & (CT_SNAT | CT_DNAT));
		if (!c)
			return 0;
		p->info = info_of(c->status, p->reply);
		if (executed)
			know(s, p);
	} else {
		if (s->tracked.ct_zone != bpf_htons(r->zone)) {
			s->ct_known = CT_UNKNOWN;
			return 0;
		}
		if (s->ct_known == CT_KNOWN && !is_still(s->connection, s->connection_id))
			s->ct_known = CT_GONE;
		p->at = s->ct_known == CT_KNOWN ? s->connection : 0;
		p->info = s->ct_info;
		p->reply = p->info >= INFO_REPLY;
	}
	/* An action that names a timeout policy has its own idea of the connection. */
	c = connection_at(p->at);
	if (r->policy && p->at && c && c->policy != r->policy) {
		s->ct_known = CT_UNKNOWN;
		return 0;
	}
	if (r->flags & CT_FORCE && p->reply) {
		if (p->at)
			forget(p, p->at);
		s->ct_known = CT_UNKNOWN;
		return 0;
	}
	return executed;
}

/* Build a connection that an earlier action found to be new: in p->fresh, or p->at if it exists by now. */
__noinline int again(struct __sk_buff *skb, struct flight *p, struct state *s, struct tracking *r)
{
	struct connection *c;
	int l4;
	u64 as;

	if (!p || !s || !r)
		return -1;
	p->tuple.zone = r->zone;
	l4 = tuple_at(skb, &p->tuple, p->tuple.family, p->l3, p->end);
	if (l4 < 0)
		return -1;
	p->l4 = l4;
	/* The fields of an expected connection are those of its master. */
	if (!(s->tracked.ct_state & CT_REL))
		tuple_of_fields(&p->tuple, s);
	if (!invert(&p->tuple, &p->inverse))
		return -1;
	c = note_connection(p);
	if (c && c->id == s->connection_id) {
		/* A copy of the packet has committed the connection. */
		know(s, p);
		return 0;
	}
	p->at = p->reply = 0;
	if (!(r->flags & CT_COMMIT))
		return 0;
	begin_connection(p, r->policy);
	expect(p);
	as = p->tuple.proto == IPPROTO_TCP  ? track_tcp(skb, p, 0, 0) :
	     p->tuple.proto == IPPROTO_SCTP ? track_sctp(skb, p, 0) :
					      track_other(skb, p, 0);
	if (as >> 32 > AS_VALID_BUT_NO_LONGER)
		return -1;
	p->fresh.expires = p->now + (u32)as * SECOND;
	account(&p->fresh, p, 0);
	return 0;
}
