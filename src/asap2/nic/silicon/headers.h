// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Single headers: where they begin and what they hold. Every parser is built from these. */
#pragma once

#include "eswitch.h"

/* The leading part of struct fields: what most packets have. */
struct fields_head {
	FIELDS_HEAD
};

static __always_inline void read_ethernet(struct fields_head *f, const u8 *h)
{
	__builtin_memcpy(f->eth_dst, h, 6);
	__builtin_memcpy(f->eth_src, h + ETH_SRC, 6);
}

/* A tag's control information as rules match on it. */
static __always_inline u16 present(u16 tci)
{
	return (tci & bpf_htons(0xefff)) | bpf_htons(VLAN_PRESENT);
}

/* The tag in the packet's metadata, if there is one. */
static __always_inline int read_metadata_tag(struct __sk_buff *skb, struct fields_head *f)
{
	if (!skb->vlan_present)
		return 0;
	f->vlan_tci = bpf_htons((skb->vlan_tci & 0xefff) | VLAN_PRESENT);
	f->vlan_tpid = (u16)skb->vlan_proto;
	return 1;
}

static __always_inline void read_ipv4(struct fields_head *f, const u8 *h)
{
	f->ip_tos = h[IPV4_TOS];
	f->ip_ttl = h[IPV4_TTL];
	f->ip_proto = h[IPV4_PROTOCOL];
	__builtin_memcpy(f->ip_src + 12, h + IPV4_SRC, 4);
	__builtin_memcpy(f->ip_dst + 12, h + IPV4_DST, 4);
}

static __always_inline void read_ports(struct fields_head *f, const u8 *h)
{
	f->l4_src = *(u16 *)h;
	f->l4_dst = *(u16 *)(h + 2);
}

static __always_inline int is_extension(u32 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT || next == IPPROTO_AH ||
	       next == IPPROTO_NONE || next == IPPROTO_DSTOPTS;
}

/*
 * Skip the IPv6 extension headers that TC's dissector knows, the first of this `kind` at `at`; they must lie before
 * `limit`. Returns the offset after them (0: missing), with the next header's protocol from bit 32 on and the fragment
 * state, as in struct fields, from bit 40 on. Not inlined: the verifier would walk what follows once for each possible
 * number of headers.
 */
__noinline u64 skip_known_extensions(struct __sk_buff *skb, u32 at, u32 limit, u32 kind)
{
	u64 frag = 0;

	for (int i = 0; i < EXTENSIONS; i++) {
		u8 e[8];

		if (kind != IPPROTO_HOPOPTS && kind != IPPROTO_ROUTING && kind != IPPROTO_DSTOPTS &&
		    kind != IPPROTO_FRAGMENT)
			break;
		if (at + 8 > limit || bpf_skb_load_bytes(skb, at, e, 8))
			return frag << 40 | (u64)(kind & 0xff) << 32;
		if (kind == IPPROTO_FRAGMENT) {
			kind = e[0];
			frag = *(u16 *)(e + 2) & bpf_htons(EXTENSION_OFFSET) ? 1 : 3;
			if (frag == 1)
				return frag << 40 | (u64)kind << 32;
			at += 8;
		} else {
			kind = e[0];
			at += (e[1] + 1) * 8;
		}
	}
	return frag << 40 | (u64)(kind & 0xff) << 32 | at;
}

/* The same, taken apart: `next` is the first header's kind, and then that of what follows them. */
static __always_inline u32 behind_extensions(struct __sk_buff *skb, u32 at, u32 limit, u32 *next, u8 *frag)
{
	u64 found = skip_known_extensions(skb, at, limit, *next);

	*next = found >> 32 & 0xff;
	if (found >> 40)
		*frag = found >> 40;
	return found;
}

/*
 * Skip the IPv6 extension headers from `at` on as Open vSwitch does. Returns the offset of the transport header; 0:
 * missing. A later fragment has protocol 44; headers that cannot be followed to the end have 59, "none".
 */
__noinline int extensions(struct __sk_buff *skb, struct fields *f, u32 at, u32 end)
{
	u32 next;

	if (!f)
		return 0;
	next = f->ip_proto;
	f->ip_proto = IPPROTO_NONE;
	for (int i = 0; i < EXTENSIONS; i++) {
		u8 e[2];
		u16 frag = 0;

		if (!is_extension(next) || next == IPPROTO_NONE)
			break;
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, e, 2))
			return 0;
		if (next == IPPROTO_FRAGMENT)
			f->ip_frag = 3;
		/* A routing header, too, needs four bytes (ipv6_find_hdr()). */
		if ((next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT) && bpf_skb_load_bytes(skb, at + 2, &frag, 2))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			if (frag & bpf_htons(EXTENSION_OFFSET)) {
				if (!is_extension(e[0]) || e[0] == IPPROTO_NONE) {
					f->ip_frag = 1;
					f->ip_proto = IPPROTO_FRAGMENT;
				}
				return 0;
			}
			at += 8;
		} else {
			at += next == IPPROTO_AH ? (e[1] + 2) * 4 : (e[1] + 1) * 8;
		}
		next = e[0];
	}
	if (is_extension(next) && next != IPPROTO_NONE)
		return 0;
	f->ip_proto = next;
	return at;
}

/*
 * Read the options of neighbour discovery: the link-layer addresses of source and target. If one occurs twice, all
 * fields of neighbour discovery are void, as in Open vSwitch.
 */
__noinline int neighbour_options(struct __sk_buff *skb, struct fields *f, u32 at, u32 end)
{
	if (!f)
		return 0;
	if (end > skb->len)
		end = skb->len;
	for (int i = 0; i < L3_WINDOW / 8; i++) {
		u8 option[8], *address, any = 0;
		u32 octets;

		if (at + 8 > end || bpf_skb_load_bytes(skb, at, option, 8))
			break;
		octets = option[1] * 8;
		if (!octets || at + octets > end)
			break;
		at += octets;
		if (octets != 8 || (option[0] != 1 && option[0] != 2))
			continue;
		address = option[0] == 1 ? f->nd_sll : f->nd_tll;
		for (int j = 0; j < 6; j++)
			any |= address[j];
		if (any) {
			__builtin_memset(f->nd_target, 0, 16);
			__builtin_memset(f->nd_sll, 0, 6);
			__builtin_memset(f->nd_tll, 0, 6);
			break;
		}
		__builtin_memcpy(address, option + 2, 6);
	}
	return 0;
}

/* Read the first MPLS labels from `at` on, and count them to the bottom of the stack (0: it has none). */
__noinline int dissect_mpls(struct __sk_buff *skb, struct fields *f, u32 at)
{
	u32 lse;

	if (!f)
		return 0;
	for (int i = 0; i < L3_WINDOW / 4; i++) {
		if (bpf_skb_load_bytes(skb, at + 4 * i, &lse, 4))
			break;
		if (i < MPLS_LABELS)
			(&f->mpls_lse1)[i] = lse;
		if (lse & bpf_htonl(0x100)) {
			f->mpls_labels = i == 0 ? 1 : i == 1 ? 3 : 7;
			break;
		}
	}
	return 0;
}

/* Read the network service header (RFC 8300) at `at`, unless it is truncated or of another version or type. */
__noinline int dissect_nsh(struct __sk_buff *skb, struct fields *f, u32 at)
{
	u8 h[24];
	u32 octets;

	if (!f || bpf_skb_load_bytes(skb, at, h, 8))
		return 0;
	octets = (h[1] & 0x3f) * 4;
	if (h[0] >> 6 || skb->len < at + octets || !(h[2] == 2 || (h[2] == 1 && octets == 24)))
		return 0;
	if (h[2] == 1 && bpf_skb_load_bytes(skb, at + 8, f->nsh_context, 16))
		return 0;
	f->nsh_flags = h[0] >> 4 & 3;
	f->nsh_ttl = (h[0] & 0xf) << 2 | h[1] >> 6;
	f->nsh_mdtype = h[2];
	f->nsh_np = h[3];
	__builtin_memcpy(&f->nsh_path, h + 4, 4);
	return 0;
}

/* Offsets of the packet's headers; 0: missing. */
struct places {
	u32 l3, l4;
	u32 type; /* ETH_P_IP, ETH_P_IPV6 */
	u32 proto;
};

static __always_inline void locate(struct __sk_buff *skb, struct fields *f, struct places *at)
{
	u32 tags = (f->vlan_tci != 0) + (f->cvlan_tci != 0);
	u8 h[1], frag = 0;

	if (skb->vlan_present)
		tags--;
	at->l3 = ETH_LEN + TAG_LEN * (tags & 3);
	at->type = bpf_ntohs(f->eth_type);
	at->proto = f->ip_proto;
	at->l4 = 0;
	if (at->type == ETH_P_IP) {
		if (bpf_skb_load_bytes(skb, at->l3, h, 1) || (h[0] & 15) < 5 || skb->len < at->l3 + IPV4_LEN) {
			at->type = 0;
			return;
		}
		at->l4 = at->l3 + (h[0] & 15) * 4;
	} else if (at->type == ETH_P_IPV6) {
		u32 next;

		if (bpf_skb_load_bytes(skb, at->l3 + IPV6_NEXT_HEADER, h, 1) || skb->len < at->l3 + IPV6_LEN) {
			at->type = 0;
			return;
		}
		next = h[0];
		at->l4 = behind_extensions(skb, at->l3 + IPV6_LEN, skb->len, &next, &frag);
	} else {
		at->type = 0;
		return;
	}
	if (f->ip_frag == 1)
		at->l4 = 0;
}

/* Where the payload of a super-packet begins, from the Ethernet header at `from` on; 0: unknown. */
__noinline u32 header_length(struct __sk_buff *skb, u32 from)
{
	u32 l3 = ETH_LEN, headers;
	u8 h[IPV4_LEN], doff;
	u16 type;

	if (from > TUNNEL_MAX || bpf_skb_load_bytes(skb, from + ETH_TYPE, &type, 2))
		return 0;
	for (int i = 0; i < 2; i++) {
		if (!is_vlan(type))
			break;
		l3 += TAG_LEN;
		if (bpf_skb_load_bytes(skb, from + l3 - 2, &type, 2))
			return 0;
	}
	if (bpf_skb_load_bytes(skb, from + l3, h, sizeof(h)))
		return 0;
	headers = from + l3 + (type == bpf_htons(ETH_P_IP) ? (h[0] & 15) * 4 : IPV6_LEN);
	if ((type == bpf_htons(ETH_P_IP) ? h[IPV4_PROTOCOL] : h[IPV6_NEXT_HEADER]) != IPPROTO_TCP)
		headers += UDP_LEN;
	else if (bpf_skb_load_bytes(skb, headers + TCP_DATA_OFFSET, &doff, 1))
		return 0;
	else
		headers += (doff >> 4) * 4;
	return headers;
}
