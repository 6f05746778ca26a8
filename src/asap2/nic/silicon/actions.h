// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Action lists: what is done with a packet once its rule is found. */
#pragma once

#include "carry.h"
#include "meter.h"
#include "sample.h"
#include "upcall.h"
#include "vlan.h"

enum transformed { UNCHANGED = 0, CHANGED = 1, RELEASED = 2 };

/*
 * Pass the packet to the network stack. A peer redirect marks every packet as "for this host"; set the type by the
 * address again, as eth_type_trans() does. At egress, the copy for packet sockets was made before.
 */
static __always_inline int pass(struct work *w)
{
	struct __sk_buff *skb = w->skb;

	if (constants.tracing) {
		trace(skb, EVENT_PASS, 0, w->s->table, 0);
		return TCX_PASS;
	}
	WATCH(skb, EVENT_PASS, w->s->egress, w->s->table, 0);
	if (w->s->egress)
		return TCX_DROP;
	if (w->in->flags & PORT_PEER_ANY) {
		u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

		if (data + 6 <= end &&
		    (*(u32 *)data != *(u32 *)w->in->mac || *(u16 *)(data + 4) != *(u16 *)(w->in->mac + 4)))
			bpf_skb_change_type(skb, *(u32 *)data == 0xffffffff && *(u16 *)(data + 4) == 0xffff ?
							 PACKET_BROADCAST :
						 data[0] & 1 ? PACKET_MULTICAST :
							       PACKET_OTHERHOST);
	}
	return TCX_NEXT;
}

/*
 * Do one action that changes the packet, whose outermost fields are `f` if `known`. Returns what has changed (enum
 * transformed), or -1. `flags` are those of the port that received it.
 */
__noinline int transform(struct __sk_buff *skb, struct fields *f, u32 op, u64 arg, u32 flags)
{
	if (!f)
		return -1;
	switch (op & 0xff) {
	case OP_PUSH_VLAN:
		return bpf_skb_vlan_push(skb, bpf_htons((u32)arg >> 16), (u16)arg) ? -1 : CHANGED;
	case OP_POP_VLAN:
		return bpf_skb_vlan_pop(skb) ? -1 : CHANGED;
	case OP_MODIFY_VLAN:
		return modify_vlan(skb, arg) ? -1 : CHANGED;
	case OP_SET:
	case OP_ADD:
		read_fields(skb, f, 0);
		return rewrite(skb, f, op, arg) < 0 ? -1 : CHANGED;
	case OP_ENCAP:
		return encapsulate(skb, arg);
	case OP_DECAP:
		return flags & PORT_METADATA ? RELEASED : decapsulate(skb, f);
	case OP_SET_TUNNEL:
		return set_tunnel(skb, arg) ? -1 : RELEASED;
	default:
		return -1;
	}
}

/* The packet has changed: forget what was known of it. */
static __always_inline void changed(struct work *w)
{
	w->s->parsed = PARSED_NOT;
	if (w->s->inner != METADATA)
		w->s->inner = UNKNOWN;
}

/*
 * Prepare an output: truncate the packet as an earlier action said; unless this action is the `last`, send a copy by
 * the entry `single` in place of the packet. 1: the copy was sent; -1: failed.
 */
__noinline int shorten(struct __sk_buff *skb, struct state *state, u64 place, u32 single)
{
	u32 limit, len = skb->len;

	if (!state)
		return -1;
	limit = state->max_len + (state->no_ethernet ? 14 : 0);
	if (untagged_length(skb, len) <= limit)
		return 0;
	if (single)
		return copy(skb, state, place, place >> 32, single | SINGLE) ? -1 : 1;
	return bpf_skb_change_tail(skb, limit + (len - untagged_length(skb, len)), 0) ? -1 : 0;
}

/* Whether a port sends packets without an Ethernet header, and no others. */
static __always_inline int takes_bare(u32 slot)
{
	struct port *port = bpf_map_lookup_elem(&ports, &slot);

	return port && READ_ONCE(port->flags) & PORT_BARE;
}

/* Send the packet out of the port that the entry names. */
static __always_inline void output(struct work *w, struct entry *c, int last)
{
	int verdict;

	w->s->sent = 1;
	if (w->s->state.no_ethernet && !takes_bare(c->arg)) {
		w->s->verdict = drop(w, DROP_ACTION);
		w->s->state.max_len = 0;
		return;
	}
	if (w->s->state.max_len) {
		changed(w);
		verdict = shorten(w->skb, &w->s->state, (u64)w->s->table << 32 | w->in->slot, last ? 0 : w->s->entry);
		w->s->state.max_len = 0;
		if (verdict < 0)
			w->s->verdict = drop(w, last ? DROP_TRUNCATE : DROP_COPY);
		if (verdict)
			return;
	}
	/* The upper half tells the node what to do with it. */
	tell(w, c->arg >> 32);
	verdict = deliver(w, c->arg, last);
	if (last)
		w->s->verdict = verdict;
	else
		tell(w, 0);
}

/* Whether a reassembled packet must be fragmented again before it leaves by this port. */
static __always_inline int is_to_be_cut(struct work *w)
{
	return w->s->state.mru && w->skb->len > w->s->state.mru + 14;
}

static long act(u32 i, struct work *w)
{
	u32 at = w->s->entry;
	struct entry *c = bpf_map_lookup_elem(&entries, &at);
	u32 kind = UPCALL_ACTION;
	struct port *port;
	int last, verdict;
	u32 slot, following, nested, op, stage;

	if (!c)
		return 1;
	last = c->next == 0 || w->s->state.single;
	following = c->next;
	op = c->op & 0xff;
	/* Only these leave the packet and the per-CPU state of it alone. */
	if (op != OP_CT_HARDWARE && op != OP_CT_CLEAR && op != OP_GOTO && op != OP_LOOK_ON && op != OP_ENTER)
		w->s->state.translated = 0;
	switch (op) {
	case OP_OUTPUT:
		if (!is_to_be_cut(w)) {
			output(w, c, last);
			break;
		}
		kind = UPCALL_CUT;
		/* fallthrough */
	case OP_UPCALL:
		verdict = upcall(w, kind, c->arg, last);
		if (last)
			w->s->verdict = verdict;
		w->s->state.max_len = 0;
		w->s->sent = 1;
		break;
	case OP_PSAMPLE:
		if (sample(w->skb, &w->s->state, c->arg, w->in->slot))
			w->s->sent = 1;
		w->s->state.max_len = 0;
		break;
	case OP_TRUNCATE:
		w->s->state.max_len = c->arg;
		break;
	case OP_GOTO:
		w->s->table = c->arg;
		w->s->resume = c->arg >> 32;
		w->s->flow = FLOW_GOTO;
		return 1;
	case OP_ENTER:
		slot = c->arg;
		port = bpf_map_lookup_elem(&ports, &slot);
		/* Limits apply to what the device itself receives. */
		stage = port && port->tables[0] == LIMITS;
		if (!port || !(READ_ONCE(port->flags) & PORT_ENABLED) || port->n_tables <= stage) {
			w->s->verdict = drop(w, DROP_OUT_PORT);
			w->s->sent = 1;
			return 1;
		}
		w->in = port;
		w->s->slot = slot;
		w->s->state.stage = stage;
		w->s->table = port->tables[stage & 1];
		w->s->resume = c->arg >> 32;
		w->s->flow = FLOW_GOTO;
		return 1;
	case OP_LOOK_ON:
		w->s->first = c->arg;
		w->s->flow = FLOW_GOTO;
		return 1;
	case OP_PASS:
		w->s->flow = FLOW_PASS;
		return 1;
	case OP_DROP:
		w->s->verdict = drop(w, DROP_RULE);
		w->s->sent = 1;
		return 1;
	case OP_METER:
		if (over_limit(w->skb, &w->s->state, c->arg >> 32)) {
			following = c->arg;
			last = following == 0;
		}
		break;
	case OP_CT:
		/* Not from here: the verifier allows 8 nested calls, and tracking needs six. */
		w->s->tracking = c->arg;
		w->s->entry = last ? 0 : following;
		w->s->flow = FLOW_TRACK;
		return 1;
	case OP_CT_HARDWARE:
		w->s->tracking = c->arg;
		w->s->entry = last ? 0 : following;
		w->s->flow = FLOW_CARRY;
		return 1;
	case OP_CT_CLEAR:
		untrack(&w->s->state);
		changed(w);
		break;
	case OP_CLONE:
	case OP_SAMPLE:
	case OP_CHECK_LENGTH:
	case OP_DEC_TTL:
	case OP_HASH:
	case OP_SET_META:
	case OP_PUSH_MPLS:
	case OP_POP_MPLS:
	case OP_PUSH_ETHERNET:
	case OP_POP_ETHERNET:
	case OP_PUSH_NSH:
	case OP_POP_NSH:
	case OP_CHANCE:
	case OP_SWAP_ETHERNET:
	case OP_SET_ETHERTYPE:
	case OP_CONGEST:
		nested = c->arg;
		verdict = op == OP_CLONE ? BRANCH : rare(w->skb, &w->s->p.f, &w->s->state, c->op, c->arg);
		if (verdict < 0)
			goto failed;
		if (op != OP_CLONE && op != OP_SAMPLE && op != OP_CHECK_LENGTH)
			changed(w);
		if (verdict != BRANCH)
			break;
		if (op == OP_CLONE || (op == OP_SAMPLE && !last)) {
			if (copy(w->skb, &w->s->state, w->in->slot, w->s->table, nested))
				drop(w, DROP_COPY);
			w->s->sent = 1;
		} else {
			following = nested;
			last = following == 0;
		}
		break;
	default:
		verdict = transform(w->skb, &w->s->p.f, c->op, c->arg, w->in->flags);
		if (verdict < 0)
			goto failed;
		if (op == OP_SET_TUNNEL)
			w->s->state.given_tunnel = c->arg;
		if (op == OP_ENCAP)
			w->s->state.enveloped = 1;
		if (verdict & RELEASED) {
			w->s->state.released = 1;
			w->s->inner = UNKNOWN;
		}
		changed(w);
	}
	w->s->entry = following;
	return last;
failed:
	w->s->verdict = drop(w, DROP_ACTION);
	w->s->sent = 1;
	return 1;
}

/* Do the action list that starts at s->entry. */
__noinline int perform(struct __sk_buff *skb, struct way *s)
{
	struct work w = { .skb = skb, .s = s };
	u32 slot;

	if (!s)
		return 0;
	slot = s->slot;
	w.in = bpf_map_lookup_elem(&ports, &slot);
	if (s->flow != FLOW_TRACK && s->flow != FLOW_CARRY)
		s->sent = 0;
	s->flow = FLOW_DONE;
	s->verdict = TCX_DROP;
	if (s->entry && w.in)
		bpf_loop(ACTIONS, act, &w, 0);
	if (s->flow == FLOW_DONE && !s->sent)
		drop(&w, DROP_RULE);
	return 0;
}
