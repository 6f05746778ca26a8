// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* VLAN devices (net/8021q). */
#pragma once

#include "programs.h"

#define QOS_ENTRIES 16

/* A device, by its id: what it stands on, and the tag that a VLAN device pushes. */
struct device {
	__u32 lower; /* ifindex, in the far end's network namespace */
	__u16 protocol; /* in network byte order */
	__u16 vid;
	__u32 qos; /* entries of the map of priorities */
	struct {
		__u32 priority, pcp;
	} egress[QOS_ENTRIES];
	__u32 ingress[8]; /* priority by PCP */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

/* The VLANs of a device that has VLAN devices. */
struct vlan {
	__u32 lower; /* its id, not an ifindex */
	__u16 protocol; /* in network byte order */
	__u16 vid;
};

struct upper {
	__u32 id;
	__u32 far; /* ifindex of the far end */
	__u32 marks; /* whether it maps PCPs to priorities */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct vlan);
	__type(value, struct upper);
} vlans SEC(".maps");

static __always_inline struct device *own(void)
{
	__u32 self = constants.self;

	return bpf_map_lookup_elem(&devices, &self);
}

/*
 * The egress of a VLAN device with a map of priorities: a veth forgets a packet's priority, so that the PCP that it
 * stands for travels in tc_index.
 */
SEC("tc")
int vlan_mark(struct __sk_buff *skb)
{
	struct device *d = own();

	if (!d)
		return TCX_NEXT;
	for (__u32 i = 0; i < QOS_ENTRIES && i < d->qos; i++)
		if (d->egress[i].priority == skb->priority) {
			skb->tc_index = d->egress[i].pcp & 7;
			break;
		}
	return TCX_NEXT;
}

/* The far end of a VLAN device. */
SEC("tc")
int vlan_out(struct __sk_buff *skb)
{
	struct device *d = own();
	__u16 pcp = skb->tc_index & 7;

	if (!d || bpf_skb_vlan_push(skb, d->protocol, pcp << 13 | d->vid) < 0)
		return TC_ACT_SHOT;
	skb->tc_index = 0;
	return bpf_redirect(d->lower, 0);
}

/* The ingress of a device with VLAN devices. */
SEC("tc")
int vlan_in(struct __sk_buff *skb)
{
	struct vlan key = { .lower = constants.self };
	struct upper *upper;
	__u16 pcp;

	if (!skb->vlan_present)
		return TCX_NEXT;
	key.protocol = skb->vlan_proto;
	key.vid = skb->vlan_tci & 0xfff;
	pcp = skb->vlan_tci >> 13;
	upper = bpf_map_lookup_elem(&vlans, &key);
	if (!upper)
		return TCX_NEXT;
	if (bpf_skb_vlan_pop(skb) < 0)
		return TC_ACT_SHOT;
	if (upper->marks)
		skb->tc_index = pcp;
	return bpf_redirect(upper->far, 0);
}

/* The ingress of a VLAN device with a map of priorities. */
SEC("tc")
int vlan_read(struct __sk_buff *skb)
{
	struct device *d = own();

	if (d)
		skb->priority = d->ingress[skb->tc_index & 7];
	skb->tc_index = 0;
	return TCX_NEXT;
}
