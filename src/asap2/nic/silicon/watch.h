// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Tell user space of each step of each packet, in the second build of the program (-DASAP2_TRACE). It has the maps of the
 * first, and takes its place while somebody watches. In the first build all of this is nothing.
 *
 * A packet never waits for who reads: a record for which the ring buffer has no room is counted, and lost.
 */
#pragma once

#ifndef ASAP2_TRACE

#define WATCH(skb, event, arg, table, cookie)
#define WATCH_CONNECTION(skb, event, arg, table, state)
#define WATCH_CLONE(skb, ifindex, flags) bpf_clone_redirect(skb, ifindex, flags)
#define WATCH_ENTER(skb, in)
#define WATCH_ONWARD(skb, slot, is_copy)

#else

struct watched {
	u64 now; /* ns of CLOCK_MONOTONIC */
	u64 way; /* of the packet through this program: a number that no other has on this node */
	u64 cookie;
	u32 event, arg, table, pipeline;
	u32 len, kept; /* octets of the packet, and of those that follow */
	u32 vlan; /* a tag in the metadata: tpid << 16 | tci, host order; 0: none */
	u32 segments;
	u32 mark, tunnel; /* tunnel: bytes of a tunnel address, 4 or 16; 0: no tunnel metadata */
	struct bpf_tunnel_key key;
};

/* Of one CPU. */
struct watching {
	u64 way, ways; /* of the packet now, and the last that was given */
	u64 lost; /* records */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} watched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct watching);
} watching SEC(".maps");

/* Write the record, with room for so many octets of the packet. */
static __always_inline void put_watched(struct __sk_buff *skb, struct watching *here, u32 event, u32 arg, u32 table,
					u64 cookie, u32 kept, const u32 room)
{
	struct watched *w = bpf_ringbuf_reserve(&watched, sizeof(struct watched) + room, 0);

	if (!w) {
		here->lost++;
		return;
	}
	w->now = bpf_ktime_get_ns();
	w->way = here->way;
	w->cookie = cookie;
	w->event = event;
	w->arg = arg;
	w->table = table;
	w->pipeline = constants.pipeline;
	w->len = skb->len;
	w->vlan = skb->vlan_present ? (u32)bpf_ntohs((u16)skb->vlan_proto) << 16 | (skb->vlan_tci & 0xffff) : 0;
	w->segments = skb->gso_segs;
	w->mark = skb->mark;
	w->tunnel = 0;
	w->kept = 0;
	if (room && is_length(kept, room) && !bpf_skb_load_bytes(skb, 0, (u8 *)(w + 1), kept))
		w->kept = kept;
	if (event == EVENT_ENTER || event == EVENT_SEND) {
		if (!bpf_skb_get_tunnel_key(skb, &w->key, sizeof(w->key), BPF_F_TUNINFO_FLAGS))
			w->tunnel = 4;
		else if (!bpf_skb_get_tunnel_key(skb, &w->key, sizeof(w->key),
						 BPF_F_TUNINFO_FLAGS | BPF_F_TUNINFO_IPV6))
			w->tunnel = 16;
	}
	bpf_ringbuf_submit(w, 0);
}

/* An event of the packet; those that do not end or begin something have none of its octets. */
__noinline int watch(struct __sk_buff *skb, u32 event, u32 arg, u32 table, u64 cookie)
{
	u32 zero = 0, kept = skb->len;
	struct watching *here = bpf_map_lookup_elem(&watching, &zero);

	if (!here)
		return 0;
	if (event == EVENT_ENTER || event == EVENT_ONWARD)
		here->way = (u64)bpf_get_smp_processor_id() << 48 | ++here->ways;
	if (event == EVENT_MATCH || event == EVENT_NO_MATCH || event == EVENT_TRACK) {
		put_watched(skb, here, event, arg, table, cookie, 0, 0);
		return 0;
	}
	if (kept > constants.most)
		kept = constants.most;
	if (kept <= WATCH_SHORT)
		put_watched(skb, here, event, arg, table, cookie, kept, WATCH_SHORT);
	else if (kept <= WATCH_USUAL)
		put_watched(skb, here, event, arg, table, cookie, kept, WATCH_USUAL);
	else
		put_watched(skb, here, event, arg, table, cookie, kept < WATCH_BYTES ? kept : WATCH_BYTES, WATCH_BYTES);
	return 0;
}

/* What is known of the packet's connection, as the cookie has it: ct_state, zone, and the number of its record. */
__noinline int watch_connection(struct __sk_buff *skb, u32 event, u32 arg, u32 table, struct state *s)
{
	if (!s)
		return 0;
	return watch(skb, event, arg, table,
		     (u64)s->tracked.ct_state << 48 | (u64)bpf_ntohs(s->tracked.ct_zone) << 32 | s->connection);
}

/* A copy of the packet goes on in a run of its own, before this one does. */
__noinline int watch_clone(struct __sk_buff *skb, u32 ifindex, u64 flags)
{
	u32 zero = 0;
	struct watching *here = bpf_map_lookup_elem(&watching, &zero);
	u64 way = here ? here->way : 0;
	int result = bpf_clone_redirect(skb, ifindex, flags);

	if (here)
		here->way = way;
	return result;
}

/* A packet comes in by a port; not the copy that an internal port shows to its taps. */
static __always_inline void watch_enter(struct __sk_buff *skb, struct port *in)
{
	if (!(in->flags & PORT_INTERNAL && skb->mark == SELF_MARK))
		watch(skb, EVENT_ENTER, in->id, 0, skb->tc_index);
}

/* A copy of a packet, whose way the cookie tells, or one that user space hands in goes on as if received on a port. */
__noinline int watch_onward(struct __sk_buff *skb, u32 slot, u32 is_copy)
{
	u32 zero = 0;
	struct watching *here = bpf_map_lookup_elem(&watching, &zero);
	struct port *port = bpf_map_lookup_elem(&ports, &slot);

	return here ? watch(skb, EVENT_ONWARD, port ? port->id : 0, 0, is_copy ? here->way : 0) : 0;
}

#define WATCH(skb, event, arg, table, cookie) watch(skb, event, arg, table, cookie)
#define WATCH_CONNECTION(skb, event, arg, table, state) watch_connection(skb, event, arg, table, state)
#define WATCH_CLONE(skb, ifindex, flags) watch_clone(skb, ifindex, flags)
#define WATCH_ENTER(skb, in) watch_enter(skb, in)
#define WATCH_ONWARD(skb, slot, is_copy) watch_onward(skb, slot, is_copy)

#endif
