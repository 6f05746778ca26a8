// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Tunnels: encapsulation, decapsulation, and the fields of the packet inside (specified in tunnel.py). */
#pragma once

#include "parse.h"
#include "geneve.h"
#include "gre.h"
#include "room.h"
#include "vxlan.h"

/*
 * The offset of the packet inside a tunnel; 0: it is not in one. The outer headers must have no IPv4 options or IPv6
 * extension headers, at most one tag, and not be fragmented; anything else is an ordinary packet. `f` holds the outer
 * fields.
 */
__noinline int tunnel_at(struct __sk_buff *skb, struct fields *f)
{
	u8 h[GRE_MAX];
	u32 l4, length, proto;
	int options = 0;

	_Static_assert(sizeof(h) == UDP_LEN + VXLAN_LEN && sizeof(h) == UDP_LEN + GENEVE_LEN, "as many");
	if (!f || f->ip_frag || f->cvlan_tci)
		return 0;
	proto = f->ip_proto;
	if (proto == IPPROTO_UDP ? !is_vxlan_port(f->l4_dst) && f->l4_dst != bpf_htons(GENEVE_PORT) :
				   proto != IPPROTO_GRE)
		return 0;
	l4 = f->vlan_tci && !skb->vlan_present ? ETH_LEN + TAG_LEN : ETH_LEN;
	if (bpf_skb_load_bytes(skb, l4, h, 8))
		return 0;
	if (f->eth_type == bpf_htons(ETH_P_IP)) {
		if (h[0] != IPV4_WITHOUT_OPTIONS)
			return 0;
		l4 += IPV4_LEN;
	} else {
		if (h[0] >> 4 != 6 || h[IPV6_NEXT_HEADER] != proto)
			return 0;
		l4 += IPV6_LEN;
	}
	/* A packet with a frame inside has at least this many octets, whatever its header. */
	if (bpf_skb_load_bytes(skb, l4, h, sizeof(h)))
		return 0;
	if (proto == IPPROTO_GRE) {
		length = gre_length(h);
		if (!length)
			return 0;
	} else {
		if (!is_vxlan_port(f->l4_dst))
			options = geneve_options(h + UDP_LEN);
		else if (!is_vxlan(h + UDP_LEN))
			return 0;
		if (options < 0)
			return 0;
		length = UDP_LEN + VXLAN_LEN + options;
	}
	return skb->len < l4 + length + ETH_LEN ? 0 : l4 + length;
}

/* Whether the kernel decapsulated the packet: it then has tunnel metadata. */
__noinline int has_metadata(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key;

	return !bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) ||
	       !bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6);
}

/* The offset of the inner packet (METADATA: the kernel decapsulated it; 0: none). Reads its outer fields. */
__noinline int find_inner(struct __sk_buff *skb, struct fields *f, u32 flags)
{
	read_fields(skb, f, 0);
	if (flags & PORT_METADATA)
		return has_metadata(skb) ? METADATA : 0;
	return tunnel_at(skb, f);
}

/* The tunnel's fields overlay those that a packet in a tunnel does not use. */
static __always_inline void clear_tunnel(struct fields *f)
{
	__builtin_memset(f->nd_sll, 0, 6);
	__builtin_memset(f->nd_tll, 0, 6);
	f->tun_tp_dst = 0;
	__builtin_memset(f->tun_src, 0, 32);
	f->tun_opts_len = f->tun_option_kind = 0;
}

/*
 * Only the first option in the metadata counts, if rules match on it: Linux compares octets. The group policy of VXLAN
 * is one. A device of our own cannot say whose options they are, so it says that they may be anybody's.
 */
static __always_inline void options_metadata(struct __sk_buff *skb, struct fields *f, u16 flags)
{
	u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	u8 *options = bpf_map_lookup_elem(&came_with, &zero);
	long len;

	if (!options || !c)
		return;
	len = bpf_skb_get_tunnel_opt(skb, options, OPTIONS_MAX);
	if (len <= 0)
		return;
	f->tun_opts_len = len;
	if (flags & bpf_htons(TUN_GBP) && !(flags & bpf_htons(TUN_OPTIONS)) && len == 4) {
		u32 policy = bpf_htonl(*(u32 *)options);

		f->tun_flags |= bpf_htons(TUN_GBP);
		f->tun_option_kind = GBP_KIND;
		__builtin_memcpy(f->tun_option, &policy, 4);
	} else if (len >= GENEVE_OPTION_LEN + 4)
		known_option(f, (u32 *)options, c);
}

/* Read the tunnel's fields from its metadata. */
__noinline int tunnel_metadata(struct __sk_buff *skb, struct fields *f, u32 flags)
{
	struct bpf_tunnel_key key = {};
	u32 id;

	if (!f)
		return 0;
	clear_tunnel(f);
	if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_FLAGS)) {
		u32 src = bpf_htonl(key.remote_ipv4), dst = bpf_htonl(key.local_ipv4);

		__builtin_memcpy(f->tun_src + 12, &src, 4);
		__builtin_memcpy(f->tun_dst + 12, &dst, 4);
	} else if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6 | BPF_F_TUNINFO_FLAGS)) {
		__builtin_memcpy(f->tun_src, key.remote_ipv6, 16);
		__builtin_memcpy(f->tun_dst, key.local_ipv6, 16);
	}
	id = bpf_htonl(key.tunnel_id);
	__builtin_memcpy(f->tun_id, &id, 4);
	f->tun_tos = key.tunnel_tos;
	f->tun_ttl = key.tunnel_ttl;
	f->tun_flags = key.tunnel_flags & bpf_htons(TUN_FLAGS);
	f->tun_tp_dst = bpf_htons(TUNNEL_PORT(flags));
	if (key.tunnel_flags & bpf_htons(TUN_OPTIONS | TUN_GBP | TUN_ERSPAN))
		options_metadata(skb, f, key.tunnel_flags);
	return 0;
}

/* Read the GRE header at `l4`. */
static __always_inline void gre_header(struct __sk_buff *skb, struct fields *f, u32 l4)
{
	u8 h[GRE_LEN];
	u32 key = 0;
	u16 flags;

	if (bpf_skb_load_bytes(skb, l4, h, sizeof(h)))
		return;
	flags = bpf_ntohs(*(u16 *)h);
	f->tun_flags = flags & GRE_CHECKSUM ? bpf_htons(TUN_CSUM) : 0;
	if (flags & GRE_KEY)
		bpf_skb_load_bytes(skb, l4 + GRE_LEN + (flags & GRE_CHECKSUM ? 4 : 0), &key, 4);
	__builtin_memcpy(f->tun_id, &key, 4);
}

/* Read the UDP header at `l4` and the tunnel header after it, which ends at `inner`. */
static __always_inline void udp_header(struct __sk_buff *skb, struct fields *f, u32 l4, u32 inner)
{
	u8 h[UDP_LEN + VXLAN_LEN];
	u32 options = inner - l4 - sizeof(h);

	if (bpf_skb_load_bytes(skb, l4, h, sizeof(h)))
		return;
	f->tun_flags = h[UDP_CHECKSUM] | h[UDP_CHECKSUM + 1] ? bpf_htons(TUN_CSUM) : 0;
	put_network_id(f->tun_id, h + UDP_LEN);
	__builtin_memcpy(&f->tun_tp_dst, h + UDP_DST, 2);
	f->tun_opts_len = options;
	if (options)
		find_option(skb, f, l4 + sizeof(h), inner);
}

/* Read the tunnel's fields from the outer headers before `inner`. */
__noinline int tunnel_headers(struct __sk_buff *skb, struct fields *f, u32 inner)
{
	u8 h[IPV6_LEN], proto;
	u32 l3 = ETH_LEN;
	u16 type;

	if (!f)
		return 0;
	clear_tunnel(f);
	if (bpf_skb_load_bytes(skb, ETH_TYPE, &type, 2))
		return 0;
	if (is_vlan(type)) {
		l3 += TAG_LEN;
		if (bpf_skb_load_bytes(skb, ETH_TYPE + TAG_LEN, &type, 2))
			return 0;
	}
	if (type == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, l3, h, IPV4_LEN))
			return 0;
		f->tun_tos = h[IPV4_TOS];
		f->tun_ttl = h[IPV4_TTL];
		__builtin_memcpy(f->tun_src + 12, h + IPV4_SRC, 4);
		__builtin_memcpy(f->tun_dst + 12, h + IPV4_DST, 4);
		proto = h[IPV4_PROTOCOL];
		l3 += IPV4_LEN;
	} else {
		if (bpf_skb_load_bytes(skb, l3, h, IPV6_LEN))
			return 0;
		f->tun_tos = h[0] << 4 | h[1] >> 4;
		f->tun_ttl = h[IPV6_HOP_LIMIT];
		__builtin_memcpy(f->tun_src, h + IPV6_SRC, 16);
		__builtin_memcpy(f->tun_dst, h + IPV6_DST, 16);
		proto = h[IPV6_NEXT_HEADER];
		l3 += IPV6_LEN;
	}
	if (proto == IPPROTO_GRE)
		gre_header(skb, f, l3);
	else
		udp_header(skb, f, l3, inner);
	return 0;
}

/*
 * Read the fields of the inner packet (from `inner` on; METADATA: the kernel decapsulated it) and of its tunnel.
 * `inner` may have AS_OVS.
 */
__noinline int read_tunnel(struct __sk_buff *skb, struct fields *f, u32 inner, u32 flags)
{
	u32 view = inner & AS_OVS, from;

	if (!f)
		return 0;
	inner &= AS_OVS - 1;
	from = inner == METADATA ? 0 : inner;
	read_fields(skb, f, from | view);
	f->in_tunnel = 1;
	if (from)
		tunnel_headers(skb, f, from);
	else
		tunnel_metadata(skb, f, flags);
	return 0;
}

static __always_inline void parse_tunnel(struct work *w)
{
	u8 parsed = wanted(w, PARSED_TUNNEL);

	if (w->s->parsed == parsed)
		return;
	w->s->parsed = parsed;
	read_tunnel(w->skb, &w->s->p.f, w->s->inner | view_of(w), w->in->flags);
	add_metadata(w->skb, &w->s->p.f, &w->s->state);
}

/* Decapsulate: remove everything before the inner Ethernet header. 1: the packet has changed; -1: failed. */
static __always_inline int decapsulate(struct __sk_buff *skb, struct fields *f)
{
	u32 inner;

	if (!f)
		return -1;
	read_fields(skb, f, 0);
	inner = tunnel_at(skb, f);
	if (!inner)
		return 0;
	if (f->vlan_tci) {
		if (!skb->vlan_present)
			inner -= TAG_LEN;
		if (bpf_skb_vlan_pop(skb))
			return -1;
	}
	return strip(skb, inner);
}

/* Encapsulate with the headers of a slot of `encaps`. 1: the packet has changed; -1: failed. */
__noinline int encapsulate(struct __sk_buff *skb, u32 slot)
{
	u32 zero = 0;
	struct encap *template = bpf_map_lookup_elem(&encaps, &slot);
	struct encap *o = bpf_map_lookup_elem(&outer, &zero);
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	u32 hash;

	_Static_assert(__builtin_offsetof(struct encap, header) == sizeof(struct outer_headers),
		       "it begins as those do");
	if (!template || !o || !c)
		return -1;
	hash = constants.tracing ? c->test_hash : bpf_get_hash_recalc(skb);
	__builtin_memcpy(o, template, sizeof(*o));
	return put_on(skb, (struct outer_headers *)o, OUTER_MAX, hash);
}

/* Set the tunnel metadata for a tunnel device of the kernel. */
__noinline int set_tunnel(struct __sk_buff *skb, u32 slot)
{
	struct encap *e = bpf_map_lookup_elem(&encaps, &slot);
	struct bpf_tunnel_key key = {};
	u64 flags = 0;
	u32 len;

	if (!e)
		return -1;
	key.tunnel_id = e->meta.id;
	key.tunnel_tos = e->meta.tos;
	key.tunnel_ttl = e->meta.ttl;
	if (!e->meta.csum)
		flags |= BPF_F_ZERO_CSUM_TX;
	if (e->meta.dont_fragment)
		flags |= BPF_F_DONT_FRAGMENT;
	if (constants.tracing && slot == TEST_SLOT)
		flags |= BPF_F_SEQ_NUMBER;
	if (e->meta.ipv6) {
		__builtin_memcpy(key.remote_ipv6, e->meta.dst, 16);
		__builtin_memcpy(key.local_ipv6, e->meta.src, 16);
		flags |= BPF_F_TUNINFO_IPV6;
	} else {
		u32 dst, src;

		__builtin_memcpy(&dst, e->meta.dst + 12, 4);
		__builtin_memcpy(&src, e->meta.src + 12, 4);
		key.remote_ipv4 = bpf_ntohl(dst);
		key.local_ipv4 = bpf_ntohl(src);
	}
	if (e->meta.without_id)
		flags |= NO_TUNNEL_KEY;
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags) &&
	    (!e->meta.without_id || bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags & ~NO_TUNNEL_KEY)))
		return -1;
	len = e->meta.options_len;
	return is_length(len, SET_OPTIONS_MAX) ? bpf_skb_set_tunnel_opt(skb, e->meta.options, len) : 0;
}
