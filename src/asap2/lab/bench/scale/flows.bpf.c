// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * For BPF_PROG_TEST_RUN: gives the packet the addresses of the next flow, then jumps to the program that is measured.
 * With repetition, that program so meets many flows in one call.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct flow {
	__u32 src, dst, ports, unused; /* network byte order */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} measured SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} turn SEC(".maps");

SEC("tc")
int next_flow(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 at = 0, one = 1;
	__u64 *now = bpf_map_lookup_elem(&turn, &at), *limit = bpf_map_lookup_elem(&turn, &one);
	struct flow *flow;

	if (!now || !limit || data + 42 > end)
		return 0;
	at = *now;
	*now = at + 1 >= *limit ? 0 : at + 1;
	flow = bpf_map_lookup_elem(&flows, &at);
	if (!flow)
		return 0;
	*(__u32 *)(data + 26) = flow->src;
	*(__u32 *)(data + 30) = flow->dst;
	*(__u32 *)(data + 34) = flow->ports;
	bpf_tail_call(skb, &measured, 0);
	return 0;
}

/* What is measured in place of a program, to know what next_flow costs by itself. */
SEC("tc")
int nothing(struct __sk_buff *skb)
{
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
