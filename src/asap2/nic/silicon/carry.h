// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The NIC's part of TC's action ct: it carries the connections that software has offered (conntrack.h: offer()). A
 * packet of any other connection continues in software, at exactly this action. Modelled on the flow table of act_ct.c
 * and on mlx5's en/tc_ct.c, of Linux 6.12.
 */
#pragma once

#include "conntrack.h"

enum carried { CARRIED, NOT_CARRIED, CARRY_FAILED = -1 };

/*
 * Read the tuple of a packet whose Ethernet header is at `from`. Returns 0 if hardware cannot carry the packet: a
 * fragment, IP options, or a TTL of at most 1. Sets `p->flags` to TCP's flags.
 */
__noinline int carried_tuple(struct __sk_buff *skb, struct flight *p, u32 from)
{
	u32 l3 = from + ETH_LEN;
	u16 type;

	if (!p || from > TUNNEL_MAX || bpf_skb_load_bytes(skb, from + ETH_TYPE, &type, 2))
		return 0;
	for (int i = 0; i < 2; i++) {
		if (!is_vlan(type))
			break;
		l3 += TAG_LEN;
		if (bpf_skb_load_bytes(skb, l3 - 2, &type, 2))
			return 0;
	}
	if (type != bpf_htons(ETH_P_IP) && type != bpf_htons(ETH_P_IPV6))
		return 0;
	return flow_tuple(skb, p, l3, type == bpf_htons(ETH_P_IP) ? 4 : 6);
}

static __always_inline void note_carried(struct connection *c, u64 now, u32 reply, struct tracker_stats *stats,
					 u32 packets, u32 octets)
{
	stats->carried++;
	__sync_fetch_and_add(&c->packets[reply & 1], packets);
	__sync_fetch_and_add(&c->bytes[reply & 1], octets);
	if (c->used != now)
		keep_alive(c, now);
}

/*
 * What a NIC reports about a packet that missed in a chain: that it has a connection, its zone and its NAT bits. They
 * travel in the packet's hash, which the kernel computes again later. mlx5 puts a number for the zone into register b.
 */
static __always_inline void tell_connection(struct __sk_buff *skb, struct state *s)
{
	u32 told = CARRIED_MAGIC | (s->tracked.ct_state & (CT_SNAT | CT_DNAT)) >> 4;

	if (s->ct_known == CT_KNOWN)
		bpf_set_hash(skb, told << 16 | bpf_ntohs(s->tracked.ct_zone));
	else
		bpf_set_hash_invalid(skb);
}

static __always_inline int tells_connection(u32 told)
{
	return (told >> 16 & 0xfff0) == CARRIED_MAGIC;
}

/* Restore what the NIC reported about the packet's connection (mlx5e_tc_ct_restore_flow()). -1: it no longer exists. */
__noinline int restore(struct __sk_buff *skb, struct state *s, u32 told)
{
	struct flight *p = this_flight();
	u32 nat = told >> 12 & (CT_SNAT | CT_DNAT);
	struct connection *c;

	if (!p || !s)
		return -1;
	p->now = coarse_now_ns();
	if (!carried_tuple(skb, p, 0))
		return -1;
	p->tuple.zone = told;
	c = note_connection_after(p, nat);
	if (!c)
		return -1;
	p->info = carried_info(c->status, p->reply);
	tell_found(s, p, p->tuple.zone);
	s->tracked.ct_state |= nat;
	know(s, p);
	return 0;
}

/* Note what NAT will change of the packet inside a tunnel: p->tuple's, whose headers are at p->l3 and p->l4. */
__noinline int note_untranslated(struct __sk_buff *skb, struct flight *p)
{
	struct untranslated *u;

	if (!p)
		return -1;
	u = &p->before;
	u->l3 = p->l3;
	u->l4 = p->l4;
	u->family = p->tuple.family;
	u->check = p->tuple.proto == IPPROTO_TCP ? TCP_CHECKSUM : p->tuple.proto == IPPROTO_UDP ? UDP_CHECKSUM : 0;
	if (u->family == 4 ? bpf_skb_load_bytes(skb, u->l3 + IPV4_CHECKSUM, &u->l3_check, 2) ||
				     bpf_skb_load_bytes(skb, u->l3 + IPV4_SRC, u->addresses, 8) :
			     bpf_skb_load_bytes(skb, u->l3 + IPV6_SRC, u->addresses, 32))
		return -1;
	if (u->check && bpf_skb_load_bytes(skb, u->l4 + u->check, &u->l4_check, 2))
		return -1;
	return bpf_skb_load_bytes(skb, u->l4, &u->ports, 4) ? -1 : 0;
}

/* Give the packet inside a tunnel what it had before NAT, as the node begins anew with it. */
__noinline int undo_translation(struct __sk_buff *skb)
{
	struct flight *p = this_flight();
	struct untranslated *u;

	if (!p)
		return -1;
	u = &p->before;
	if (u->family == 4 ? bpf_skb_store_bytes(skb, u->l3 + IPV4_CHECKSUM, &u->l3_check, 2, 0) ||
				     bpf_skb_store_bytes(skb, u->l3 + IPV4_SRC, u->addresses, 8, 0) :
			     bpf_skb_store_bytes(skb, u->l3 + IPV6_SRC, u->addresses, 32, 0))
		return -1;
	if (u->check && bpf_skb_store_bytes(skb, u->l4 + u->check, &u->l4_check, 2, 0))
		return -1;
	return bpf_skb_store_bytes(skb, u->l4, &u->ports, 4, 0) ? -1 : 0;
}

/* The same of the packet that has the connection p->at; -1: failed. */
__noinline int note_carried_by(struct flight *p, u32 packets)
{
	struct tracker_stats *stats = this_tracker_stats();
	struct connection *c;

	if (!p || !stats)
		return -1;
	c = connection_at(p->at);
	if (!c)
		return -1;
	note_carried(c, p->now, p->reply, stats, packets, p->end - p->l3);
	return 0;
}

/* Do the action ct of a slot in a NIC; `f` is scratch space for the packet's fields. Returns enum carried. */
__noinline int carry(struct __sk_buff *skb, struct state *s, u32 slot, struct fields *f)
{
	struct flight *p = this_flight();
	struct encap *e;
	struct connection *c;
	struct tracking *r;
	int nat;

	if (!p || !s || !f)
		return CARRY_FAILED;
	e = bpf_map_lookup_elem(&encaps, &slot);
	if (!e)
		return CARRY_FAILED;
	r = &e->tracking;
	p->from = 0;
	if (r->flags & CT_INSIDE) {
		read_fields(skb, f, 0);
		p->from = tunnel_at(skb, f);
		if (!p->from)
			return NOT_CARRIED;
	}
	/* One lookup in a zone is enough (mlx5's pre_ct). */
	if (s->ct_known == CT_KNOWN && s->tracked.ct_zone == bpf_htons(r->zone) &&
	    is_still(s->connection, s->connection_id)) {
		c = connection_at(s->connection);
		if (!(r->flags & CT_NAT) || s->tracked.ct_state & (CT_SNAT | CT_DNAT) ||
		    (c && !(c->status & IPS_NAT_MASK)))
			return CARRIED;
	}
	p->now = coarse_now_ns();
	p->info = p->at = p->reply = p->error = 0;
	if (!carried_tuple(skb, p, p->from))
		return NOT_CARRIED;
	p->tuple.zone = r->zone;
	if (!find_carried(p))
		return NOT_CARRIED;
	if (note_carried_by(p, skb->gso_segs ?: 1))
		return CARRY_FAILED;
	tell_found(s, p, r->zone);
	know(s, p);
	c = connection_at(p->at);
	if (!c)
		return CARRY_FAILED;
	if (!(r->flags & CT_NAT) || !(c->status & IPS_NAT_MASK))
		return CARRIED;
	p->info = p->reply ? INFO_ESTABLISHED + INFO_REPLY : INFO_ESTABLISHED;
	if (p->from && !s->translated && note_untranslated(skb, p))
		return CARRY_FAILED;
	s->translated = p->from != 0;
	nat = do_nat(skb, p, r);
	if (nat < 0)
		return CARRY_FAILED;
	s->tracked.ct_state |= nat;
	return CARRIED;
}
