// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The actions of connection tracking: translate a packet, commit its connection, offer it to hardware. Modelled on
 * nf_conntrack_core.c, openvswitch/conntrack.c (in Open vSwitch's tables) and act_ct.c (in TC's) of Linux 6.12.
 */
#pragma once

#include "ct_flow.h"

/* Translate one end of the packet. Returns CT_SNAT or CT_DNAT; -1: failed. */
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
		/* A range of the other family counts as none. */
		if (set_up_nat(p, r, manip, null || r->octets != (c->original.family == 4 ? 4 : 16)))
			return -1;
	}
	error = p->error;
	/* The addresses in a redirect mean nothing on the other side of NAT. */
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
		p->target.proto = icmp_of(family);
	}
	if (manipulate(skb, &p->target, place_of(p->l3, p->end), l4, manip))
		return -1;
	return manip == MANIP_SRC ? CT_SNAT : CT_DNAT;
}

/* Do NAT for the action and the connection. Returns the bits of ct_state for what was done; -1 on failure. */
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
	if (p->error && p->damaged)
		return -1;
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
 * Resolve a clash (nf_ct_resolve_clash()): if another packet has just inserted the same UDP connection, or its reverse,
 * return its record. -1: drop the packet. Unlike Linux, this also drops the packet if NAT has translated the two
 * differently.
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

#define ZONE_RECORDS 256 /* examined for a zone that has reached its limit */

/* Stop counting a connection of the zone if it has expired or is closed (already_closed() in nf_conncount.c). */
static long try_record(u32 i, struct flight **of)
{
	struct flight *p = *of;
	u32 at = 1 + (p->search.from + i) % p->search.records, zone = p->search.zone;
	struct connection *c = connection_at(at);
	struct zone *z = bpf_map_lookup_elem(&zones, &zone);

	if (!c || !z || !(READ_ONCE(c->status) & IPS_CONFIRMED) || c->original.zone != zone)
		return 0;
	if (READ_ONCE(c->expires) <= p->now ||
	    (c->original.proto == IPPROTO_TCP && (c->tcp.state == TCP_TIME_WAIT || c->tcp.state == TCP_CLOSE)))
		stop_counting(c);
	return READ_ONCE(z->count) < z->limit;
}

/* Whether no connection may be committed in the zone (ovs_ct_check_limit()). */
__noinline int zone_is_full(struct flight *p, u32 zone)
{
	struct zone *z = bpf_map_lookup_elem(&zones, &zone);
	struct tracker *t = the_tracker();
	u32 records;

	if (!p || !t || !z || !z->limited || READ_ONCE(z->count) < z->limit)
		return 0;
	records = READ_ONCE(t->next) - 1; /* those that have ever been used */
	if (!records)
		return 1;
	p->search.zone = zone;
	p->search.from = z->hand;
	p->search.records = records;
	z->hand += bpf_loop(records < ZONE_RECORDS ? records : ZONE_RECORDS, try_record, &p, 0);
	return READ_ONCE(z->count) >= z->limit;
}

/* Count a packet that is dropped because there is no memory for its connection (nf_conntrack_in(), "too stressed"). */
static __always_inline void count_drop(void)
{
	struct tracker_stats *s = this_tracker_stats();

	if (s)
		s->drop++;
}

/* Store mark and labels, and insert the connection if it is new. -1: failed. */
__noinline int commit(struct flight *p, struct state *s, struct tracking *r)
{
	struct connection *c;
	u32 mark;
	int at;

	if (!p || !s || !r)
		return -1;
	c = connection_or_fresh(p, p->at);
	if (!c)
		return -1;
	if (!(c->status & IPS_CONFIRMED) && p->ovs && zone_is_full(p, r->zone))
		return -1;
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
	else if (!at)
		count_drop();
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
		fulfil();
	}
	return 0;
}

/* Whether a helper in user space must see the packet: it has data, or shifted sequence numbers. */
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

/* What the action does with a packet whose connection it has found. Returns the same as track(). */
__noinline int conclude(struct __sk_buff *skb, struct state *s, struct tracking *r)
{
	struct flight *p = this_flight();
	struct connection *c;

	if (!p || !s || !r)
		return -1;
	c = connection_or_fresh(p, p->at);
	if (!c)
		return -1;
	if (p->ovs && p->at && c->original.proto == IPPROTO_TCP && tcp_is_established(c)) {
		c->tcp.seen[0].flags |= END_BE_LIBERAL;
		c->tcp.seen[1].flags |= END_BE_LIBERAL;
	}
	if (r->flags & CT_COMMIT && commit(p, s, r))
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

/* Do the action ct of a slot. 0: done; WANTS_HELPER: a helper comes next; -1: drop the packet. */
__noinline int track(struct __sk_buff *skb, struct state *s, u32 slot, u32 ovs)
{
	struct encap *e = bpf_map_lookup_elem(&encaps, &slot);
	struct flight *p = this_flight();
	struct tracker_stats *stats;
	struct tracking *r;
	int of, nat = 0;

	if (!e || !p || !s)
		return -1;
	r = &e->tracking;
	p->ovs = ovs;
	p->now = coarse_now_ns();
	p->info = p->at = p->reply = p->error = p->events = 0;
	of = network_of(skb, p, s->enveloped, !ovs && s->ct_known == CT_UNKNOWN);
	if (of == NOT_IP || p->fragment)
		return -1;
	if (of == NOT_TRACKABLE) {
		if (!p->ovs)
			return -1;
		s->ct_known = CT_UNKNOWN;
		tell_fields(s, p, 0, r->zone, 0);
		return 0;
	}
	p->known = still_known(skb, p, s, r, p->ovs);
	if (!p->known) {
		p->tuple.zone = r->zone;
		p->policy = r->policy;
		p->looked = LOOKED_VALID;
		if (!(r->flags & CT_OFFLOAD) || !flow_tuple(skb, p, p->l3, p->tuple.family) || !follow_flow(p))
			p->looked = look(skb, p);
		if (p->looked == LOOKED_DROP)
			return -1;
		s->ct_known = CT_UNKNOWN;
		if (p->looked == LOOKED_INVALID) {
			stats = this_tracker_stats();
			if (stats)
				stats->invalid++;
			tell_fields(s, p, 0, r->zone, 0);
			return 0;
		}
		tell_found(s, p, r->zone);
		name_connection(p);
		know(s, p);
		s->ct_known = p->looked == LOOKED_LAST ? CT_GONE : p->at ? CT_KNOWN : CT_PENDING;
	} else if (s->ct_known == CT_PENDING) {
		if (again(skb, p, s, r))
			return -1;
		if (!p->at)
			p->fresh.id = s->connection_id;
	}
	if ((p->known && s->ct_known == CT_GONE) || (s->ct_known == CT_PENDING && !(r->flags & CT_COMMIT)))
		return 0;
	p->looked = !p->known || !p->at;
	p->error = p->info % INFO_REPLY == INFO_RELATED && is_icmp(skb, p);
	if (r->flags & CT_NAT && !(p->ovs && s->tracked.ct_state & (CT_SNAT | CT_DNAT))) {
		nat = do_nat(skb, p, r);
		if (nat < 0)
			return -1;
		s->tracked.ct_state |= nat;
	}
	return conclude(skb, s, r);
}

/* Clear the state of connection tracking (ct_clear). */
static __always_inline void untrack(struct state *s)
{
	__builtin_memset(&s->tracked, 0, sizeof(s->tracked));
	s->ct_known = CT_UNKNOWN;
	s->connection = 0;
}
