// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The way of most packets through the first lookup: IPv4, TCP or UDP, whole, at most a tag in the metadata, and what the
 * cache knows. It finds what lookup() would find, in fewer steps; where it cannot tell it says so.
 */
#pragma once

#include "lookup.h"
#include "send.h"

#define LONG_WAY -2

/* The rule that decides about a packet in the first table of its port; 0: it has to be looked for. */
static __always_inline u32 expected(struct __sk_buff *skb, struct port *in)
{
	u32 at = READ_ONCE(in->hints[0]);
	struct mask_list *masks = bpf_map_lookup_elem(&mask_lists, &at);
	struct cache_key key;
	struct node *merged;
	struct cached *c;
	u64 w[8], generation;

	if (!masks || masks->table != in->tables[0] || masks->in_port != in->id)
		return 0;
	generation = READ_ONCE(masks->generation);
	barrier();
	at = READ_ONCE(masks->merged);
	if (!generation || !READ_ONCE(masks->first))
		return 0;
	merged = bpf_map_lookup_elem(&nodes, &at);
	if (!merged || merged->width || !usual(skb, in->flags, w))
		return 0;
	cache_key(&key, w, merged, WIDTH_NARROW, generation);
	c = cache_find(&key, WIDTH_NARROW);
	return c ? c->rule : 0;
}

/*
 * All that becomes of a packet whose rule sends it to one port, or pushes or pops a tag first: the verdict, or LONG_WAY,
 * and then nothing has been done.
 */
__noinline int express(struct __sk_buff *skb, struct port *in)
{
	struct stats *counted = this_stats();
	struct way s = {};
	struct work w = { .skb = skb, .s = &s };
	struct entry *c, *first = 0;
	struct rule *r;
	u32 rule, at, packets = skb->gso_segs ?: 1;

	if (!in || !counted || in->flags & (PORT_METADATA | PORT_INTERNAL | PORT_BARE) ||
	    (!skb->gso_segs && skb->gso_size))
		return LONG_WAY;
	rule = expected(skb, in);
	r = bpf_map_lookup_elem(&rules, &rule);
	if (!rule || !r)
		return LONG_WAY;
	at = READ_ONCE(r->actions);
	c = bpf_map_lookup_elem(&entries, &at);
	if (!at || !c)
		return LONG_WAY;
	if ((c->op == OP_PUSH_VLAN || c->op == OP_POP_VLAN) && c->next) {
		first = c;
		at = c->next;
		c = bpf_map_lookup_elem(&entries, &at);
	}
	if (!c || c->op != OP_OUTPUT || c->next)
		return LONG_WAY;
	s.table = in->tables[0];
	at = s.table >> 31;
	counted->hit[at]++;
	counted->cache_hits[at]++;
	add(rule, packets, in->flags & PORT_ARRIVED && !at ? octets_arrived(skb->len, packets) : octets(skb));
	if (constants.tracing)
		trace(skb, EVENT_MATCH, rule, s.table, 0);
	if (first &&
	    (first->op == OP_PUSH_VLAN ? bpf_skb_vlan_push(skb, bpf_htons((u32)first->arg >> 16), (u16)first->arg) :
					 bpf_skb_vlan_pop(skb)))
		return drop(&w, DROP_ACTION);
	tell(&w, c->arg >> 32);
	return deliver(&w, c->arg, 1);
}
