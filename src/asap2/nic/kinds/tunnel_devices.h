// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Tunnel devices, and the memory in which packets that come in by them wait. */
#pragma once

#include "../silicon/room.h"
#include "erspan.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_GRE_ 47
#define IPPROTO_DSTOPTS_ 60
#define DSTOPTS_MOST 3 /* words of 64 bits behind the first */
#define ETH_P_TEB_ 0x6558
#define ETH_P_MPLS_UC_ 0x8847
#define PER_CPU 2048 /* arrivals of a CPU: more than wait for it (net.core.netdev_max_backlog) */
#define NO_TUNNEL_KEY (1ULL << 4) /* Linux 6.2 */
#define FIB_LOOKUP_SKIP_NEIGH (1U << 2)
#define DONT_FRAGMENT 0x4000

/* IP in IP, GRE and bare UDP have no frame inside: a packet's Ethernet header is the veth's alone. */
enum tunnel_kind {
	KIND_GENEVE = 1,
	KIND_GRETAP = 2,
	KIND_IP6GRETAP = 3,
	KIND_IPIP = 4,
	KIND_SIT = 5,
	KIND_ERSPAN = 6,
	KIND_IP6ERSPAN = 7,
	KIND_GRE = 8,
	KIND_BAREUDP = 9,
};
#define is_ip_in_ip(kind) ((kind) == KIND_IPIP || (kind) == KIND_SIT)
#define is_erspan(kind) ((kind) == KIND_ERSPAN || (kind) == KIND_IP6ERSPAN)
#define is_plain(kind) ((kind) >= KIND_GRE) /* a header, and a packet without a frame behind it */
#define is_bare(kind) (is_ip_in_ip(kind) || is_plain(kind))
#define IPPROTO_IPIP_ 4
#define IPPROTO_IPV6_ 41
#define IPPROTO_MPLS_ 137

/* A device, by its ifindex. */
struct device {
	u32 id; /* of its tunnel, network byte order */
	u16 port; /* UDP, network byte order */
	u8 kind, collects; /* enum tunnel_kind; whether each packet says what its tunnel is */
	u8 ipv6, keyed, ttl, tos; /* ttl 0: the default; tos 1: that of the packet inside */
	u8 dont_fragment, protocol; /* IP protocol of what is in a tunnel whose header does not say; 0: any */
	u32 far; /* ifindex of the veth's other end, which packets go in by, so that the kernel counts them */
	u8 local[16], remote[16]; /* IPv4: the last 4 */
	struct erspan_metadata erspan; /* of a device that does not collect */
};

/* Which device the packets of a tunnel come in by: those with this id from this end, or ANY. */
struct place {
	u16 port; /* UDP, network byte order; 0: GRE */
	u8 ipv6, keyed; /* `ipv6` may have IS_ERSPAN or IS_PLAIN */
	u32 id;
	u8 remote[16];
};
#define IS_ERSPAN 2
#define IS_PLAIN 4
#define BARE 3 /* as `keyed`: `id` is the IP protocol, as a tunnel without a header has no id */
#define ANY 2 /* as `keyed`: the device takes what no other does, of either IP version */

struct arrival {
	struct bpf_tunnel_key key;
	u32 options_len;
	u64 flags;
	u8 options[OPTIONS_MAX];
};

/* clang-format off */
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __uint(map_flags, BPF_F_NO_PREALLOC);
	 __type(key, u32); __type(value, struct device); } devices SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __uint(map_flags, BPF_F_NO_PREALLOC);
	 __type(key, struct place); __type(value, u32); } places SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, PER_CPU); __type(key, u32);
	 __type(value, struct arrival); } arrivals SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32);
	 __type(value, u32); } turns SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __uint(map_flags, BPF_F_NO_PREALLOC);
	 __type(key, u32); __type(value, u32); } sequences SEC(".maps"); /* of GRE, by device */
/* clang-format on */

const volatile struct {
	u32 cpus; /* that have arrivals of their own */
} constants = { 1 };
