// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Packets go out by a tunnel. */
#pragma once

#include "ip_in_ip.h"

#define HEADER_ROOM 400
#define FIB_LOOKUP_SRC (1U << 4) /* Linux 6.7 */
#define DEFAULT_TTL 64
#define LOOPBACK 1 /* ifindex */
#define TUN_KEY_ 0x0004 /* flags of a bpf_tunnel_key */
#define TUN_DF_ 0x0100

struct work {
	u16 len;
	u8 ip, l4;
	u16 has_udp, unused;
	u8 header[HEADER_ROOM];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct work);
} works SEC(".maps");

/* The tunnel that a packet is to go into: what it says itself, or what the device says. -1: none. */
static __always_inline int wanted(struct __sk_buff *skb, struct device *d, struct bpf_tunnel_key *key, u32 *ipv6)
{
	*ipv6 = 0;
	if (d->collects) {
		if (!bpf_skb_get_tunnel_key(skb, key, sizeof(*key), BPF_F_TUNINFO_FLAGS)) {
			u32 near = key->remote_ipv4;

			/* The kernel calls remote where a packet comes from. */
			key->remote_ipv4 = bpf_htonl(key->local_ipv4);
			key->local_ipv4 = bpf_htonl(near);
			return 0;
		}
		*ipv6 = 1;
		if (bpf_skb_get_tunnel_key(skb, key, sizeof(*key), BPF_F_TUNINFO_FLAGS | BPF_F_TUNINFO_IPV6))
			return -1;
		u8 near[16];

		__builtin_memcpy(near, key->remote_ipv6, 16);
		__builtin_memcpy(key->remote_ipv6, key->local_ipv6, 16);
		__builtin_memcpy(key->local_ipv6, near, 16);
		return 0;
	}
	*ipv6 = d->ipv6;
	key->tunnel_id = bpf_ntohl(d->id);
	key->tunnel_tos = d->tos;
	key->tunnel_ttl = d->ttl;
	key->tunnel_flags = (d->keyed ? bpf_htons(TUN_KEY_) : 0) | (d->dont_fragment ? bpf_htons(TUN_DF_) : 0);
	if (d->ipv6) {
		__builtin_memcpy(key->remote_ipv6, d->remote, 16);
		__builtin_memcpy(key->local_ipv6, d->local, 16);
	} else {
		__builtin_memcpy(&key->remote_ipv4, d->remote + 12, 4);
		__builtin_memcpy(&key->local_ipv4, d->local + 12, 4);
	}
	return 0;
}

/* GRE's header at `h`, in front of what is of this type. Its length. */
static __always_inline u32 put_gre(u8 *h, const struct bpf_tunnel_key *key, u16 type)
{
	*(u16 *)(h + 2) = type;
	if (!(key->tunnel_flags & bpf_htons(TUN_KEY_)))
		return GRE_LEN;
	*(u16 *)h = bpf_htons(GRE_KEY);
	*(u32 *)(h + GRE_LEN) = bpf_htonl(key->tunnel_id);
	return GRE_LEN + 4;
}

/*
 * GRE's header with a sequence number at `h`, and ERSPAN's. Their length; 0: the packet does not say what to put there, as
 * erspan_fb_xmit() has it.
 */
static __always_inline u32 put_erspan(u8 *h, struct __sk_buff *skb, struct device *d, u32 session)
{
	struct erspan_metadata md = d->erspan;
	u32 ifindex = skb->ifindex, first = 0, length, *turn;

	if (d->collects && bpf_skb_get_tunnel_opt(skb, &md, sizeof(md)) != sizeof(md))
		return 0;
	*(u16 *)(h + 2) = bpf_htons(ETH_P_ERSPAN_);
	if (!md.version)
		return d->collects ? 0 : GRE_LEN;
	length = write_erspan(h + 2 * GRE_LEN, skb, session, &md);
	turn = bpf_map_lookup_elem(&sequences, &ifindex);
	if (!turn) {
		bpf_map_update_elem(&sequences, &ifindex, &first, BPF_NOEXIST);
		turn = bpf_map_lookup_elem(&sequences, &ifindex);
	}
	if (!length || !turn)
		return 0;
	if (md.version == 2)
		*(u16 *)(h + 2) = bpf_htons(ETH_P_ERSPAN2_);
	*(u16 *)h = bpf_htons(GRE_SEQUENCE);
	*(u32 *)(h + GRE_LEN) = bpf_htonl(__sync_fetch_and_add(turn, 1));
	return 2 * GRE_LEN + length;
}

/*
 * Send a packet out of a device to where its outer header leads. The kernel looks up the route once more: told of the
 * next hop, it would keep the route that the packet had inside, and where a packet waits for the neighbour's address,
 * take that of a neighbour of the tunnel device in the end.
 */
static __always_inline int to_next_hop(u32 ifindex)
{
	return ifindex == LOOPBACK ? bpf_redirect(LOOPBACK, BPF_F_INGRESS) : bpf_redirect_neigh(ifindex, 0, 0, 0);
}

/* The egress of a tunnel device. */
SEC("tc")
int tunnel_out(struct __sk_buff *skb)
{
	u32 zero = 0, ifindex = skb->ifindex, ipv6, mark = skb->mark, at, hash;
	struct device *d = bpf_map_lookup_elem(&devices, &ifindex);
	struct work *w = bpf_map_lookup_elem(&works, &zero);
	struct bpf_tunnel_key key = {};
	struct bpf_fib_lookup p = {};
	int options = 0;
	u32 flags = FIB_LOOKUP_SKIP_NEIGH;
	int found;
	u8 proto;

	if (!d || !w || mark == SELF_MARK)
		return TCX_NEXT;
	if (wanted(skb, d, &key, &ipv6))
		return TCX_DROP;
	hash = bpf_get_hash_recalc(skb);
	p.ifindex = ifindex;
	if (ipv6) {
		p.family = AF_INET6;
		__builtin_memcpy(p.ipv6_src, key.local_ipv6, 16);
		__builtin_memcpy(p.ipv6_dst, key.remote_ipv6, 16);
		if (!(p.ipv6_src[0] | p.ipv6_src[1] | p.ipv6_src[2] | p.ipv6_src[3]))
			flags |= FIB_LOOKUP_SRC;
	} else {
		p.family = AF_INET;
		p.ipv4_src = key.local_ipv4;
		p.ipv4_dst = key.remote_ipv4;
		if (!p.ipv4_src)
			flags |= FIB_LOOKUP_SRC;
	}
	found = bpf_fib_lookup(skb, &p, sizeof(p), flags);
	if (found == BPF_FIB_LKUP_RET_NOT_FWDED) {
		/* The other end is an address of this host, which sends as that. */
		p.ifindex = LOOPBACK;
		if (ipv6 && flags & FIB_LOOKUP_SRC)
			__builtin_memcpy(p.ipv6_src, key.remote_ipv6, 16);
		else if (flags & FIB_LOOKUP_SRC)
			p.ipv4_src = key.remote_ipv4;
	} else if (found) {
		return TCX_DROP;
	}
	skb->mark = SELF_MARK;
	bpf_clone_redirect(skb, ifindex, 0);
	skb->mark = mark;
	if (is_ip_in_ip(d->kind)) {
		if (!*(u32 *)(d->remote + 12) || put_on_bare(skb, d, &p))
			return TCX_DROP;
		return to_next_hop(p.ifindex);
	}

	__builtin_memset(w->header, 0, ETH_LEN + IPV6_LEN + 2 * GRE_LEN + 12);
	w->has_udp = d->kind == KIND_GENEVE || d->kind == KIND_BAREUDP;
	proto = w->has_udp ? IPPROTO_UDP : IPPROTO_GRE_;
	w->ip = ETH_LEN;
	if (ipv6) {
		*(u16 *)(w->header + ETH_TYPE) = bpf_htons(ETH_P_IPV6);
		*(u32 *)(w->header + ETH_LEN) = bpf_htonl(6 << 28 | key.tunnel_tos << 20);
		w->header[ETH_LEN + IPV6_NEXT_HEADER] = proto;
		w->header[ETH_LEN + IPV6_HOP_LIMIT] = key.tunnel_ttl ?: DEFAULT_TTL;
		__builtin_memcpy(w->header + ETH_LEN + IPV6_SRC, p.ipv6_src, 16);
		__builtin_memcpy(w->header + ETH_LEN + IPV6_DST, key.remote_ipv6, 16);
		at = ETH_LEN + IPV6_LEN;
	} else {
		*(u16 *)(w->header + ETH_TYPE) = bpf_htons(ETH_P_IP);
		w->header[ETH_LEN] = IPV4_WITHOUT_OPTIONS;
		w->header[ETH_LEN + IPV4_TOS] = key.tunnel_tos;
		if (key.tunnel_flags & bpf_htons(TUN_DF_))
			*(u16 *)(w->header + ETH_LEN + IPV4_FRAGMENT) = bpf_htons(DONT_FRAGMENT);
		w->header[ETH_LEN + IPV4_TTL] = key.tunnel_ttl ?: DEFAULT_TTL;
		w->header[ETH_LEN + IPV4_PROTOCOL] = proto;
		__builtin_memcpy(w->header + ETH_LEN + IPV4_SRC, &p.ipv4_src, 4);
		__builtin_memcpy(w->header + ETH_LEN + IPV4_DST, &key.remote_ipv4, 4);
		at = ETH_LEN + IPV4_LEN;
	}
	bounded(at);
	if (at > ETH_LEN + IPV6_LEN)
		return TCX_DROP;
	w->l4 = at;
	if (is_plain(d->kind)) {
		u16 type = skb->protocol;

		if (skb->vlan_present || !*(u32 *)(key.remote_ipv6) || (!is_ip(type) && !is_mpls(type)))
			return TCX_DROP;
		if (w->has_udp) {
			*(u16 *)(w->header + at + UDP_DST) = d->port;
			at += UDP_LEN;
		} else {
			at += put_gre(w->header + at, &key, type);
		}
		w->len = at;
		if (put_before(skb, (struct outer_headers *)w, HEADER_ROOM, hash, 0) < 0)
			return TCX_DROP;
		return to_next_hop(p.ifindex);
	}
	if (w->has_udp) {
		*(u16 *)(w->header + at + UDP_DST) = d->port;
		at += UDP_LEN;
		*(u16 *)(w->header + at + 2) = bpf_htons(ETH_P_TEB_);
		*(u32 *)(w->header + at + GENEVE_ID_AT) = bpf_htonl(key.tunnel_id << 8);
		at += GENEVE_LEN;
		if (d->collects && key.tunnel_flags & bpf_htons(TUN_OPTIONS))
			options = bpf_skb_get_tunnel_opt(skb, w->header + at, OPTIONS_MAX);
		if (options > 0 && options < OPTIONS_MAX) {
			u32 critical = 0;

			for (u32 i = 0, o = at; i < 32 && o < at + options; i++) {
				bounded(o);
				if (o > HEADER_ROOM - 4)
					break;
				critical |= w->header[o + 2] & 0x80;
				o += 4 + (w->header[o + 3] & 0x1f) * 4;
			}
			w->header[at - GENEVE_LEN] = (u32)options >> 2;
			w->header[at - GENEVE_LEN + 1] = critical ? 0x40 : 0;
			at += options;
		}
	} else if (is_erspan(d->kind)) {
		u32 length = put_erspan(w->header + at, skb, d, key.tunnel_id);

		if (!length)
			return TCX_DROP;
		at += length;
	} else {
		at += put_gre(w->header + at, &key, bpf_htons(ETH_P_TEB_));
	}
	w->len = at;
	if (put_on(skb, (struct outer_headers *)w, HEADER_ROOM, hash) < 0)
		return TCX_DROP;
	return to_next_hop(p.ifindex);
}
