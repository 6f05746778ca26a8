// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What every eBPF program here starts from: types, protocol numbers, and helpers for the verifier. No maps. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

#include "generated.h"

#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define barrier() asm volatile("" ::: "memory")
#define opaque(x) asm volatile("" : "+r"(x))
/*
 * The verifier knows the bounds only of the register that was compared, and the compiler may compare one copy of a
 * value but use another, or compute the value anew. This makes it keep a single copy.
 */
#define bounded(x) opaque(x)
/*
 * Whether least <= x <= most, such that the verifier knows it. The compiler would make one comparison of the two, with the
 * difference, and of x >= 1 one for equality with 0: of these the verifier learns nothing before Linux 6.7.
 */
#define is_between(x, least, most) \
	(({ \
		 bounded(x); \
		 (s32)(x) >= (least); \
	 }) && \
	 ({ \
		 bounded(x); \
		 (x) <= (most); \
	 }))
#define is_length(x, most) is_between(x, 1, most)
/* Without this the compiler keeps what it read through the pointer on the stack, which has only 512 bytes. */
#define read_again(x) opaque(x)
/* Without this the compiler duplicates the code that follows for each value, and the verifier walks every copy. */
#define one_path(x) opaque(x)

/* Header lengths in bytes. */
#define ETH_LEN 14
#define TAG_LEN 4
#define IPV4_LEN 20
#define IPV6_LEN 40
#define UDP_LEN 8
#define TUNNEL_MAX (ETH_LEN + TAG_LEN + IPV6_LEN + UDP_LEN + GENEVE_LEN + GENEVE_OPTIONS_MAX)

#define ETH_P_802_2 0x0004
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_RARP 0x8035
#define ETH_P_8021Q 0x8100
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021AD 0x88a8
#define ETH_P_MPLS_UC 0x8847
#define ETH_P_MPLS_MC 0x8848
#define ETH_P_NSH 0x894f

/* Linux 6.4; not in the headers of Linux 6.1 */
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)
/* Since Linux 6.2. Before, metadata always has a key: 0 where a packet has none. */
#define NO_TUNNEL_KEY (1ULL << 4)

/* enum tcx_action_base (Linux 6.6) has the values of TC's verdicts; as macros they do for older and newer headers */
#define TCX_NEXT TC_ACT_UNSPEC
#define TCX_PASS TC_ACT_OK
#define TCX_DROP TC_ACT_SHOT

/* Offsets within headers. */
#define ETH_SRC 6
#define ETH_TYPE 12
#define IPV4_TOS 1
#define IPV4_TOTAL_LENGTH 2
#define IPV4_FRAGMENT 6
#define IPV4_TTL 8
#define IPV4_PROTOCOL 9
#define IPV4_CHECKSUM 10
#define IPV4_SRC 12
#define IPV4_DST 16
#define IPV6_PAYLOAD_LENGTH 4
#define IPV6_NEXT_HEADER 6
#define IPV6_HOP_LIMIT 7
#define IPV6_SRC 8
#define IPV6_DST 24
#define TCP_DATA_OFFSET 12
#define TCP_FLAGS 13
#define TCP_CHECKSUM 16
#define UDP_SRC 0
#define UDP_DST 2
#define UDP_LENGTH 4
#define UDP_CHECKSUM 6
#define SCTP_CHECKSUM 8
#define ICMP_CHECKSUM 2
#define IPV4_WITHOUT_OPTIONS 0x45 /* the first octet: version and header length */
#define FRAGMENT_OFFSET 0x1fff /* of IPv4, beside "more fragments" */
#define MORE_FRAGMENTS 0x2000
#define TCP_FIN_OR_RST 5
#define EXTENSION_OFFSET 0xfff8 /* of an IPv6 fragment header */

#define TCP_LEN 20
#define SCTP_LEN 12

static __always_inline int is_vlan(u16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

static __always_inline int is_ip(u16 type)
{
	return type == bpf_htons(ETH_P_IP) || type == bpf_htons(ETH_P_IPV6);
}
