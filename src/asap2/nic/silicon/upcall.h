// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Packets for user space. */
#pragma once

#include "eswitch.h"

/* Count a packet that user space should have received. */
static __always_inline int lost(struct work *w)
{
	__sync_fetch_and_add(&w->in->refused, 1);
	return drop(w, DROP_UPCALL);
}

/* ARP and neighbour discovery, without which established traffic would stop. */
static __always_inline int about_neighbours(const struct fields *f)
{
	u32 kind = bpf_ntohs(f->l4_src);

	return f->eth_type == bpf_htons(ETH_P_ARP) ||
	       (f->eth_type == bpf_htons(ETH_P_IPV6) && f->ip_proto == 58 && kind >= 133 && kind <= 137);
}

/*
 * Whether a port has no room left for packets to user space, whose memory and time all ports share. Some room is kept
 * for neighbour discovery, because the port may be a wire with many guests behind it. If such packets are lost unseen,
 * room would never come back, so one packet may try from time to time.
 */
static __always_inline int full(struct work *w, u32 limit, u64 now)
{
	s64 waiting = READ_ONCE(w->in->given) - READ_ONCE(w->in->taken);

	if (!limit || waiting < (s64)limit)
		return 0;
	if (waiting < (s64)limit + UPCALL_RESERVE(limit) && about_neighbours(&w->s->p.f))
		return 0;
	return constants.tracing || now - READ_ONCE(w->in->since) < UPCALL_PATIENCE;
}

/*
 * Why user space gets a packet. The last three stay within our own daemon: it reassembles fragments, fragments packets
 * again, and runs the helpers of connection tracking.
 */
enum upcall_kind { UPCALL_MISS, UPCALL_ACTION, UPCALL_FRAGMENT, UPCALL_CUT, UPCALL_HELPER };

static __always_inline int upcall(struct work *w, u32 kind, u64 cookie, int last)
{
	struct __sk_buff *skb = w->skb;
	u32 zero = 0, at, mark, ifindex, old, units;
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct upcall *u;
	u64 now;

	if (!c)
		return lost(w);
	ifindex = READ_ONCE(c->upcall_ifindex);
	now = bpf_ktime_get_ns();
	if (!ifindex)
		return lost(w);
	if (w->in->flags & PORT_METADATA && !w->s->state.released && has_metadata(skb)) {
		w->s->inner = METADATA;
		parse_tunnel(w);
	} else {
		parse(w);
	}
	if (full(w, READ_ONCE(c->upcall_limit), now))
		return lost(w);
	mark = UPCALL_MAGIC | (__sync_fetch_and_add(&c->upcalls, 1) & UPCALL_SEQ);
	at = mark & (UPCALL_SLOTS - 1);
	u = bpf_map_lookup_elem(&upcalls, &at);
	if (!u)
		return lost(w);
	units = 1 + (skb->len + (skb->vlan_present ? 4 : 0)) / UPCALL_UNIT;
	w->in->since = now;
	u->mark = 0;
	u->kind = kind;
	u->in_port = w->in->id;
	u->table = w->s->table;
	u->cookie = cookie;
	u->hash = bpf_get_hash_recalc(skb);
	u->len = skb->len;
	u->max_len = w->s->state.max_len;
	u->units = units;
	u->mru = w->s->state.mru;
	u->tunnel = w->s->state.given_tunnel;
	u->at = __sync_fetch_and_add(&w->in->given, units) + units;
	__builtin_memcpy(&u->key, &w->s->p, sizeof(w->s->p));
	u->options_len = 0;
	if (w->s->inner == METADATA && w->s->p.f.in_tunnel && w->s->p.f.tun_opts_len)
		u->options_len = bpf_skb_get_tunnel_opt(skb, u->options, sizeof(u->options));
	barrier();
	u->mark = mark;
	if (constants.tracing) {
		trace(skb, EVENT_UPCALL, mark, w->s->table, cookie);
		return TCX_PASS;
	}
	WATCH(skb, EVENT_UPCALL, mark, w->s->table, kind);
	/* User space counts what is lost from here on, by gaps in `at`. */
	old = skb->mark;
	skb->mark = mark;
	if (last)
		return bpf_redirect(ifindex, 0);
	WATCH_CLONE(skb, ifindex, 0);
	skb->mark = old;
	return 0;
}
