// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The flow table of TC's action ct: packets of the connections that it has offered to hardware. A NIC carries them; those
 * that reach software pass by its flow table, too, without a look at TCP's flags and windows, until a FIN or RST. Modelled on
 * tcf_ct_flow_table_lookup() of act_ct.c, Linux 6.12.
 */
#pragma once

#include "ct_known.h"

/* Whether TC offers such a connection to hardware (act_ct.c: tcf_ct_flow_table_process_conn()). */
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

/* Return the connection to software (flow_offload_teardown()). */
static __always_inline void take_back(struct connection *c)
{
	__sync_fetch_and_and(&c->status, ~(IPS_OFFLOAD | IPS_HW_OFFLOAD));
}

/* Whether hardware has not used the connection for so long that software takes it back. */
static __always_inline int is_idle(struct connection *c, u64 now)
{
	return READ_ONCE(c->used) + HARDWARE_IDLE * SECOND <= now;
}

/*
 * Read the tuple of a packet whose network header is at `l3`. Returns 0 if the flow table does not take the packet: a
 * fragment, IP options, or a TTL of at most 1. Sets `p->flags` to TCP's flags.
 */
__noinline int flow_tuple(struct __sk_buff *skb, struct flight *p, u32 l3, u32 family)
{
	u32 l4, length, least;
	u8 h[IPV4_LEN];

	if (!p)
		return 0;
	__builtin_memset(p->tuple.src, 0, 32);
	p->tuple.family = family;
	if (family == 4) {
		if (bpf_skb_load_bytes(skb, l3, h, IPV4_LEN) || h[0] != IPV4_WITHOUT_OPTIONS ||
		    *(u16 *)(h + IPV4_FRAGMENT) & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS) || h[IPV4_TTL] <= 1)
			return 0;
		p->tuple.proto = h[IPV4_PROTOCOL];
		__builtin_memcpy(p->tuple.src + 12, h + IPV4_SRC, 4);
		__builtin_memcpy(p->tuple.dst + 12, h + IPV4_DST, 4);
		l4 = l3 + IPV4_LEN;
		length = bpf_ntohs(*(u16 *)(h + IPV4_TOTAL_LENGTH));
	} else {
		if (bpf_skb_load_bytes(skb, l3, h, 8) || bpf_skb_load_bytes(skb, l3 + IPV6_SRC, p->tuple.src, 32) ||
		    h[IPV6_HOP_LIMIT] <= 1)
			return 0;
		p->tuple.proto = h[IPV6_NEXT_HEADER];
		l4 = l3 + IPV6_LEN;
		length = IPV6_LEN + bpf_ntohs(*(u16 *)(h + IPV6_PAYLOAD_LENGTH));
	}
	p->l3 = l3;
	p->l4 = l4;
	p->end = l3 + length < skb->len ? l3 + length : skb->len;
	p->fragment = 0;
	p->flags = 0;
	least = p->tuple.proto == IPPROTO_TCP ? TCP_LEN : p->tuple.proto == IPPROTO_UDP ? UDP_LEN : 4;
	if (p->tuple.proto != IPPROTO_TCP && p->tuple.proto != IPPROTO_UDP && p->tuple.proto != IPPROTO_GRE)
		return 0;
	if (l4 + least > p->end || !ports_at(skb, &p->tuple, l4, p->end))
		return 0;
	if (p->tuple.proto == IPPROTO_TCP && bpf_skb_load_bytes(skb, l4 + TCP_FLAGS, &p->flags, 1))
		return 0;
	return !(p->tuple.proto == IPPROTO_GRE && (p->tuple.src_port || p->tuple.dst_port));
}

/* What hardware says of a packet of a connection in this state: it knows of no related ones. */
static __always_inline u32 carried_info(u32 status, u32 reply)
{
	return reply ? INFO_ESTABLISHED + INFO_REPLY : status & IPS_SEEN_REPLY ? INFO_ESTABLISHED : INFO_NEW;
}

/* The timeout of a connection, as if software had seen the packet. */
static __always_inline void keep_alive(struct connection *c, u64 now)
{
	u32 proto = c->original.proto, state;
	u32 own = proto == IPPROTO_TCP ? POLICY_TCP : proto == IPPROTO_UDP ? POLICY_UDP : POLICY_GRE;
	struct policy *timeouts = timeouts_of(c, own);
	u64 expires;

	if (!timeouts)
		return;
	state = proto == IPPROTO_TCP ? TCP_ESTABLISHED : c->status & IPS_ASSURED ? UDP_REPLIED : UDP_UNREPLIED;
	expires = now + timeouts->seconds[state & (POLICY_TIMEOUTS - 1)] * SECOND;
	if (expires > READ_ONCE(c->expires))
		c->expires = expires;
	c->used = now;
}

/* Whether hardware carries the connection of p->tuple; its record is then p->at. */
__noinline int find_carried(struct flight *p)
{
	struct connection *c;
	u32 status;

	if (!p || !invert(&p->tuple, &p->inverse))
		return 0;
	c = note_connection(p);
	if (!c)
		return 0;
	status = READ_ONCE(c->status);
	if (!(status & IPS_HW_OFFLOAD))
		return 0;
	if (p->flags & TCP_FIN_OR_RST || is_idle(c, p->now)) {
		take_back(c);
		return 0;
	}
	/* UDP replies belong to software until the connection is assured. */
	if (p->reply && !(status & IPS_ASSURED))
		return 0;
	p->info = carried_info(status, p->reply);
	return 1;
}

/* Whether software finds p->tuple in the flow table: its connection is then p->at, and the packet is counted. */
__noinline int follow_flow(struct flight *p)
{
	struct connection *c;

	if (!p || !find_carried(p))
		return 0;
	c = connection_at(p->at);
	/* The tracker promotes a connection to assured. */
	if (!c || !(c->status & IPS_ASSURED))
		return 0;
	account(c, p, p->reply);
	if (c->used != p->now)
		keep_alive(c, p->now);
	return 1;
}
