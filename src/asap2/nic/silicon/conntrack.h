// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The actions of connection tracking: which connection a packet is of, what is remembered of it, and what the packet's
 * fields then say. As nf_conntrack_core.c, and in Open vSwitch's tables openvswitch/conntrack.c, of Linux 6.12.
 *
 * A connection that is not remembered yet exists nowhere: an action that commits one looks at the packet again, and finds
 * what the action before it found, since the packet's state has the tuple by which that went.
 */
#pragma once

#include "nat.h"

enum ct_info { INFO_ESTABLISHED, INFO_RELATED, INFO_NEW, INFO_REPLY };

/* What is known of a packet's connection (struct state). */
enum ct_known {
	CT_UNKNOWN,
	CT_PENDING, /* it is new, and not remembered */
	CT_KNOWN, /* the record `connection` */
	CT_GONE, /* the packet was its last */
};

#define EVICTION_RANGE 8 /* NF_CT_EVICTION_RANGE */

enum looked { LOOKED_VALID, LOOKED_INVALID, LOOKED_LAST, LOOKED_DROP };

/* A packet in an ICMP error is of a connection: what the error is then. */
__noinline int related(struct __sk_buff *skb, struct flight *p)
{
	struct connection *c;
	struct tuple *expected;
	u32 found, inner, family;

	if (!p)
		return LOOKED_INVALID;
	family = p->tuple.family;
	p->target = p->tuple; /* the outer destination */
	inner = p->l4 + 8;
	if (tuple_at(skb, &p->inverse, family, inner, p->end) < 0)
		return LOOKED_INVALID;
	p->inverse.zone = p->target.zone;
	p->inner_proto = p->inverse.proto;
	if (!invert(&p->inverse, &p->tuple))
		return LOOKED_INVALID;
	found = find_connection(p);
	c = connection_at(found >> 1);
	if (!found || !c)
		return LOOKED_INVALID;
	p->at = found >> 1;
	p->reply = found & 1;
	expected = p->reply ? &c->reply : &c->original;
	if (compare_addresses(expected->dst, p->target.dst))
		return LOOKED_INVALID;
	p->info = INFO_RELATED + (p->reply ? INFO_REPLY : 0);
	return LOOKED_VALID;
}

/* Whether it is an ICMP message; p->redirect: a redirect. */
__noinline int is_icmp(struct __sk_buff *skb, struct flight *p)
{
	int l4;
	u8 type;

	if (!p)
		return 0;
	l4 = tuple_at(skb, &p->wanted, p->tuple.family, p->l3, p->end);
	if (l4 < 0 || p->wanted.proto != (p->tuple.family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return 0;
	type = bpf_ntohs(p->wanted.dst_port) >> 8;
	p->redirect = p->tuple.family == 4 && type == 5;
	return 1;
}

static __always_inline int is_icmp_error(u32 family, u32 type)
{
	return family == 4 ? type == 3 || type == 4 || type == 5 || type == 11 || type == 12 : type < 128;
}

/* Neighbour and listener discovery, which is never tracked. */
static __always_inline int is_untracked(u32 type)
{
	return (type >= 130 && type <= 136) || type == 143 || type == 151 || type == 152;
}

static __always_inline void begin_connection(struct flight *p, u32 policy)
{
	__builtin_memset(&p->fresh, 0, sizeof(p->fresh));
	p->fresh.original = p->tuple;
	p->fresh.reply = p->inverse;
	p->fresh.started = p->now;
	p->fresh.policy = policy;
	p->fresh.event_mask = ~0u;
}

/* Whether a record is still that of the same connection. */
static __always_inline int is_still(u32 at, u32 id)
{
	struct connection *c = connection_at(at);

	return c && READ_ONCE(c->id) == id && READ_ONCE(c->status) & IPS_CONFIRMED;
}

/* Whether a helper expects the connection p->fresh: then it belongs to another (init_conntrack). */
__noinline int expect(struct flight *p)
{
	struct tracker *t = the_tracker();
	struct connection *master;
	struct expectation *e;
	u32 at;

	if (!p || !t || !READ_ONCE(t->expecting))
		return 0;
	p->key = p->tuple;
	p->key.src_port = 0;
	e = bpf_map_lookup_elem(&expectations, &p->key);
	if (!e || e->expires <= p->now || !is_still(e->master, e->master_id))
		return 0;
	at = e->master;
	master = connection_at(at);
	if (!master)
		return 0;
	p->fresh.master = at;
	p->fresh.mark = master->mark;
	__builtin_memcpy(p->fresh.labels, master->labels, 16);
	p->fresh.status |= IPS_EXPECTED | e->status;
	if (e->status & IPS_NAT_MASK) {
		p->fresh.reply = e->reply;
		p->fresh.reply.dst_port = p->tuple.src_port;
	}
	return 1;
}

static __always_inline void account(struct connection *c, struct flight *p, u32 reply)
{
	reply &= 1;
	__sync_fetch_and_add(&c->packets[reply], 1);
	__sync_fetch_and_add(&c->bytes[reply], p->end - p->l3);
}

/* Note what a packet has done to a connection. */
static __always_inline void note_events(struct connection *c, struct flight *p)
{
	if (p->reply && !(p->old_status & IPS_SEEN_REPLY))
		p->events |= CT_EVENT_REPLY;
	if (c->status & ~p->old_status & IPS_ASSURED)
		p->events |= CT_EVENT_ASSURED;
	if (c->original.proto == IPPROTO_TCP && c->tcp.state != p->old_state)
		p->events |= CT_EVENT_PROTOINFO;
}

/*
 * Where the table is full, a connection that is worth less than a new one goes (early_drop()): of some records, the first
 * whose connection has not been assured, or is being closed, or is over. A packet that is traced finds none, since
 * which ones are looked at is left to chance.
 */
__noinline int make_room(struct flight *p)
{
	struct tracker_stats *s = this_tracker_stats();
	struct tracker *t = the_tracker();
	u32 from = bpf_get_prandom_u32(), at, status, records;
	struct connection *c;

	if (!p || !s || !t || constants.tracing)
		return 0;
	records = READ_ONCE(t->next) - 1; /* those that have ever been in use */
	if (!records)
		return 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < EVICTION_RANGE; i++) {
		at = 1 + (from + i) % records;
		c = connection_at(at);
		if (!c)
			continue;
		status = READ_ONCE(c->status);
		if (!(status & IPS_CONFIRMED) || status & IPS_OFFLOAD)
			continue;
		if (status & IPS_ASSURED && READ_ONCE(c->expires) > p->now &&
		    !(c->original.proto == IPPROTO_TCP && closing(c->tcp.state)))
			continue;
		if (forget(p, at)) {
			s->early_drop++;
			return 1;
		}
	}
	return 0;
}

/* One try to find the connection of p->tuple and let the packet change it: enum looked; -1: try once more. */
__noinline int follow_connection(struct __sk_buff *skb, struct flight *p, u32 policy)
{
	struct tracker_stats *s = this_tracker_stats();
	struct tracker *t = the_tracker();
	struct connection *c;
	u32 found, status, proto;
	u64 as;

	if (!p || !s || !t)
		return LOOKED_DROP;
	found = find_connection(p);
	p->at = found >> 1;
	p->reply = found & 1;
	if (found) {
		c = connection_at(p->at);
		if (!c)
			return LOOKED_DROP;
		status = READ_ONCE(c->status);
		p->old_status = status;
		p->old_state = c->tcp.state;
		p->info = p->reply                ? INFO_ESTABLISHED + INFO_REPLY :
			  status & IPS_SEEN_REPLY ? INFO_ESTABLISHED :
			  status & IPS_EXPECTED   ? INFO_RELATED :
						    INFO_NEW;
	} else {
		if (READ_ONCE(t->count) >= t->max && !make_room(p)) {
			s->drop++;
			return LOOKED_DROP;
		}
		begin_connection(p, policy);
		p->info = expect(p) ? INFO_RELATED : INFO_NEW;
		c = &p->fresh;
	}
	proto = p->tuple.proto;
	as = proto == IPPROTO_TCP  ? track_tcp(skb, p, p->at, p->reply) :
	     proto == IPPROTO_SCTP ? track_sctp(skb, p, p->at) :
				     track_other(skb, p, p->at);
	switch (as >> 32) {
	case AS_VALID:
		c->expires = p->now + (u32)as * SECOND;
		account(c, p, p->reply);
		break;
	case AS_VALID_BUT_NO_LONGER:
		break;
	case AS_LAST:
		account(c, p, p->reply);
		if (p->at) {
			p->fresh = *c; /* the rest of the action is done with what was */
			forget(p, p->at);
			p->at = 0;
		}
		return LOOKED_LAST;
	case AS_REOPENED:
		if (p->at && forget(p, p->at))
			return -1;
		s->drop++;
		return LOOKED_DROP;
	default:
		return LOOKED_INVALID;
	}
	if (p->reply && !(c->status & IPS_SEEN_REPLY))
		__sync_fetch_and_or(&c->status, IPS_SEEN_REPLY);
	if (READ_ONCE(t->events) && p->at)
		note_events(c, p);
	return LOOKED_VALID;
}

/* Find the connection of the packet, whose network header is found: enum looked. */
__noinline int look(struct __sk_buff *skb, struct flight *p, u32 zone, u32 policy)
{
	u32 family;
	int l4, looked;
	u8 type;

	if (!p)
		return LOOKED_DROP;
	p->tuple.zone = zone;
	family = p->tuple.family;
	l4 = tuple_at(skb, &p->tuple, family, p->l3, p->end);
	if (l4 < 0)
		return LOOKED_INVALID;
	p->l4 = l4;
	p->at = p->reply = 0;
	if (p->tuple.proto == (family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		type = bpf_ntohs(p->tuple.dst_port) >> 8;
		if (family == 4 ? type > NR_ICMP_TYPES : is_untracked(type))
			return LOOKED_INVALID;
		if (is_icmp_error(family, type))
			return related(skb, p);
	}
	if (!invert(&p->tuple, &p->inverse))
		return LOOKED_INVALID;
	looked = follow_connection(skb, p, policy);
	if (looked < 0)
		looked = follow_connection(skb, p, policy);
	return looked < 0 ? LOOKED_DROP : looked;
}

static __always_inline void tell_original(struct state *s, struct connection *c)
{
	struct tracked *t = &s->tracked;
	u32 port;

	__builtin_memcpy(t->ct_src, c->original.src, 16);
	__builtin_memcpy(t->ct_dst, c->original.dst, 16);
	t->ct_proto = c->original.proto;
	if (c->original.proto == (c->original.family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		port = bpf_ntohs(c->original.dst_port);
		t->ct_tp_src = bpf_htons(port >> 8);
		t->ct_tp_dst = bpf_htons(port & 0xff);
		s->ct_id = c->original.src_port;
	} else {
		t->ct_tp_src = c->original.src_port;
		t->ct_tp_dst = c->original.dst_port;
	}
}

/* What rules match on: of the connection `c`, where there is one. */
static __always_inline void tell_fields(struct state *s, struct flight *p, struct connection *c, u32 zone, u32 nat)
{
	struct tracked *t = &s->tracked;
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
	tell_original(s, c);
}

/* As tell_fields, of p's connection; the original tuple is that of the one which it belongs to, if it does to any. */
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

/* The tuple of the new connection that the packet's fields tell of. */
static __always_inline void tuple_of_fields(struct tuple *tuple, struct state *s)
{
	struct tracked *t = &s->tracked;

	__builtin_memcpy(tuple->src, t->ct_src, 16);
	__builtin_memcpy(tuple->dst, t->ct_dst, 16);
	tuple->proto = t->ct_proto;
	if (t->ct_proto == (tuple->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		tuple->src_port = s->ct_id;
		tuple->dst_port = bpf_htons((bpf_ntohs(t->ct_tp_src) & 0xff) << 8 | (bpf_ntohs(t->ct_tp_dst) & 0xff));
	} else {
		tuple->src_port = t->ct_tp_src;
		tuple->dst_port = t->ct_tp_dst;
	}
}

/* A name for the new connection, by which a packet knows it again. */
__noinline int name_connection(struct flight *p)
{
	struct tracker *t = the_tracker();

	if (p && t && !p->at)
		p->fresh.id = __sync_fetch_and_add(&t->ids, 1) + 1;
	return 0;
}

/* The packet's connection is that of p->at, or the new one. */
static __always_inline void know(struct state *s, struct flight *p)
{
	struct connection *c = connection_or_fresh(p, p->at);

	s->ct_known = CT_KNOWN;
	s->ct_info = p->info;
	s->connection = p->at;
	s->connection_id = c ? c->id : 0;
}

/*
 * Whether what was found of the packet before holds here: 1, and p->at, p->reply, p->info tell of it (p->at 0: it is
 * new). Else it has to be looked for.
 */
__noinline int still_known(struct __sk_buff *skb, struct flight *p, struct state *s, struct tracking *r, u32 ovs)
{
	u32 executed = 1, found, natted;
	struct connection *c;

	if (!p || !s || !r)
		return 0;
	if (s->ct_known == CT_UNKNOWN) {
		executed = s->tracked.ct_state & CT_TRK && !(s->tracked.ct_state & CT_INV) &&
			   s->tracked.ct_zone == bpf_htons(r->zone);
		if (!ovs || !(executed || (!s->tracked.ct_state && r->flags & CT_FORCE)))
			return 0;
		/* The packet comes from user space: is there such a connection? */
		p->tuple.zone = r->zone;
		if (tuple_at(skb, &p->tuple, p->tuple.family, p->l3, p->end) < 0 || !invert(&p->tuple, &p->inverse))
			return 0;
		natted = s->tracked.ct_state & (CT_SNAT | CT_DNAT);
		if (natted) {
			p->present = p->tuple;
			p->tuple = p->inverse;
			p->inverse = p->present;
		}
		found = find_connection(p);
		c = connection_at(found >> 1);
		if (!found || !c)
			return 0;
		p->at = found >> 1;
		p->reply = (found & 1) ^ !!natted;
		p->info = p->reply                   ? INFO_ESTABLISHED + INFO_REPLY :
			  c->status & IPS_SEEN_REPLY ? INFO_ESTABLISHED :
			  c->status & IPS_EXPECTED   ? INFO_RELATED :
						       INFO_NEW;
		if (executed) {
			know(s, p);
		}
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
	if (r->flags & CT_FORCE && p->reply) {
		if (p->at)
			forget(p, p->at);
		s->ct_known = CT_UNKNOWN;
		return 0;
	}
	return executed;
}

/* The new connection of a packet that an action before found to be new: in p->fresh, or p->at where it is there by now. */
__noinline int again(struct __sk_buff *skb, struct flight *p, struct state *s, struct tracking *r)
{
	struct connection *c;
	u32 found;
	int l4;
	u64 as;

	if (!p || !s || !r)
		return -1;
	p->tuple.zone = r->zone;
	l4 = tuple_at(skb, &p->tuple, p->tuple.family, p->l3, p->end);
	if (l4 < 0)
		return -1;
	p->l4 = l4;
	/* Of a connection that is expected, the fields tell of the one that it belongs to. */
	if (!(s->tracked.ct_state & CT_REL))
		tuple_of_fields(&p->tuple, s);
	if (!invert(&p->tuple, &p->inverse))
		return -1;
	found = find_connection(p);
	c = connection_at(found >> 1);
	if (found && c && c->id == s->connection_id) {
		/* A copy of the packet has committed it. */
		p->at = found >> 1;
		p->reply = found & 1;
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

/* One manipulation of the packet as its connection says; CT_SNAT, CT_DNAT: done; -1: failed. */
__noinline int translate(struct __sk_buff *skb, struct flight *p, struct tracking *r, u32 manip, u32 null)
{
	struct connection *c;
	u32 done = manip == MANIP_SRC ? IPS_SRC_NAT_DONE : IPS_DST_NAT_DONE, family, error;
	int l4 = 0;

	if (!p || !r)
		return -1;
	c = connection_or_fresh(p, p->at);
	if (!c)
		return -1;
	if (p->info % INFO_REPLY != INFO_ESTABLISHED && !p->error && !(c->status & (done | IPS_CONFIRMED))) {
		/* A range of the other family is none. */
		if (set_up_nat(p, r, manip, null || r->unused != (c->original.family == 4 ? 4 : 16)))
			return -1;
	}
	error = p->error;
	/* A redirect tells of addresses that mean nothing at the other side. */
	if (error && p->redirect && ((~c->status & (IPS_SRC_NAT_DONE | IPS_DST_NAT_DONE)) || c->status & IPS_NAT_MASK))
		return -1;
	if (!(c->status & nat_bit(manip, p->reply)))
		return manip == MANIP_SRC ? CT_SNAT : CT_DNAT;
	family = c->original.family;
	invert(p->reply ? &c->original : &c->reply, &p->target);
	l4 = tuple_at(skb, &p->wanted, family, p->l3, p->end);
	if (l4 < 0)
		l4 = 0;
	if (error) {
		p->l4 = l4;
		p->inner_proto = c->original.proto;
		if (manipulate_inside(skb, p, manip))
			return -1;
		p->target.proto = family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	}
	if (manipulate(skb, &p->target, place_of(p->l3, p->end), l4, manip))
		return -1;
	return manip == MANIP_SRC ? CT_SNAT : CT_DNAT;
}

/* NAT as the action says, and the connection has it: the bits of ct_state for what was done; -1: failed. */
__noinline int do_nat(struct __sk_buff *skb, struct flight *p, struct tracking *r)
{
	struct connection *c;
	u32 manip, status;
	int done, more;

	if (!p || !r)
		return -1;
	c = connection_or_fresh(p, p->at);
	if (!c)
		return -1;
	status = c->status;
	if (p->info != INFO_NEW && status & IPS_NAT_MASK && (p->info != INFO_RELATED || r->flags & CT_COMMIT))
		manip = !!(status & IPS_SRC_NAT) != p->reply ? MANIP_SRC : MANIP_DST;
	else if (r->flags & CT_NAT_SRC)
		manip = MANIP_SRC;
	else if (r->flags & CT_NAT_DST)
		manip = MANIP_DST;
	else
		return 0;
	done = translate(skb, p, r, manip, 0);
	if (done < 0)
		return -1;
	status = c->status;
	if (!(status & IPS_DST_NAT))
		return done;
	if (status & IPS_SRC_NAT)
		more = translate(skb, p, r, !manip, 0);
	else if (!p->reply)
		more = translate(skb, p, r, MANIP_SRC, 1);
	else
		return done;
	return more < 0 ? -1 : done | more;
}

/* Whether TC gives such a connection to hardware (act_ct.c). */
static __always_inline void offer(struct connection *c, struct flight *p)
{
	u32 status = c->status, established = p->info % INFO_REPLY == INFO_ESTABLISHED;

	if (status & (IPS_OFFLOAD | IPS_HELPER | IPS_SEQ_ADJUST))
		return;
	switch (c->original.proto) {
	case IPPROTO_TCP:
		if (!established || !(status & IPS_ASSURED) || c->tcp.state != TCP_ESTABLISHED)
			return;
		c->tcp.seen[0].flags |= END_BE_LIBERAL;
		c->tcp.seen[1].flags |= END_BE_LIBERAL;
		break;
	case IPPROTO_UDP:
		break;
	case IPPROTO_GRE:
		if (!established || !(status & IPS_ASSURED) || status & IPS_NAT_MASK || c->original.src_port ||
		    c->original.dst_port)
			return;
		break;
	default:
		return;
	}
	c->used = p->now;
	__sync_fetch_and_or(&c->status, IPS_OFFLOAD | IPS_HW_OFFLOAD);
}

static __always_inline void set_masked(u8 *to, const u8 *value, const u8 *mask)
{
	u64 a[2], b[2], m[2];

	__builtin_memcpy(a, to, 16);
	__builtin_memcpy(b, value, 16);
	__builtin_memcpy(m, mask, 16);
	a[0] = (a[0] & ~m[0]) | b[0];
	a[1] = (a[1] & ~m[1]) | b[1];
	__builtin_memcpy(to, a, 16);
}

static __always_inline int zero_labels(const u8 *labels)
{
	u64 w[2];

	__builtin_memcpy(w, labels, 16);
	return !(w[0] | w[1]);
}

/*
 * Of UDP, where another packet was faster with the new connection, or with that of the answers, it becomes this packet's:
 * its record; -1: the packet goes no further (nf_ct_resolve_clash()). Unlike there it does so, too, where NAT has made two
 * connections of the same beginning.
 */
__noinline int merge(struct flight *p)
{
	struct tracker_stats *s = this_tracker_stats();
	struct connection *c;
	u32 found;

	if (!p || !s || (p->fresh.original.proto != IPPROTO_UDP && p->fresh.original.proto != IPPROTO_UDPLITE))
		return -1;
	p->tuple = p->fresh.original;
	if (!invert(&p->tuple, &p->inverse))
		return -1;
	found = find_connection(p);
	c = connection_at(found >> 1);
	if (!found || !c)
		return -1;
	if (!(same_tuple(&c->original, &p->fresh.original) && same_tuple(&c->reply, &p->fresh.reply)) &&
	    !(same_tuple(&c->original, &p->fresh.reply) && same_tuple(&c->reply, &p->fresh.original)))
		return -1;
	account(c, p, 0);
	s->insert_failed--;
	s->clash++;
	return found >> 1;
}

/* Mark, labels, and the connection itself are remembered. -1: they cannot be. */
__noinline int commit(struct flight *p, struct state *s, struct tracking *r, u32 ovs)
{
	struct connection *c;
	struct zone *z;
	u32 zone, mark;
	int at;

	if (!p || !s || !r)
		return -1;
	c = connection_or_fresh(p, p->at);
	if (!c)
		return -1;
	zone = r->zone;
	if (!(c->status & IPS_CONFIRMED) && ovs) {
		z = bpf_map_lookup_elem(&zones, &zone);
		if (z && z->limited && z->count >= z->limit)
			return -1;
	}
	if (r->flags & CT_EVENT_MASK)
		c->event_mask = r->event_mask;
	mark = (c->mark & ~r->mark_mask) | r->mark;
	if (mark != c->mark) {
		c->mark = mark;
		s->tracked.ct_mark = bpf_htonl(mark);
		p->events |= CT_EVENT_MARK;
	}
	if (r->flags & CT_LABELS && !zero_labels(r->labels_mask)) {
		set_masked(c->labels, r->labels, r->labels_mask);
		__builtin_memcpy(s->tracked.ct_labels, c->labels, 16);
		p->events |= CT_EVENT_LABEL;
	}
	if (c->status & IPS_CONFIRMED)
		return 0;
	if (r->helper) {
		c->helper = r->helper;
		c->status |= IPS_HELPER;
	}
	at = insert(p);
	if (at < 0)
		at = merge(p);
	if (at <= 0)
		return -1;
	p->at = at;
	p->events |= p->fresh.master ? CT_EVENT_RELATED : CT_EVENT_NEW;
	if (p->fresh.original.proto == IPPROTO_TCP || p->fresh.original.proto == IPPROTO_SCTP)
		p->events |= CT_EVENT_PROTOINFO;
	know(s, p);
	if (p->fresh.status & IPS_EXPECTED) {
		p->key = p->fresh.original;
		p->key.src_port = 0;
		bpf_map_delete_elem(&expectations, &p->key);
	}
	return 0;
}

/* Whether a helper, which is user space's, has to see the packet: it has data, or its sequence numbers are changed. */
__noinline int wants_helper(struct __sk_buff *skb, struct flight *p)
{
	struct connection *c;
	u8 offset = 0;

	if (!p || !p->looked || !p->at || p->error)
		return 0;
	c = connection_at(p->at);
	if (!c || !c->helper || !(c->status & IPS_CONFIRMED))
		return 0;
	if (c->original.proto != IPPROTO_TCP || c->status & IPS_SEQ_ADJUST)
		return 1;
	return !bpf_skb_load_bytes(skb, p->l4 + 12, &offset, 1) && p->l4 + (offset >> 4) * 4 < p->end;
}

#define WANTS_HELPER 1

/* The action "ct" of the slot: 0; WANTS_HELPER: as well; -1: the packet goes no further. */
__noinline int track(struct __sk_buff *skb, struct state *s, u32 slot, u32 ovs)
{
	struct encap *e = bpf_map_lookup_elem(&encaps, &slot);
	struct flight *p = this_flight();
	struct tracker_stats *stats = this_tracker_stats();
	struct tracking *r;
	struct connection *c;
	int of, looked = LOOKED_VALID, nat = 0;
	u32 known;

	if (!e || !p || !s || !stats)
		return -1;
	r = &e->tracking;
	p->now = tracker_now();
	p->info = p->at = p->reply = p->error = p->events = 0;
	of = network_of(skb, p, s->enveloped);
	if (of == NOT_IP || p->fragment)
		return -1;
	if (of == NOT_TRACKABLE) {
		if (!ovs)
			return -1;
		s->ct_known = CT_UNKNOWN;
		tell_fields(s, p, 0, r->zone, 0);
		return 0;
	}
	known = still_known(skb, p, s, r, ovs);
	if (!known) {
		looked = look(skb, p, r->zone, r->policy);
		if (looked == LOOKED_DROP)
			return -1;
		s->ct_known = CT_UNKNOWN;
		if (looked == LOOKED_INVALID) {
			stats->invalid++;
			tell_fields(s, p, 0, r->zone, 0);
			return 0;
		}
		tell_found(s, p, r->zone);
		name_connection(p);
		know(s, p);
		s->ct_known = looked == LOOKED_LAST ? CT_GONE : p->at ? CT_KNOWN : CT_PENDING;
	} else if (s->ct_known == CT_PENDING) {
		if (again(skb, p, s, r))
			return -1;
		if (!p->at)
			p->fresh.id = s->connection_id;
	}
	if ((known && s->ct_known == CT_GONE) || (s->ct_known == CT_PENDING && !(r->flags & CT_COMMIT)))
		return 0;
	p->looked = !known || !p->at;
	p->error = p->info % INFO_REPLY == INFO_RELATED && is_icmp(skb, p);
	if (r->flags & CT_NAT && !(ovs && s->tracked.ct_state & (CT_SNAT | CT_DNAT))) {
		nat = do_nat(skb, p, r);
		if (nat < 0)
			return -1;
		s->tracked.ct_state |= nat;
	}
	c = connection_or_fresh(p, p->at);
	if (!c)
		return -1;
	if (ovs && p->at && c->original.proto == IPPROTO_TCP && tcp_is_established(c)) {
		c->tcp.seen[0].flags |= END_BE_LIBERAL;
		c->tcp.seen[1].flags |= END_BE_LIBERAL;
	}
	if (r->flags & CT_COMMIT && commit(p, s, r, ovs))
		return -1;
	if (r->flags & CT_OFFLOAD && p->at) {
		c = connection_at(p->at);
		if (c)
			offer(c, p);
	}
	if (p->events && p->at) {
		c = connection_at(p->at);
		if (c)
			announce(c, p->at, p->events);
	}
	return wants_helper(skb, p) ? WANTS_HELPER : 0;
}

/* Nothing is known of the packet's connection any more. */
static __always_inline void untrack(struct state *s)
{
	__builtin_memset(&s->tracked, 0, sizeof(s->tracked));
	s->ct_known = CT_UNKNOWN;
	s->connection = 0;
}
