// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Macvlan devices (drivers/net/macvlan.c). */
#pragma once

#include "programs.h"

#define MACVLANS 32

enum { PRIVATE = 1, VEPA = 2, BRIDGE = 4, PASSTHRU = 8 }; /* MACVLAN_MODE_* */

/* A macvlan device, by its id. */
struct macvlan {
	__u32 lower; /* ifindex, in the far end's network namespace */
	__u32 below; /* the same device's id */
	__u32 far; /* ifindex of its own far end */
	__u32 mode;
};

/* Those that are up on a device, by that one's id. */
struct macvlans {
	__u32 count;
	__u32 passthru; /* there is one, and it takes all */
	struct {
		__u32 far, mode;
	} each[MACVLANS];
};

struct address {
	__u32 below;
	__u8 mac[6];
	__u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct macvlan);
} macvlan_devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct macvlans);
} macvlans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, struct macvlan);
} macvlan_addresses SEC(".maps");

/* Copies of a frame for many to each device of *m* but that of *own*, and with *mode* to those alone. */
static __always_inline void macvlan_flood(struct __sk_buff *skb, struct macvlans *m, __u32 own, __u32 mode)
{
	for (__u32 i = 0; i < MACVLANS && i < m->count; i++)
		if (m->each[i].far != own && (!mode || m->each[i].mode == mode))
			bpf_clone_redirect(skb, m->each[i].far, 0);
}

/* The far end of a macvlan device. */
SEC("tc")
int macvlan_out(struct __sk_buff *skb)
{
	__u32 self = constants.self;
	struct macvlan *d = bpf_map_lookup_elem(&macvlan_devices, &self), *other;
	struct address to = {};
	struct macvlans *m;

	if (!d || bpf_skb_load_bytes(skb, 0, to.mac, sizeof to.mac) < 0)
		return TC_ACT_SHOT;
	if (d->mode == BRIDGE) {
		to.below = d->below;
		if (!(to.mac[0] & 1)) {
			other = bpf_map_lookup_elem(&macvlan_addresses, &to);
			if (other && other->mode == BRIDGE)
				return bpf_redirect(other->far, 0);
		} else if ((m = bpf_map_lookup_elem(&macvlans, &to.below)))
			macvlan_flood(skb, m, d->far, BRIDGE);
	}
	return bpf_redirect(d->lower, 0);
}

/* The ingress of a device with macvlan devices. */
SEC("tc")
int macvlan_in(struct __sk_buff *skb)
{
	struct address to = { .below = constants.self };
	struct macvlans *m = bpf_map_lookup_elem(&macvlans, &to.below);
	struct macvlan *d;

	if (!m || bpf_skb_load_bytes(skb, 0, to.mac, sizeof to.mac) < 0)
		return TCX_NEXT;
	if (m->passthru)
		return bpf_redirect(m->each[0].far, 0);
	if (to.mac[0] & 1) {
		macvlan_flood(skb, m, 0, 0);
		return TCX_NEXT;
	}
	d = bpf_map_lookup_elem(&macvlan_addresses, &to);
	return d ? bpf_redirect(d->far, 0) : TCX_NEXT;
}
