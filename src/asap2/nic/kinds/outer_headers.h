// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The outer headers of a packet that has come in, and which device they say it is for. */
#pragma once

#include "tunnel_devices.h"

static __always_inline int is_mpls(u16 type)
{
	return type == bpf_htons(ETH_P_MPLS_UC_) || type == bpf_htons(ETH_P_MPLS_UC_ + 1);
}

/* A packet's outer headers, as far as they decide which device it is for. */
struct seen {
	struct place place;
	u8 src[16], dst[16];
	u32 inner; /* where the frame inside begins */
	u32 options; /* and its options */
	u32 options_len;
	u8 tos, ttl, checksum, ipv6;
	u16 type; /* of what is inside without a frame; 0: its first octet says */
	struct erspan_metadata erspan;
};

/* ERSPAN behind GRE's header, whose length is `at`, at the offset `l4`. 0: there is none. */
static __always_inline int read_outer_erspan(struct __sk_buff *skb, struct seen *s, u32 l4, u32 at)
{
	u8 h[12];
	u32 session, length = 0;

	s->place.ipv6 = s->ipv6 | IS_ERSPAN;
	__builtin_memcpy(s->place.remote, s->src, 16);
	s->place.keyed = 0;
	s->place.id = 0;
	if (at > GRE_LEN) { /* type I has a header of GRE without more, and none of its own */
		if (bpf_skb_load_bytes(skb, l4 + at, h, sizeof(h)))
			return 0;
		length = read_erspan(h, &session, &s->erspan);
		if (!length)
			return 0;
		s->place.keyed = 1;
		s->place.id = bpf_htonl(session);
	}
	s->inner = l4 + at + length;
	s->options_len = sizeof(s->erspan);
	return skb->len >= s->inner + ETH_LEN;
}

/* Whether an address of an outer header is one of this host, as the device `near` sees it. */
static __always_inline int is_local(struct __sk_buff *skb, u32 near, u32 ipv6, const u8 *src, const u8 *dst)
{
	struct bpf_fib_lookup p = {};

	p.family = ipv6 ? AF_INET6 : AF_INET;
	p.ifindex = near;
	if (ipv6) {
		__builtin_memcpy(p.ipv6_src, src, 16);
		__builtin_memcpy(p.ipv6_dst, dst, 16);
	} else {
		__builtin_memcpy(&p.ipv4_src, src + 12, 4);
		__builtin_memcpy(&p.ipv4_dst, dst + 12, 4);
	}
	return bpf_fib_lookup(skb, &p, sizeof(p), FIB_LOOKUP_SKIP_NEIGH) == BPF_FIB_LKUP_RET_NOT_FWDED;
}

/* 0: there is no tunnel. */
static __always_inline int read_outer(struct __sk_buff *skb, struct seen *s)
{
	u8 h[IPV6_LEN], proto;
	u32 l4 = ETH_LEN;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN, h, IPV4_LEN) || h[0] != IPV4_WITHOUT_OPTIONS ||
		    *(u16 *)(h + IPV4_FRAGMENT) & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS))
			return 0;
		proto = h[IPV4_PROTOCOL];
		s->tos = h[IPV4_TOS];
		s->ttl = h[IPV4_TTL];
		__builtin_memcpy(s->src + 12, h + IPV4_SRC, 4);
		__builtin_memcpy(s->dst + 12, h + IPV4_DST, 4);
		l4 += IPV4_LEN;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN, h, IPV6_LEN))
			return 0;
		proto = h[IPV6_NEXT_HEADER];
		s->tos = h[0] << 4 | h[1] >> 4;
		s->ttl = h[IPV6_HOP_LIMIT];
		__builtin_memcpy(s->src, h + IPV6_SRC, 16);
		__builtin_memcpy(s->dst, h + IPV6_DST, 16);
		s->ipv6 = 1;
		l4 += IPV6_LEN;
		/* The kernel's own devices say there how many tunnels may follow (RFC 2473, 5.1). */
		if (proto == IPPROTO_DSTOPTS_) {
			if (bpf_skb_load_bytes(skb, l4, h, 2) || h[1] > DSTOPTS_MOST)
				return 0;
			proto = h[0];
			l4 += 8 + 8 * h[1];
		}
	} else {
		return 0;
	}
	if (!s->ipv6 && (proto == IPPROTO_IPIP_ || proto == IPPROTO_IPV6_)) {
		s->place.keyed = BARE;
		s->place.id = bpf_htonl(proto);
		s->type = proto == IPPROTO_IPIP_ ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
		s->inner = l4;
		__builtin_memcpy(s->place.remote, s->src, 16);
		return skb->len >= l4 + (proto == IPPROTO_IPIP_ ? IPV4_LEN : IPV6_LEN);
	}
	if (proto != IPPROTO_UDP && proto != IPPROTO_GRE_)
		return 0;
	if (proto == IPPROTO_UDP && !bpf_skb_load_bytes(skb, l4, h, UDP_LEN)) {
		s->place.port = *(u16 *)(h + UDP_DST);
		s->place.ipv6 = IS_PLAIN;
		s->place.keyed = ANY;
		s->checksum = !!*(u16 *)(h + UDP_CHECKSUM);
		s->inner = l4 + UDP_LEN;
		if (bpf_map_lookup_elem(&places, &s->place))
			return skb->len > s->inner;
		s->place.ipv6 = 0;
	}
	/* With a frame inside, a packet has so many octets there, whatever its header. */
	if (bpf_skb_load_bytes(skb, l4, h, UDP_LEN + GENEVE_LEN))
		return 0;
	if (proto == IPPROTO_UDP) {
		const u8 *g = h + UDP_LEN;

		if (g[0] >> 6 || *(u16 *)(g + 2) != bpf_htons(ETH_P_TEB_))
			return 0;
		s->place.port = *(u16 *)(h + UDP_DST);
		s->place.keyed = 1;
		s->place.id = *(u32 *)(g + GENEVE_ID_AT) & bpf_htonl(0xffffff00);
		s->place.id = bpf_htonl(bpf_ntohl(s->place.id) >> 8);
		s->checksum = !!*(u16 *)(h + UDP_CHECKSUM);
		s->options = l4 + UDP_LEN + GENEVE_LEN;
		s->options_len = (g[0] & 0x3f) * 4;
		s->inner = s->options + s->options_len;
	} else {
		u16 flags = bpf_ntohs(*(u16 *)h), inside = *(u16 *)(h + 2);
		u32 at = GRE_LEN, plain = is_ip(inside) || is_mpls(inside),
		    erspan = inside == bpf_htons(ETH_P_ERSPAN_) || inside == bpf_htons(ETH_P_ERSPAN2_);

		if (flags & ~(GRE_CHECKSUM | GRE_KEY | GRE_SEQUENCE) ||
		    (inside != bpf_htons(ETH_P_TEB_) && !erspan && !plain))
			return 0;
		if (flags & GRE_CHECKSUM) {
			s->checksum = 1;
			at += 4;
		}
		if (flags & GRE_KEY) {
			s->place.keyed = 1;
			s->place.id = at == GRE_LEN ? *(u32 *)(h + GRE_LEN) : *(u32 *)(h + GRE_LEN + 4);
			at += 4;
		}
		if (flags & GRE_SEQUENCE)
			at += 4;
		if (erspan)
			return read_outer_erspan(skb, s, l4, at);
		s->inner = l4 + at;
		if (plain) {
			s->type = inside;
			s->place.ipv6 = s->ipv6 | IS_PLAIN;
			__builtin_memcpy(s->place.remote, s->src, 16);
			return skb->len > s->inner;
		}
	}
	s->place.ipv6 = s->ipv6;
	__builtin_memcpy(s->place.remote, s->src, 16);
	return skb->len >= s->inner + ETH_LEN;
}

/* The device that a packet is for; 0: none. */
static __always_inline u32 device_of(struct seen *s)
{
	u32 *found = bpf_map_lookup_elem(&places, &s->place);
	struct place any = { .port = s->place.port, .keyed = ANY };

	if (found)
		return *found;
	if (s->place.keyed == BARE) {
		any = s->place;
		__builtin_memset(any.remote, 0, sizeof any.remote);
	} else if (!s->place.port)
		any.ipv6 = s->place.ipv6; /* a device of GRE is of one version */
	found = bpf_map_lookup_elem(&places, &any);
	return found ? *found : 0;
}
