// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The effect of a packet on its connection: UDP, ICMP, ICMPv6, GRE, and protocols without states. */
#pragma once

#include "ct_tcp.h"

enum udp_timeout { UDP_UNREPLIED, UDP_REPLIED };

#define UDP_STREAM (2 * SECOND) /* UDP with traffic in both directions after this time is a stream */

/* Whether a datagram's length is valid; UDP-Lite has the checksum's coverage in its place. */
static __always_inline int right_udp(struct __sk_buff *skb, struct flight *p)
{
	u32 left = p->end - p->l4, length;
	u16 h[4];

	if (p->l4 + 8 > p->end || bpf_skb_load_bytes(skb, p->l4, h, 8))
		return 0;
	length = bpf_ntohs(h[2]);
	if (p->tuple.proto == IPPROTO_UDPLITE)
		return h[3] && (!length || (length >= 8 && length <= left));
	return length >= 8 && length <= left;
}

/* A connection that lives longer and becomes assured once it has been answered. */
static __always_inline u64 track_answered(struct connection *c, struct policy *timeouts)
{
	if (!(c->status & IPS_SEEN_REPLY))
		return AS(AS_VALID, timeouts->seconds[UDP_UNREPLIED]);
	if (!(c->status & IPS_ASSURED))
		__sync_fetch_and_or(&c->status, IPS_ASSURED);
	return AS(AS_VALID, timeouts->seconds[UDP_REPLIED]);
}

static __always_inline u64 track_udp(struct connection *c, struct flight *p, struct policy *timeouts, int fresh)
{
	u32 seconds = timeouts->seconds[UDP_UNREPLIED];

	if (fresh)
		c->stream = p->now + UDP_STREAM;
	if (c->status & IPS_SEEN_REPLY && p->now > c->stream) {
		seconds = timeouts->seconds[UDP_REPLIED];
		if (!(c->status & IPS_ASSURED))
			__sync_fetch_and_or(&c->status, IPS_ASSURED);
	}
	return AS(AS_VALID, seconds);
}

/* Handle a packet of the connection `at`; 0: of p->fresh. Returns AS(). */
__noinline u64 track_other(struct __sk_buff *skb, struct flight *p, u32 at)
{
	struct connection *c;
	u32 proto, policy, type, ipv4;
	struct policy *timeouts;

	if (!p)
		return AS(AS_INVALID, 0);
	c = connection_or_fresh(p, at);
	if (!c)
		return AS(AS_INVALID, 0);
	proto = p->tuple.proto;
	ipv4 = p->tuple.family == 4;
	type = bpf_ntohs(c->original.dst_port) >> 8;
	policy = proto == IPPROTO_UDP             ? POLICY_UDP :
		 proto == IPPROTO_UDPLITE         ? POLICY_UDPLITE :
		 proto == IPPROTO_GRE             ? POLICY_GRE :
		 proto == IPPROTO_ICMP && ipv4    ? POLICY_ICMP :
		 proto == IPPROTO_ICMPV6 && !ipv4 ? POLICY_ICMPV6 :
						    POLICY_GENERIC;
	timeouts = timeouts_of(c, policy);
	if (!timeouts)
		return AS(AS_INVALID, 0);
	switch (proto) {
	case IPPROTO_UDP:
		return right_udp(skb, p) ? track_udp(c, p, timeouts, !at) : AS(AS_INVALID, 0);
	case IPPROTO_UDPLITE:
		return right_udp(skb, p) ? track_answered(c, timeouts) : AS(AS_INVALID, 0);
	case IPPROTO_ICMP:
		/* The kernel tracks it over IPv4 only; only a request may begin a connection. */
		if (!ipv4 || !(type == 8 || type == 13 || type == 15 || type == 17))
			return AS(AS_INVALID, 0);
		break;
	case IPPROTO_ICMPV6:
		if (ipv4 || !(type == 128 || type == 139))
			return AS(AS_INVALID, 0);
		break;
	case IPPROTO_GRE:
		return track_answered(c, timeouts);
	}
	return AS(AS_VALID, timeouts->seconds[0]);
}
