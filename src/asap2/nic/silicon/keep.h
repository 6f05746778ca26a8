// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Changes to connections on behalf of user space: remove or change some, or insert one. User space runs the program
 * `keep` without a packet (BPF_PROG_TEST_RUN), because only a program can safely change what packets change at the same
 * time.
 */
#pragma once

#include "conntrack.h"

struct kept {
	u32 at, id; /* a record, and the id of its connection; `at` becomes 0 when done */
};

/* The request and its result. */
struct keeping {
	u32 what; /* enum keep */
	u32 count;
	s32 result; /* number of connections changed, or the new record (0: no room, -1: a tuple is in use) */
	struct kept kept[KEEP_MOST];
	struct connection connection;
};

MMAPPED(keeping, struct keeping, 1);

/*
 * Return a connection that hardware has not used for long to software, with the timeout that it would have there
 * (flow_offload_fixup_ct()).
 */
static __always_inline int reclaim(struct connection *c, u64 now)
{
	u32 own = c->original.proto == IPPROTO_TCP ? POLICY_TCP : c->original.proto == IPPROTO_UDP ? POLICY_UDP : 0;
	struct policy *policy = bpf_map_lookup_elem(&policies, &own);
	u32 state = own == POLICY_TCP ? c->tcp.state : !!(c->status & IPS_SEEN_REPLY);
	u64 left;

	if (!(c->status & IPS_OFFLOAD) || !is_idle(c, now))
		return 0;
	take_back(c);
	if (own && policy) {
		left = policy->seconds[state & (POLICY_TIMEOUTS - 1)];
		left = left > HARDWARE_IDLE ? (left - HARDWARE_IDLE) * SECOND : 0;
		if (c->expires > now + left)
			c->expires = now + left;
	}
	return 1;
}

/* Apply the request to one of its connections. */
static __always_inline void keep_one(struct keeping *k, struct flight *p, u32 i)
{
	struct kept *one = &k->kept[i & (KEEP_MOST - 1)];
	u32 at = one->at, done;
	struct connection *c = connection_at(at);

	if (!c || c->id != one->id || !(c->status & IPS_CONFIRMED))
		return;
	if (k->what == KEEP_RECLAIM) {
		done = reclaim(c, p->now);
	} else if (k->what == KEEP_STATUS) {
		__sync_fetch_and_or(&c->status, k->connection.status);
		done = 1;
	} else {
		done = (k->what == KEEP_FORGET || c->expires <= p->now) && forget(p, at);
	}
	if (!done)
		return;
	one->at = 0;
	k->result++;
}

SEC("tc")
int keep(struct __sk_buff *skb)
{
	u32 zero = 0, i;
	struct keeping *k = bpf_map_lookup_elem(&keeping, &zero);
	struct flight *p = this_flight();

	if (!k || !p)
		return 0;
	p->now = coarse_now_ns();
	p->quiet = 1;
	k->result = 0;
	if (k->what == KEEP_INSERT) {
		p->fresh = k->connection;
		if (!invert(&p->fresh.original, &p->wanted))
			k->result = -1;
		else
			k->result = occupied(p, &p->fresh.original, &p->wanted) ? -1 : insert(p);
		p->quiet = 0;
		return 0;
	}
	for (i = 0; i < KEEP_MOST && i < k->count; i++)
		keep_one(k, p, i);
	p->quiet = 0;
	return 0;
}
