// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A shorter path for most packets of carried connections: a first rule with the actions ct and goto, and a second rule
 * that matches on the connection and sends the packet to one port, both in the cache. Like express.h, it finds what step()
 * would find, in fewer steps; if it cannot tell, nothing has been done.
 */
#pragma once

#include "carry.h"

/* The tuple of such a packet, and its inverse. */
static __always_inline void usual_tuple(struct tuple *t, struct tuple *inverse, const u64 *w, u32 zone)
{
	const struct fields_head *f = (const struct fields_head *)w;

	__builtin_memcpy(t->src, f->ip_src, 16);
	__builtin_memcpy(t->dst, f->ip_dst, 16);
	__builtin_memcpy(inverse->src, f->ip_dst, 16);
	__builtin_memcpy(inverse->dst, f->ip_src, 16);
	t->src_port = inverse->dst_port = f->l4_src;
	t->dst_port = inverse->src_port = f->l4_dst;
	t->zone = inverse->zone = zone;
	t->proto = inverse->proto = f->ip_proto;
	t->family = inverse->family = 4;
}

/* The record that p->key names, if its connection has the packet's tuple: twice its number, plus the direction. */
static __always_inline u32 carried_by_key(struct flight *p)
{
	u32 stale;

	return peek(p, &stale);
}

static __always_inline u32 usual_connection(struct flight *p, u32 nat)
{
	u32 found;

	/* If the action translates, most connections have exact keys. */
	if (nat) {
		exact_key_of(&p->key, &p->tuple);
		found = carried_by_key(p);
		if (found)
			return found;
	}
	key_of(&p->key, &p->tuple, &p->inverse);
	found = carried_by_key(p);
	if (found || nat)
		return found;
	exact_key_of(&p->key, &p->tuple);
	return carried_by_key(p);
}

/* The rule of `table` for the packet p->packed, if it is in the cache. 0: it must be looked up. */
static __always_inline u32 expected_behind(struct flight *p, struct port *in, u32 table)
{
	u32 at = READ_ONCE(in->behind_hint), *found;
	struct mask_list *masks = bpf_map_lookup_elem(&mask_lists, &at);
	struct mask_list_id id = { .table = table, .in_port = in->id };
	struct node *merged;
	u64 generation, others = 0;
	int rule;

	if (!masks || !READ_ONCE(masks->generation) || masks->table != table || masks->in_port != in->id) {
		found = bpf_map_lookup_elem(&mask_list_of, &id);
		if (!found)
			return 0;
		at = READ_ONCE(*found);
		masks = bpf_map_lookup_elem(&mask_lists, &at);
		if (!masks || masks->table != table || masks->in_port != in->id)
			return 0;
		in->behind_hint = at;
	}
	generation = READ_ONCE(masks->generation);
	barrier();
	at = READ_ONCE(masks->merged);
	if (!generation || !READ_ONCE(masks->first))
		return 0;
	merged = bpf_map_lookup_elem(&nodes, &at);
	if (!merged)
		return 0;
		/* No rule may match on what usual() does not read. */
#pragma unroll
	for (int i = 0; i < REST; i++)
		others |= merged->mask[REST_AT(i)];
	if (others)
		return 0;
	rule = recall(&p->packed, merged, generation);
	return rule > 0 ? rule : 0;
}

/* The NAT bits of ct_state for a connection's packets in this direction (do_nat()). */
static __always_inline u32 nat_state(u32 status, u32 reply)
{
	u32 src = status & IPS_SRC_NAT, dst = status & IPS_DST_NAT;

	if (src && dst)
		return CT_SNAT | CT_DNAT;
	if (reply)
		return src ? CT_DNAT : CT_SNAT;
	return src ? CT_SNAT : CT_SNAT | CT_DNAT;
}

/* The tuple of the connection's packets after NAT: the inverse of the other direction's. */
static __always_inline void translated_fields(struct flight *p, struct connection *c)
{
	const struct tuple *other = p->reply ? &c->original : &c->reply;

	__builtin_memcpy(p->packed.f.ip_src, other->dst, 16);
	__builtin_memcpy(p->packed.f.ip_dst, other->src, 16);
	p->packed.f.l4_src = other->dst_port;
	p->packed.f.l4_dst = other->src_port;
}

/* Replace the addresses and ports of p->tuple in the packet with those of p->packed. -1: failed. */
static __always_inline int translate_usual(struct __sk_buff *skb, struct flight *p)
{
	u32 udp = p->tuple.proto == IPPROTO_UDP, check = ETH_LEN + IPV4_LEN + (udp ? UDP_CHECKSUM : TCP_CHECKSUM);
	u64 flags = udp ? BPF_F_MARK_MANGLED_0 : 0;
	u32 old[2], new[2], old_ports, new_ports;
	s64 difference;

	__builtin_memcpy(&old[0], p->tuple.src + 12, 4);
	__builtin_memcpy(&old[1], p->tuple.dst + 12, 4);
	__builtin_memcpy(&new[0], p->packed.f.ip_src + 12, 4);
	__builtin_memcpy(&new[1], p->packed.f.ip_dst + 12, 4);
	__builtin_memcpy(&old_ports, &p->tuple.src_port, 4);
	__builtin_memcpy(&new_ports, &p->packed.f.l4_src, 4);
	difference = bpf_csum_diff(old, 8, new, 8, 0);
	if (bpf_skb_store_bytes(skb, ETH_LEN + IPV4_SRC, new, 8, 0) ||
	    bpf_l3_csum_replace(skb, ETH_LEN + IPV4_CHECKSUM, 0, difference, 0) ||
	    bpf_l4_csum_replace(skb, check, 0, difference, flags | BPF_F_PSEUDO_HDR))
		return -1;
	if (old_ports == new_ports)
		return 0;
	return bpf_skb_store_bytes(skb, ETH_LEN + IPV4_LEN, &new_ports, 4, 0) ||
			       bpf_l4_csum_replace(skb, check, old_ports, new_ports, flags | 4) ?
		       -1 :
		       0;
}

/*
 * The action after a second ct, which changes nothing about the packet's connection if this has a lookup behind it in the
 * same zone, and NAT as that action wants it (carry()); 0: it might.
 */
static __always_inline struct entry *behind_second(struct entry *second, u32 zone, u32 translates, u32 translated)
{
	u32 at = second->arg;
	struct encap *e = bpf_map_lookup_elem(&encaps, &at);

	if (!e || e->tracking.flags & CT_INSIDE || e->tracking.zone != zone ||
	    (e->tracking.flags & CT_NAT && translates && !translated))
		return 0;
	at = second->next;
	return bpf_map_lookup_elem(&entries, &at);
}

/* Handle a packet whose first rule begins with ct. Returns the verdict, or LONG_WAY if nothing has been done. */
__noinline int express_carry(struct __sk_buff *skb, struct port *in)
{
	struct stats *counted = this_stats();
	struct tracker_stats *stats = this_tracker_stats();
	struct flight *p = this_flight();
	struct way s = {};
	struct work w = { .skb = skb, .s = &s };
	struct connection *c;
	struct tracking *r;
	struct entry *first, *then;
	struct encap *e;
	struct rule *rule;
	u32 zero = 0, at, one, two, table, status, packets = skb->gso_segs ?: 1, nat;
	struct expressed *x = bpf_map_lookup_elem(&expressed, &zero);
	u64 octets_in;

	if (!in || !counted || !stats || !p || !x)
		return LONG_WAY;
	one = x->rule;
	rule = bpf_map_lookup_elem(&rules, &one);
	if (!rule)
		return LONG_WAY;
	at = READ_ONCE(rule->actions);
	first = bpf_map_lookup_elem(&entries, &at);
	if (!first || first->op != OP_CT_HARDWARE)
		return LONG_WAY;
	at = first->next;
	then = bpf_map_lookup_elem(&entries, &at);
	if (!then || then->op != OP_GOTO || then->next)
		return LONG_WAY;
	at = first->arg;
	e = bpf_map_lookup_elem(&encaps, &at);
	if (!e)
		return LONG_WAY;
	r = &e->tracking;
	if (r->flags & CT_INSIDE)
		return LONG_WAY;
	nat = r->flags & CT_NAT;
	p->now = coarse_now_ns();
	usual_tuple(&p->tuple, &p->inverse, x->w, r->zone);
	at = usual_connection(p, nat);
	c = connection_at(at >> 1);
	if (!at || !c)
		return LONG_WAY;
	p->reply = at & 1;
	status = READ_ONCE(c->status);
	if (!(status & IPS_HW_OFFLOAD) || c->master || is_idle(c, p->now) || (p->reply && !(status & IPS_ASSURED)))
		return LONG_WAY;
	p->info = carried_info(status, p->reply);
	nat = nat && status & IPS_NAT_MASK;
	tell_fields(&s.state, p, c, r->zone, nat ? nat_state(status, p->reply) : 0);
	__builtin_memcpy(p->packed.w, x->w, sizeof(x->w));
	if (nat)
		translated_fields(p, c);
	p->packed.f.tracked = s.state.tracked;
	table = then->arg;
	if (table >> 31)
		return LONG_WAY;
	two = expected_behind(p, in, table);
	rule = bpf_map_lookup_elem(&rules, &two);
	if (!two || !rule)
		return LONG_WAY;
	at = READ_ONCE(rule->actions);
	then = bpf_map_lookup_elem(&entries, &at);
	if (!at || !then)
		return LONG_WAY;
	if (then->op == OP_CT_HARDWARE && then->next)
		then = behind_second(then, r->zone, status & IPS_NAT_MASK, nat);
	if (!then || then->op != OP_OUTPUT || then->next)
		return LONG_WAY;
	s.table = in->tables[0];
	counted->hit[0] += 2;
	counted->cache_hits[0] += 2;
	octets_in = in->flags & PORT_ARRIVED ? octets_arrived(skb->len, packets) : octets(skb);
	add(one, packets, octets_in);
	if (constants.tracing)
		trace(skb, EVENT_MATCH, one, s.table, 0);
	note_carried(c, p, stats, packets, x->length);
	if (nat && translate_usual(skb, p))
		return drop(&w, DROP_ACTION);
	s.table = table;
	add(two, packets, octets_in);
	if (constants.tracing)
		trace(skb, EVENT_MATCH, two, table, 0);
	tell(&w, then->arg >> 32);
	return deliver(&w, then->arg, 1);
}
