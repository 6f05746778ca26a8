// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What a bad cable does to packets. `impair` runs at the ingress of a cable's end, before all else that runs there: it
 * loses packets, or sends them on a detour. A detour is a shaper, whose other end runs `shaped`, or the device of the
 * process that delays, which runs `delayed`, or the one after the other; from its end packets come in by the cable's
 * end once more.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#define TCX_NEXT TC_ACT_UNSPEC
#define BACK 0xca81e0ff /* mark of a packet that has made the detour */

struct cable {
	__u64 loss; /* of 2^32 packets */
	__u32 end; /* ifindex of the cable's end */
	__u32 shaper, delay; /* ifindexes of devices that lead to these, or 0 */
	__u32 unused;
	__u64 received, lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cable);
} cable SEC(".maps");

static __always_inline struct cable *find(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cable, &zero);
}

static __always_inline int back(struct __sk_buff *skb, const struct cable *c)
{
	skb->mark = BACK;
	return bpf_redirect(c->end, BPF_F_INGRESS);
}

SEC("tc")
int impair(struct __sk_buff *skb)
{
	struct cable *c = find();

	if (!c)
		return TCX_NEXT;
	if (skb->mark == BACK) {
		skb->mark = 0;
		return TCX_NEXT;
	}
	__sync_fetch_and_add(&c->received, 1);
	if (bpf_get_prandom_u32() < c->loss) {
		__sync_fetch_and_add(&c->lost, 1);
		return TC_ACT_SHOT;
	}
	if (c->shaper)
		return bpf_redirect(c->shaper, 0);
	if (c->delay)
		return bpf_redirect(c->delay, 0);
	return TCX_NEXT;
}

SEC("tc")
int shaped(struct __sk_buff *skb)
{
	struct cable *c = find();

	if (!c)
		return TC_ACT_SHOT;
	return c->delay ? bpf_redirect(c->delay, 0) : back(skb, c);
}

SEC("tc")
int delayed(struct __sk_buff *skb)
{
	struct cable *c = find();

	return c ? back(skb, c) : TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
