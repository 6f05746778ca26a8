// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Bonds (drivers/net/bonding). */
#pragma once

#include "bond_hash.h"

#define PORTS 16

enum { ROUND_ROBIN, ACTIVE_BACKUP, XOR, BROADCAST, LACP, TLB, ALB }; /* BOND_MODE_* */

/* A bond, by its id. */
struct bond {
	__u32 mode;
	__u32 policy;
	__u32 next; /* of ROUND_ROBIN */
	__u32 count; /* of the ports that are used */
	__u32 ports[PORTS]; /* their ifindexes; the active one first */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct bond);
} bonds SEC(".maps");

/* The port of a bond, by the port's id. */
struct port {
	__u32 far; /* ifindex of the bond's far end */
	__u32 listens; /* a backup does not */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct port);
} bond_ports SEC(".maps");

/* The far end of a bond. */
SEC("tc")
int bond_out(struct __sk_buff *skb)
{
	__u32 self = constants.self, at = 0, count;
	struct bond *b = bpf_map_lookup_elem(&bonds, &self);

	if (!b)
		return TC_ACT_SHOT;
	count = b->count;
	if (!count || count > PORTS)
		return TC_ACT_SHOT;
	switch (b->mode) {
	case ROUND_ROBIN:
		at = __sync_fetch_and_add(&b->next, 1) % count;
		break;
	case XOR:
	case LACP:
	case TLB:
		at = bond_hash(skb, b->policy) % count;
		break;
	case BROADCAST:
		for (__u32 i = 1; i < PORTS && i < count; i++)
			bpf_clone_redirect(skb, b->ports[i], 0);
		break;
	}
	asm volatile("" : "+r"(at)); /* the compiler knows that it is below count, the verifier does not */
	if (at >= PORTS)
		return TC_ACT_SHOT;
	return bpf_redirect(b->ports[at], 0);
}

/* The ingress of a bond's port. What is for the link's other end (01:80:c2:00:00:0x) stays at the port. */
SEC("tc")
int bond_in(struct __sk_buff *skb)
{
	__u32 self = constants.self;
	struct port *p = bpf_map_lookup_elem(&bond_ports, &self);
	__u8 to[6];

	if (!p)
		return TCX_NEXT;
	if (bpf_skb_load_bytes(skb, 0, to, sizeof to) < 0)
		return TC_ACT_SHOT;
	if (to[0] == 1 && to[1] == 0x80 && to[2] == 0xc2 && !to[3] && !to[4] && to[5] < 16)
		return TCX_NEXT;
	return p->listens ? bpf_redirect(p->far, 0) : TC_ACT_SHOT;
}
