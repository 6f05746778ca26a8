// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A shorter path for most packets of carried connections: a first rule with the actions ct and goto, and a second rule
 * that matches on the connection and sends the packet to one port, both in the cache. Like express.h, it finds what
 * step() would find, in fewer steps; if it cannot tell, nothing has been done.
 *
 * What it has found of a packet it notes, so that the next packet like it needs one look. A note holds as long as the
 * lists of masks that led to its rules do not change, nor the actions of a rule in them, nor the state, mark and labels
 * of its connection.
 */
#pragma once

#include "carry.h"

#define NOTE_REPLY 1
#define NOTE_NAT 2

/* What becomes of a packet: two cache lines. */
struct note {
	u64 narrow[NARROW]; /* words of the packet */
	u64 generation, behind_generation; /* of the lists of masks that led to the rules; 0: nothing is noted */
	u64 labels[2];
	u64 output; /* the argument of the second rule's action */
	u32 connection, id, status, mark;
	u32 behind, masks; /* the second rule, and its list of masks */
	u32 flags;
	u32 addresses[2], ports; /* source and destination after NAT */
};
_Static_assert(sizeof(struct note) == 2 * 64, "note");

MMAPPED(notes, struct note, 1);

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

/* The rule of `table` for the packet p->packed, if it is in the cache; `n` notes how it was found. 0: it must be looked up. */
static __always_inline u32 expected_behind(struct flight *p, struct port *in, u32 table, struct note *n)
{
	u32 at = READ_ONCE(in->behind_hint), *found;
	struct mask_list *masks = bpf_map_lookup_elem(&mask_lists, &at);
	struct mask_list_id id = { .table = table, .in_port = in->id };
	struct node *merged;
	u64 generation;
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
	n->masks = at;
	n->behind_generation = generation;
	at = READ_ONCE(masks->merged);
	if (!generation || !READ_ONCE(masks->first))
		return 0;
	merged = bpf_map_lookup_elem(&nodes, &at);
	/* No rule may match on what usual() does not read. */
	if (!merged || merged->width & WIDTH_WIDE)
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

/*
 * The action after a second ct, which changes nothing about the packet's connection if this has a lookup behind it in
 * the same zone, and NAT as that action wants it (carry()); 0: it might.
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

/*
 * Find what becomes of a packet whose first rule begins with ct, and note it in `n`. 0: it must be looked up, and `n`
 * is empty.
 */
__noinline int learn(struct port *in, struct expressed *x, struct note *n, u64 now)
{
	struct flight *p = this_flight();
	struct connection *c;
	struct entry *first, *then;
	struct encap *e;
	struct rule *rule;
	u32 at, found, status, translates, nat, zone;

	if (!in || !x || !n || !p)
		return 0;
	n->generation = 0;
	at = x->rule;
	rule = bpf_map_lookup_elem(&rules, &at);
	if (!rule)
		return 0;
	at = READ_ONCE(rule->actions);
	first = bpf_map_lookup_elem(&entries, &at);
	if (!first || first->op != OP_CT_HARDWARE)
		return 0;
	at = first->next;
	then = bpf_map_lookup_elem(&entries, &at);
	if (!then || then->op != OP_GOTO || then->next || (u32)then->arg >> 31)
		return 0;
	at = first->arg;
	e = bpf_map_lookup_elem(&encaps, &at);
	if (!e || e->tracking.flags & CT_INSIDE)
		return 0;
	translates = e->tracking.flags & CT_NAT;
	zone = e->tracking.zone;
	p->now = now;
	usual_tuple(&p->tuple, &p->inverse, x->w, zone);
	found = usual_connection(p, translates);
	c = connection_at(found >> 1);
	if (!found || !c)
		return 0;
	p->reply = found & 1;
	status = READ_ONCE(c->status);
	if (!(status & IPS_HW_OFFLOAD) || c->master || is_idle(c, now) || (p->reply && !(status & IPS_ASSURED)))
		return 0;
	p->info = carried_info(status, p->reply);
	nat = translates && status & IPS_NAT_MASK;
	n->connection = found >> 1;
	n->id = c->id;
	n->status = status;
	n->flags = (p->reply ? NOTE_REPLY : 0) | (nat ? NOTE_NAT : 0);
	__builtin_memcpy(p->packed.w, x->w, sizeof(x->w));
	tracked_fields(&p->packed.f.tracked, p, c, zone, nat ? nat_state(status, p->reply) : 0);
	n->mark = bpf_ntohl(p->packed.f.ct_mark);
	__builtin_memcpy(n->labels, p->packed.f.ct_labels, 16);
	if (nat)
		translated_fields(p, c);
	__builtin_memcpy(&n->addresses[0], p->packed.f.ip_src + 12, 4);
	__builtin_memcpy(&n->addresses[1], p->packed.f.ip_dst + 12, 4);
	__builtin_memcpy(&n->ports, &p->packed.f.l4_src, 4);
	n->behind = expected_behind(p, in, then->arg, n);
	at = n->behind;
	rule = bpf_map_lookup_elem(&rules, &at);
	if (!at || !rule)
		return 0;
	at = READ_ONCE(rule->actions);
	then = bpf_map_lookup_elem(&entries, &at);
	if (!at || !then)
		return 0;
	if (then->op == OP_CT_HARDWARE && then->next)
		then = behind_second(then, zone, status & IPS_NAT_MASK, nat);
	if (!then || then->op != OP_OUTPUT || then->next)
		return 0;
	n->output = then->arg;
#pragma unroll
	for (int i = 0; i < NARROW; i++)
		n->narrow[i] = x->w[NARROW_AT(i)];
	n->generation = x->generation;
	return 1;
}

/* The place for the note on a packet. */
static __always_inline struct note *note_for(const struct expressed *x)
{
	u64 hash = 0;
	u32 at;

#pragma unroll
	for (int i = 0; i < NARROW; i++)
		hash = (hash ^ x->w[NARROW_AT(i)]) * HASH_MIX;
	at = bpf_get_smp_processor_id() * constants.notes + (hash >> 40 & (constants.notes - 1));
	return bpf_map_lookup_elem(&notes, &at);
}

/* Whether the note is about the packet, and the rules are the same. */
static __always_inline int is_noted(const struct note *n, const struct expressed *x)
{
	u64 differ = n->generation ^ x->generation;
	struct mask_list *masks;
	u32 at = n->masks;

#pragma unroll
	for (int i = 0; i < NARROW; i++)
		differ |= n->narrow[i] ^ x->w[NARROW_AT(i)];
	if (differ)
		return 0;
	masks = bpf_map_lookup_elem(&mask_lists, &at);
	return masks && READ_ONCE(masks->generation) == n->behind_generation;
}

/* The connection in the note, if it is as it was noted; 0: it is not, or has expired. */
static __always_inline struct connection *noted_connection(const struct note *n, u64 now)
{
	struct connection *c = connection_at(n->connection);
	u64 labels[2];

	if (!c || c->id != n->id || READ_ONCE(c->status) != n->status || c->mark != n->mark ||
	    READ_ONCE(c->expires) <= now || is_idle(c, now))
		return 0;
	__builtin_memcpy(labels, c->labels, 16);
	return labels[0] == n->labels[0] && labels[1] == n->labels[1] ? c : 0;
}

/* Replace the addresses and ports of the packet with those of the note. -1: failed. */
static __always_inline int translate_usual(struct __sk_buff *skb, const struct expressed *x, const struct note *n)
{
	u32 check = ETH_LEN + IPV4_LEN + (x->udp ? UDP_CHECKSUM : TCP_CHECKSUM);
	const struct fields_head *f = (const struct fields_head *)x->w;
	u64 flags = x->udp ? BPF_F_MARK_MANGLED_0 : 0, difference;
	u32 old[2], ports;
	struct {
		u16 check;
		u32 addresses[2], ports;
	} __attribute__((packed)) header; /* the end of the IPv4 header, and what follows it */

	__builtin_memcpy(&old[0], f->ip_src + 12, 4);
	__builtin_memcpy(&old[1], f->ip_dst + 12, 4);
	__builtin_memcpy(&ports, &f->l4_src, 4);
	difference = (u64)~old[0] + ~old[1] + n->addresses[0] + n->addresses[1];
	difference = (difference & 0xffffffff) + (difference >> 32);
	difference = (difference & 0xffffffff) + (difference >> 32);
	/* Never 0, as in the kernel (csum_replace_by_diff()). */
	header.check = ~folded(0xffff + (u16)~x->check + (difference & 0xffff) + (difference >> 16));
	header.addresses[0] = n->addresses[0];
	header.addresses[1] = n->addresses[1];
	header.ports = n->ports;
	if (bpf_skb_store_bytes(skb, ETH_LEN + IPV4_CHECKSUM, &header, sizeof(header), 0) ||
	    bpf_l4_csum_replace(skb, check, 0, difference, flags | BPF_F_PSEUDO_HDR))
		return -1;
	return ports != n->ports && bpf_l4_csum_replace(skb, check, ports, n->ports, flags | 4) ? -1 : 0;
}

/* Handle a packet whose first rule begins with ct. Returns the verdict, or LONG_WAY if nothing has been done. */
__noinline int express_carry(struct __sk_buff *skb, struct port *in)
{
	struct stats *counted = this_stats();
	struct tracker_stats *stats = this_tracker_stats();
	struct way s = {};
	struct work w = { .skb = skb, .s = &s };
	struct connection *c = 0;
	struct note *n;
	u32 zero = 0, packets = skb->gso_segs ?: 1;
	struct expressed *x = bpf_map_lookup_elem(&expressed, &zero);
	u64 now = coarse_now_ns(), octets_in;

	n = x ? note_for(x) : 0;
	if (!in || !counted || !stats || !x || !n)
		return LONG_WAY;
	if (is_noted(n, x))
		c = noted_connection(n, now);
	if (!c) {
		if (!learn(in, x, n, now))
			return LONG_WAY;
		c = noted_connection(n, now);
	}
	if (!c)
		return LONG_WAY;
	s.table = in->tables[0];
	counted->hit[0] += 2;
	counted->cache_hits[0] += 2;
	octets_in = in->flags & PORT_ARRIVED ? octets_arrived(skb->len, packets) : octets(skb);
	add_at(x->rule, packets, octets_in, now);
	if (constants.tracing)
		trace(skb, EVENT_MATCH, x->rule, s.table, 0);
	WATCH(skb, EVENT_MATCH, x->rule, s.table, 0);
	WATCH(skb, EVENT_TRACK, CARRIED, s.table, n->connection);
	note_carried(c, now, n->flags & NOTE_REPLY, stats, packets, x->length);
	if (n->flags & NOTE_NAT && translate_usual(skb, x, n))
		return drop(&w, DROP_ACTION);
	add_at(n->behind, packets, octets_in, now);
	if (constants.tracing) {
		u32 at = n->masks;
		struct mask_list *masks = bpf_map_lookup_elem(&mask_lists, &at);

		s.table = masks ? masks->table : 0;
		trace(skb, EVENT_MATCH, n->behind, s.table, 0);
	}
	WATCH(skb, EVENT_MATCH, n->behind, 0, 0);
	tell(&w, n->output >> 32);
	return deliver(&w, n->output, 1);
}
