// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Whether a packet's checksum is wrong, so that connection tracking finds it invalid (nf_checksum()).
 *
 * A host leaves the checksum of what it sends to its NIC. Until that has filled it in, its field holds the sum of the
 * pseudo header. The kernel knows such packets (CHECKSUM_PARTIAL) and takes them as right; here they are known by that
 * sum, so a packet between guests costs no walk through its data.
 */
#pragma once

#include "nat.h"

#define SUMMED_AT_ONCE (2 * INSIDE)

static __always_inline u32 folded(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

struct summing {
	struct __sk_buff *skb;
	struct flight *p;
};

/* Add the next octets to the sum. What it needs is in map memory, because the stack has no room. */
static long sum_more(u32 i, struct summing *what)
{
	struct checksum *s = &what->p->checksum;
	u8 *octets = what->p->inside[0];
	u32 length = s->end - s->at;

	if (s->at >= s->end)
		return 1;
	if (length >= SUMMED_AT_ONCE)
		length = SUMMED_AT_ONCE;
	else
		__builtin_memset(octets, 0, SUMMED_AT_ONCE);
	if (!is_length(length, SUMMED_AT_ONCE) || bpf_skb_load_bytes(what->skb, s->at, octets, length))
		return 1;
	s->sum = bpf_csum_diff(0, 0, (void *)octets, SUMMED_AT_ONCE, s->sum);
	s->at += length;
	return 0;
}

/*
 * Whether the checksum of the packet's transport header is wrong; `t` is its tuple. Never with nf_conntrack_checksum=0,
 * unless `always`. SCTP's is not looked at.
 */
__noinline int checksum_is_wrong(struct __sk_buff *skb, struct flight *p, struct tuple *t, u32 always)
{
	struct tracker *tracker = the_tracker();
	struct summing what = { .skb = skb, .p = p };
	struct checksum *s;
	u32 proto, length;

	if (!p || !t || !tracker)
		return 1;
	if (!tracker->checksum && !always)
		return 0;
	s = &p->checksum;
	proto = t->proto;
	s->at = check_at(proto, t->family, p->l4, p->end);
	if (!s->at || bpf_skb_load_bytes(skb, s->at, &s->field, 2) || (proto == IPPROTO_UDP && !s->field))
		return 0;
	s->at = t->family == 4 ? p->l3 : p->l4; /* the kernel sums an IPv4 header, too */
	s->end = p->end;
	s->sum = 0;
	length = p->end - p->l4;
	if (proto == IPPROTO_UDPLITE) {
		if (bpf_skb_load_bytes(skb, p->l4 + UDP_LENGTH, &s->covered, 2))
			return 0;
		s->covered = bpf_ntohs(s->covered);
		if (s->covered && (s->covered < UDP_LEN || s->covered > length))
			return 0;
		if (s->covered)
			s->end = p->l4 + s->covered;
	}
	if (proto != IPPROTO_ICMP) {
		s->sum = bpf_csum_diff(0, 0, (void *)t->src, 32, bpf_htons(length) + bpf_htons(proto));
		if (proto != IPPROTO_ICMPV6 && s->field == folded(s->sum))
			return 0;
	}
	bpf_loop(65536 / SUMMED_AT_ONCE + 1, sum_more, &what, 0);
	return folded(s->sum) != 0xffff;
}
