// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Packets come in by a tunnel. */
#pragma once

#include "ip_in_ip.h"

static __always_inline void set_key(struct arrival *a, const struct seen *s, u32 collects)
{
	__builtin_memset(&a->key, 0, sizeof(a->key));
	a->flags = s->checksum ? 0 : BPF_F_ZERO_CSUM_TX;
	if (!s->place.keyed)
		a->flags |= NO_TUNNEL_KEY;
	a->key.tunnel_id = bpf_ntohl(s->place.id);
	a->key.tunnel_tos = s->tos;
	a->key.tunnel_ttl = s->ttl;
	/* As what is received: set_tunnel_key() calls remote where a packet goes. */
	if (s->ipv6) {
		a->flags |= BPF_F_TUNINFO_IPV6;
		__builtin_memcpy(a->key.remote_ipv6, s->dst, 16);
		__builtin_memcpy(a->key.local_ipv6, s->src, 16);
	} else {
		a->key.remote_ipv4 = bpf_ntohl(*(u32 *)(s->dst + 12));
		a->key.local_ipv4 = bpf_ntohl(*(u32 *)(s->src + 12));
	}
	if (!collects)
		a->flags = ~0ULL;
}

/* The ingress of every device of the host, behind all other programs. */
SEC("tc")
int tunnel_in(struct __sk_buff *skb)
{
	struct seen s = {};
	u32 zero = 0, near, slot, len, at, *turn;
	struct device *d;
	struct arrival *a;

	if (skb->pkt_type != PACKET_HOST || skb->vlan_present || !read_outer(skb, &s))
		return TCX_NEXT;
	near = device_of(&s);
	d = near ? bpf_map_lookup_elem(&devices, &near) : 0;
	turn = bpf_map_lookup_elem(&turns, &zero);
	if (!d || !turn || near == skb->ifindex || !is_local(skb, near, s.ipv6, s.src, s.dst))
		return TCX_NEXT;
	slot = bpf_get_smp_processor_id() % constants.cpus * PER_CPU + (*turn)++ % PER_CPU;
	a = bpf_map_lookup_elem(&arrivals, &slot);
	if (!a)
		return TCX_DROP;
	set_key(a, &s, d->collects);
	a->options_len = 0;
	len = s.options_len;
	at = s.options;
	if (is_erspan(d->kind)) {
		__builtin_memcpy(a->options, &s.erspan, sizeof(s.erspan));
		a->options_len = len;
	} else if (is_length(len, OPTIONS_MAX - 1)) {
		if (bpf_skb_load_bytes(skb, at, a->options, len))
			return TCX_DROP;
		a->options_len = len;
	}
	if (d->kind == KIND_BAREUDP) {
		s.type = type_inside(skb, s.inner, d->protocol);
		if (!s.type)
			return TCX_DROP;
	}
	if (is_bare(d->kind) ? strip_bare(skb, &s) : strip(skb, s.inner) < 0)
		return TCX_DROP;
	skb->tc_index = slot + 1;
	return bpf_redirect(d->far, 0);
}

/* The ingress of a tunnel device, before all other programs. */
SEC("tc")
int tunnel_arrive(struct __sk_buff *skb)
{
	u32 slot = skb->tc_index, ifindex = skb->ifindex, len;
	struct arrival *a;
	struct device *d = bpf_map_lookup_elem(&devices, &ifindex);

	skb->tc_index = 0;
	if (!slot || !d)
		return TCX_NEXT;
	slot--;
	if (is_bare(d->kind)) /* its Ethernet header was for the device below */
		bpf_skb_change_type(skb, PACKET_HOST);
	a = bpf_map_lookup_elem(&arrivals, &slot);
	if (!a)
		return TCX_DROP;
	if (a->flags != ~0ULL) {
		if (bpf_skb_set_tunnel_key(skb, &a->key, sizeof(a->key), a->flags) &&
		    (!(a->flags & NO_TUNNEL_KEY) ||
		     bpf_skb_set_tunnel_key(skb, &a->key, sizeof(a->key), a->flags & ~NO_TUNNEL_KEY)))
			return TCX_DROP;
		len = a->options_len;
		if (is_length(len, OPTIONS_MAX - 1) && bpf_skb_set_tunnel_opt(skb, a->options, len))
			return TCX_DROP;
	}
	return TCX_NEXT;
}
