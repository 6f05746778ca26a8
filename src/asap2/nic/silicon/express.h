// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A shorter path for most packets: IPv4, TCP or UDP, not a fragment, at most one tag, in the metadata, and a rule in
 * the cache. It finds what lookup() would find, in fewer steps, and reports if it cannot tell.
 */
#pragma once

#include "lookup.h"
#include "send.h"

#define LONG_WAY -2
#define CARRY_WAY -3 /* continue in express_carry.h */

/* A packet whose rule tracks its connection. */
struct expressed {
	u64 w[8];
	u64 generation; /* of the list of masks that led to the rule */
	u32 rule, length; /* length: octets from the network header on */
	u16 check; /* of the IPv4 header */
	u8 udp;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct expressed);
} expressed SEC(".maps");

/* Whether hardware can carry such a packet: a TTL above 1, no FIN or RST, not truncated. */
static __always_inline int leave_for_carry(struct __sk_buff *skb, const u64 *w, u32 rule, u64 generation)
{
	u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *ip = data + ETH_LEN,
	   *l4 = ip + IPV4_LEN;
	u32 zero = 0, length, least;
	struct expressed *x = bpf_map_lookup_elem(&expressed, &zero);

	if (!x || l4 + TCP_LEN > end || ip[IPV4_TTL] <= 1)
		return LONG_WAY;
	length = bpf_ntohs(*(u16 *)(ip + IPV4_TOTAL_LENGTH));
	least = IPV4_LEN + (ip[IPV4_PROTOCOL] == IPPROTO_TCP ? TCP_LEN : UDP_LEN);
	if (length < least || ETH_LEN + length > skb->len ||
	    (ip[IPV4_PROTOCOL] == IPPROTO_TCP && l4[TCP_FLAGS] & TCP_FIN_OR_RST))
		return LONG_WAY;
	__builtin_memcpy(x->w, w, sizeof(x->w));
	x->generation = generation;
	x->rule = rule;
	x->length = length;
	x->check = *(u16 *)(ip + IPV4_CHECKSUM);
	x->udp = ip[IPV4_PROTOCOL] == IPPROTO_UDP;
	return CARRY_WAY;
}

/*
 * The rule for a packet with the words `w` in the first table of its port, and the generation of the list of masks that
 * led to it; 0: it must be looked up.
 */
static __always_inline u32 expected(struct port *in, const u64 *w, u64 *of)
{
	u32 at = READ_ONCE(in->hints[0]);
	struct mask_list *masks = bpf_map_lookup_elem(&mask_lists, &at);
	struct cache_key key;
	struct node *merged;
	struct cached *c;
	u64 generation;

	if (!masks || masks->table != in->tables[0] || masks->in_port != in->id)
		return 0;
	*of = generation = READ_ONCE(masks->generation);
	barrier();
	at = READ_ONCE(masks->merged);
	if (!generation || !READ_ONCE(masks->first))
		return 0;
	merged = bpf_map_lookup_elem(&nodes, &at);
	if (!merged || merged->width & WIDTH_WIDE)
		return 0;
	if (merged->width) {
		cache_key(&key, w, merged, WIDTH_TRACKED | UNTRACKED, generation);
		c = cache_find(&key, WIDTH_TRACKED | UNTRACKED);
	} else {
		cache_key(&key, w, merged, WIDTH_NARROW, generation);
		c = cache_find(&key, WIDTH_NARROW);
	}
	return c ? c->rule : 0;
}

/*
 * Handle a packet whose rule sends it to one port, perhaps after pushing or popping a tag. Returns the verdict, or
 * LONG_WAY, in which case nothing has been done.
 */
__noinline int express(struct __sk_buff *skb, struct port *in)
{
	struct stats *counted = this_stats();
	struct way s = {};
	struct work w = { .skb = skb, .s = &s };
	struct entry *c, *first = 0;
	struct rule *r;
	u32 rule, at, packets = skb->gso_segs ?: 1;
	u64 words[8], generation = 0;

	if (!in || !counted || in->flags & (PORT_METADATA | PORT_INTERNAL | PORT_BARE) ||
	    (!skb->gso_segs && skb->gso_size) || !usual(skb, in->flags, words))
		return LONG_WAY;
	rule = expected(in, words, &generation);
	r = bpf_map_lookup_elem(&rules, &rule);
	if (!rule || !r)
		return LONG_WAY;
	at = READ_ONCE(r->actions);
	c = bpf_map_lookup_elem(&entries, &at);
	if (!at || !c)
		return LONG_WAY;
	if (c->op == OP_CT_HARDWARE)
		return leave_for_carry(skb, words, rule, generation);
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
	WATCH(skb, EVENT_MATCH, rule, s.table, 0);
	if (first &&
	    (first->op == OP_PUSH_VLAN ? bpf_skb_vlan_push(skb, bpf_htons((u32)first->arg >> 16), (u16)first->arg) :
					 bpf_skb_vlan_pop(skb)))
		return drop(&w, DROP_ACTION);
	tell(&w, c->arg >> 32);
	return deliver(&w, c->arg, 1);
}
