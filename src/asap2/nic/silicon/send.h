// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Send a packet out of a port, and count it for its rule. */
#pragma once

#include "eswitch.h"

/* Leave a message for the node. */
static __always_inline void tell(struct work *w, u32 resume)
{
	if (w->skb->tc_index != resume)
		w->skb->tc_index = resume;
}

static __always_inline int deliver(struct work *w, u32 slot, int last)
{
	struct port *p = bpf_map_lookup_elem(&ports, &slot);
	struct __sk_buff *skb = w->skb;
	u32 ifindex, flags;

	if (!p)
		return drop(w, DROP_OUT_PORT);
	flags = READ_ONCE(p->flags);
	ifindex = READ_ONCE(p->ifindex);
	if (!(flags & PORT_ENABLED) || !ifindex)
		return drop(w, DROP_OUT_PORT);
	if (flags & (PORT_BEHIND | PORT_BARE)) {
		if (flags & PORT_BARE && !w->s->state.no_ethernet)
			return drop(w, DROP_ACTION);
		if (flags & PORT_BEHIND)
			tell(w, p->tell);
	}
	if (constants.tracing) {
		trace(skb, EVENT_SEND, p->id, w->s->table, skb->tc_index);
		return TCX_PASS;
	}
	WATCH(skb, EVENT_SEND, p->id, w->s->table, skb->tc_index);
	if (!last) {
		if (WATCH_CLONE(skb, ifindex, flags & PORT_INGRESS ? BPF_F_INGRESS : 0))
			drop(w, DROP_OUTPUT);
		return 0;
	}
	if (flags & PORT_INGRESS)
		return bpf_redirect(ifindex, BPF_F_INGRESS);
	if (flags & PORT_PEER && !w->s->egress) {
		u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

		/* This marks the packet as for this host (PACKET_HOST), whatever its address. */
		if (flags & PORT_PEER_ANY)
			return bpf_redirect_peer(ifindex, 0);
		if (data + 6 <= end && *(u32 *)data == *(u32 *)p->mac && *(u16 *)(data + 4) == *(u16 *)(p->mac + 4))
			return bpf_redirect_peer(ifindex, 0);
	}
	return bpf_redirect(ifindex, 0);
}

/* Count as the wire does, with tags. */
static __always_inline u64 octets(struct __sk_buff *skb)
{
	return skb->len + (skb->vlan_present ? 4 : 0);
}

/*
 * Count as TC's actions do (qdisc_pkt_len): the packet as received, whatever was done to it since, without its outer
 * tag, and, for a super-packet, one header of 14 bytes for each segment, which the TC face subtracts again.
 */
static __always_inline u64 octets_arrived(u32 arrived, u64 packets)
{
	return arrived + 14 * (packets - 1);
}

static __always_inline void add_at(u32 rule, u64 packets, u64 bytes, u64 now)
{
	u32 at = (bpf_get_smp_processor_id() & (constants.shards - 1)) * constants.rules + rule;
	struct count *c = bpf_map_lookup_elem(&counts, &at);

	if (!c)
		return;
	if (constants.shared) {
		__sync_fetch_and_add(&c->packets, packets);
		__sync_fetch_and_add(&c->bytes, bytes);
	} else {
		c->packets += packets;
		c->bytes += bytes;
	}
	c->used = now;
}

static __always_inline void add(u32 rule, u64 packets, u64 bytes)
{
	add_at(rule, packets, bytes, bpf_ktime_get_coarse_ns());
}
