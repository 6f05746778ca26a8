// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Meters: token buckets whose tokens are nanoseconds (specified in metering.py).
 *
 * A bucket is one number: the time at which it will be full. The tokens missing now are that time minus the present. A
 * packet moves it forward by its cost, so one compare-and-exchange takes tokens, and no CPU waits for another.
 */
#pragma once

#include "copies.h"

#define METER_TRIES 128 /* attempts of one packet to take tokens while other CPUs do, too */
#define METER_COUNTING(flags) ((flags) >> 8 & 3) /* higher bits are for user space */

static __always_inline u64 price(u64 units, u32 mult, u32 shift)
{
	return units * mult >> (shift & 63);
}

/* Take `cost` from a bucket of size `burst` if it has `needed`. 1: it has not. */
static __always_inline int take(u64 *full_at, u64 now, u64 burst, u64 needed, u64 cost)
{
	for (int i = 0; i < METER_TRIES; i++) {
		u64 full = READ_ONCE(*full_at), from = full > now ? full : now;

		if (from - now + needed > burst)
			return 1;
		if (__sync_val_compare_and_swap(full_at, full, from + cost) == full)
			return 0;
	}
	return 1;
}

static __always_inline u64 charged(struct meter *m, u64 octets)
{
	octets += m->overhead;
	if (octets < m->least)
		octets = m->least;
	return m->flags & METER_CELLS ? (octets + 47) / 48 * 53 : octets;
}

/* Whether there are not enough tokens for a packet that counts as `packets` packets and `octets` octets. */
static __always_inline int over_price(struct meter *m, u64 now, u64 packets, u64 octets)
{
	u64 units = 1, first = 1, needed, cost = 0;
	int wire = METER_COUNTING(m->flags) == COUNT_WIRE;

	if (m->flags & METER_PACKETS) {
		if (wire)
			units = packets;
	} else {
		units = first = charged(m, octets);
		if (wire && packets > 1)
			first = charged(m, octets / packets);
	}
	if (m->mult) {
		needed = price(first, m->mult, m->shift);
		cost = price(units, m->mult, m->shift);
		if (take(&m->full_at, now, m->burst, needed, cost))
			return 1;
	}
	if (m->peak_mult) {
		needed = price(units, m->peak_mult, m->peak_shift);
		if (take(&m->peak_full_at, now, m->peak_burst, needed, needed)) {
			if (cost)
				__sync_fetch_and_add(&m->full_at, -cost);
			return 1;
		}
	}
	return 0;
}

/* Count a packet with the meter `at`. 1: it exceeds the limit. Without a meter, nothing does. */
__noinline int over_limit(struct __sk_buff *skb, struct state *state, u32 at)
{
	struct meter *m = bpf_map_lookup_elem(&meters, &at);
	u64 packets = skb->gso_segs ?: 1, octets, now;
	u32 counting, room, headers, longest;
	int over;

	if (!m || !state || !at || !m->flags)
		return 0;
	now = now_ns();
	counting = METER_COUNTING(m->flags);
	room = state->no_ethernet ? 14 : 0;
	if (counting == COUNT_TC) {
		octets = state->arrived - 14;
	} else if (counting == COUNT_OVS) {
		octets = untagged_length(skb, skb->len) - room;
		packets = 1;
	} else {
		octets = skb->len + (skb->vlan_present ? 4 : 0) - room;
		if (packets > 1 && skb->gso_size) {
			headers = header_length(skb, 0);
			octets += (packets - 1) * headers;
		}
	}
	over = 0;
	if (m->most) {
		longest = counting == COUNT_TC ? state->arrived : untagged_length(skb, skb->len) - room;
		over = skb->gso_size ? !fits(skb, m->most, !!room) : longest > m->most;
	}
	if (!over)
		over = over_price(m, now, packets, octets);
	__sync_fetch_and_add(&m->packets, packets);
	__sync_fetch_and_add(&m->bytes, octets);
	m->used = now;
	if (over) {
		__sync_fetch_and_add(&m->over_packets, packets);
		__sync_fetch_and_add(&m->over_bytes, octets);
		__sync_fetch_and_add(&m->over, 1);
	}
	return over;
}
