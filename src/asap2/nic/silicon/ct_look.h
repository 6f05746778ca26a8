// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Find the connection of a packet, or begin a new one, and let the packet update it. Modelled on nf_conntrack_in() of
 * nf_conntrack_core.c, Linux 6.12.
 */
#pragma once

#include "ct_checksum.h"

enum ct_info { INFO_ESTABLISHED, INFO_RELATED, INFO_NEW, INFO_REPLY };

#define EVICTION_RANGE 8 /* NF_CT_EVICTION_RANGE */

enum looked { LOOKED_VALID, LOOKED_INVALID, LOOKED_LAST, LOOKED_DROP };

/* What a packet of a connection in this state is to it (resolve_normal_ct()). */
static __always_inline u32 info_of(u32 status, u32 reply)
{
	return reply                   ? INFO_ESTABLISHED + INFO_REPLY :
	       status & IPS_SEEN_REPLY ? INFO_ESTABLISHED :
	       status & IPS_EXPECTED   ? INFO_RELATED :
					 INFO_NEW;
}

/* Classify an ICMP error by the connection of the packet quoted in it. */
__noinline int related(struct __sk_buff *skb, struct flight *p)
{
	struct connection *c;
	struct tuple *expected;
	u32 inner, family;

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
	c = note_connection(p);
	if (!c)
		return LOOKED_INVALID;
	expected = p->reply ? &c->reply : &c->original;
	if (compare_addresses(expected->dst, p->target.dst))
		return LOOKED_INVALID;
	p->info = INFO_RELATED + (p->reply ? INFO_REPLY : 0);
	return LOOKED_VALID;
}

/* Whether the packet is an ICMP message; sets p->redirect and p->damaged. */
__noinline int is_icmp(struct __sk_buff *skb, struct flight *p)
{
	int l4;
	u8 type;

	if (!p)
		return 0;
	l4 = tuple_at(skb, &p->wanted, p->tuple.family, p->l3, p->end);
	if (l4 < 0 || p->wanted.proto != icmp_of(p->tuple.family))
		return 0;
	p->l4 = l4;
	type = bpf_ntohs(p->wanted.dst_port) >> 8;
	p->redirect = p->tuple.family == 4 && type == 5;
	/* NAT looks at the checksum of an error even if nf_conntrack_checksum is off. */
	p->damaged = checksum_is_wrong(skb, p, &p->wanted, 1);
	return 1;
}

static __always_inline int is_icmp_error(u32 family, u32 type)
{
	return family == 4 ? type == 3 || type == 4 || type == 5 || type == 11 || type == 12 : type < 128;
}

/* Neighbour and listener discovery, which are never tracked. */
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

/* Whether a record still holds the same connection. */
static __always_inline int is_still(u32 at, u32 id)
{
	struct connection *c = connection_at(at);

	return c && READ_ONCE(c->id) == id && READ_ONCE(c->status) & IPS_CONFIRMED;
}

/* Whether a helper expects the connection p->fresh, which then gets a master (init_conntrack()). */
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
	e = expectation_of();
	if (!e || e->expires <= p->now || !is_still(e->master, e->master_id))
		return 0;
	at = e->master;
	master = connection_at(at);
	if (!master || READ_ONCE(master->expires) <= p->now)
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

/* Note the events that a packet has caused. */
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
 * Make room in a full table by removing a connection that is worth less than a new one (early_drop()): the first of
 * some random records whose connection is not assured, is closing, or has expired. Not while packets are traced, whose
 * results must not depend on chance.
 */
__noinline int make_room(struct flight *p)
{
	struct tracker_stats *s = this_tracker_stats();
	struct tracker *t = the_tracker();
	u32 from = bpf_get_prandom_u32(), at, status, records;
	struct connection *c;

	if (!p || !s || !t || constants.tracing)
		return 0;
	records = READ_ONCE(t->next) - 1; /* those that have ever been used */
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

/* Try to find the connection of p->tuple and update it. Returns enum looked; -1: try again. */
__noinline int follow_connection(struct __sk_buff *skb, struct flight *p)
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
		p->info = info_of(status, p->reply);
	} else {
		if (READ_ONCE(t->count) >= t->max && !make_room(p)) {
			s->drop++;
			return LOOKED_DROP;
		}
		begin_connection(p, p->policy);
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
			p->fresh = *c; /* the rest of the action uses the connection as it was */
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

/* Read the tuple of the packet, whose network header is known, and look at its checksum. 0: the packet is invalid. */
__noinline int read_tuple(struct __sk_buff *skb, struct flight *p)
{
	int l4;

	if (!p)
		return 0;
	l4 = tuple_at(skb, &p->tuple, p->tuple.family, p->l3, p->end);
	if (l4 < 0)
		return 0;
	p->l4 = l4;
	return !checksum_is_wrong(skb, p, &p->tuple, 0);
}

/* Find the connection of the packet, whose network header, zone and policy are known. Returns enum looked. */
__noinline int look(struct __sk_buff *skb, struct flight *p)
{
	u32 family;
	int looked;
	u8 type;

	if (!p)
		return LOOKED_DROP;
	if (!read_tuple(skb, p))
		return LOOKED_INVALID;
	family = p->tuple.family;
	p->at = p->reply = 0;
	if (p->tuple.proto == icmp_of(family)) {
		type = bpf_ntohs(p->tuple.dst_port) >> 8;
		if (family == 4 ? type > NR_ICMP_TYPES : is_untracked(type))
			return LOOKED_INVALID;
		if (is_icmp_error(family, type))
			return related(skb, p);
	}
	if (!invert(&p->tuple, &p->inverse))
		return LOOKED_INVALID;
	looked = follow_connection(skb, p);
	if (looked < 0)
		looked = follow_connection(skb, p);
	return looked < 0 ? LOOKED_DROP : looked;
}
