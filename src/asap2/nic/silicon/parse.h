// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* From a packet to the fields that rules match on. The specification is packet.py. */
#pragma once

#include "eswitch.h"

#define FARTHEST (TUNNEL_MAX + L2_WINDOW + 8 + L3_WINDOW)

/*
 * Neighbour discovery's options: the link-layer addresses, of the source and of the target. One that is there twice
 * makes all fields of neighbour discovery void, as in Open vSwitch.
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
		address = option[0] == 1 ? f->arp_sha : f->arp_tha;
		for (int j = 0; j < 6; j++)
			any |= address[j];
		if (any) {
			__builtin_memset(f->nd_target, 0, 16);
			__builtin_memset(f->arp_sha, 0, 6);
			__builtin_memset(f->arp_tha, 0, 6);
			break;
		}
		__builtin_memcpy(address, option + 2, 6);
	}
	return 0;
}

/* MPLS labels from `at` on: the first ones, and how many there are to the last of the stack (none: it does not end). */
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

/* A network service header (RFC 8300) at `at`; nothing of one that is not whole, or of another version or type. */
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

static __always_inline int is_extension(u32 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT || next == IPPROTO_AH ||
	       next == IPPROTO_NONE || next == IPPROTO_DSTOPTS;
}

/*
 * IPv6 extension headers from `at` on as Open vSwitch sees them: where the transport header begins, 0: it is not there.
 * A later fragment has the protocol 44, headers that cannot be followed to their end have 59, none.
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
		/* Of a routing header too, four bytes must be there (ipv6_find_hdr). */
		if ((next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT) && bpf_skb_load_bytes(skb, at + 2, &frag, 2))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			if (frag & bpf_htons(0xfff8)) {
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

static __always_inline int dissect_l4(struct __sk_buff *skb, u8 *data, u8 *end, u32 l3, u32 l4, struct fields *f,
				      u32 type, u32 view)
{
	u8 proto = f->ip_proto;

	opaque(l4);
	if (l4 > FARTHEST)
		return 0;
	u8 *h = data + l4;

	if (proto == IPPROTO_TCP) {
		if (l4 + 20 > l3 + L3_WINDOW)
			return 0;
		if (h + 20 > end)
			return 1;
		if (view && (h[12] >> 4 < 5 || skb->len < l4 + (h[12] >> 4) * 4))
			return 0;
		f->l4_src = *(u16 *)h;
		f->l4_dst = *(u16 *)(h + 2);
		f->tcp_flags = *(u16 *)(h + 12) & bpf_htons(0x0fff);
	} else if (proto == IPPROTO_UDP) {
		if (l4 + 8 > l3 + L3_WINDOW)
			return 0;
		if (h + 8 > end)
			return 1;
		f->l4_src = *(u16 *)h;
		f->l4_dst = *(u16 *)(h + 2);
	} else if (proto == IPPROTO_SCTP) {
		if (l4 + 12 > l3 + L3_WINDOW)
			return 0;
		if (h + 12 > end)
			return 1;
		f->l4_src = *(u16 *)h;
		f->l4_dst = *(u16 *)(h + 2);
	} else if ((proto == IPPROTO_ICMP && type == ETH_P_IP) || (proto == IPPROTO_ICMPV6 && type == ETH_P_IPV6)) {
		if (l4 + 8 > l3 + L3_WINDOW)
			return 0;
		if (h + 8 > end)
			return 1;
		f->l4_src = bpf_htons(h[0]);
		f->l4_dst = bpf_htons(h[1]);
		if (proto == IPPROTO_ICMPV6 && (h[0] == 135 || h[0] == 136) && h[1] == 0) {
			if (l4 + 24 > l3 + L3_WINDOW)
				return 0;
			if (h + 24 > end)
				return 1;
			__builtin_memcpy(f->nd_target, h + 8, 16);
			neighbour_options(skb, f, l4 + 24, l3 + L3_WINDOW);
		}
	}
	return 0;
}

/*
 * Fills `f` from the Ethernet header at `from` on; with AS_OVS, as Open vSwitch sees the packet. 1: the linear part of
 * the packet ended before a header did.
 */
__noinline int dissect(struct __sk_buff *skb, struct fields *f, u32 from)
{
	u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	u32 l3, l4, tags = 0, type, view = from & AS_OVS;
	u16 proto;

	from &= AS_OVS - 1;
	if (!f || from > TUNNEL_MAX)
		return 0;
	__builtin_memset(f, 0, __builtin_offsetof(struct fields, tracked));
	u8 *eth = data + from;

	if (eth + 14 > end)
		return 1;
	__builtin_memcpy(f->eth_dst, eth, 6);
	__builtin_memcpy(f->eth_src, eth + 6, 6);
	proto = *(u16 *)(eth + 12);
	l3 = 14;
	if (skb->vlan_present && !from) {
		f->vlan_tci = bpf_htons((skb->vlan_tci & 0xefff) | VLAN_PRESENT);
		f->vlan_tpid = (u16)skb->vlan_proto;
		tags = 1;
	}
	if (is_vlan(proto)) {
		f->eth_type = proto;
		if (eth + 18 > end)
			return 1;
		u16 tci = (*(u16 *)(eth + 14) & bpf_htons(0xefff)) | bpf_htons(VLAN_PRESENT);

		if (tags) {
			f->cvlan_tci = tci;
			f->cvlan_tpid = *(u8 *)&proto;
		} else {
			f->vlan_tci = tci;
			f->vlan_tpid = proto;
		}
		tags++;
		proto = *(u16 *)(eth + 16);
		l3 = 18;
		if (tags == 1 && is_vlan(proto)) {
			f->eth_type = proto;
			if (eth + 22 > end)
				return 1;
			f->cvlan_tci = (*(u16 *)(eth + 18) & bpf_htons(0xefff)) | bpf_htons(VLAN_PRESENT);
			f->cvlan_tpid = *(u8 *)&proto;
			proto = *(u16 *)(eth + 20);
			l3 = 22;
		}
	}
	type = bpf_ntohs(proto);
	if (type < 0x600) {
		u16 snap[4];

		type = ETH_P_802_2;
		if (view && !bpf_skb_load_bytes(skb, from + l3, snap, 8) && snap[0] == 0xaaaa &&
		    !(snap[1] & bpf_htons(0xff)) && !snap[2] && bpf_ntohs(snap[3]) >= 0x600) {
			type = bpf_ntohs(snap[3]);
			l3 += 8;
		}
	}
	f->eth_type = bpf_htons(type);

	l3 += from;
	opaque(l3);
	if (l3 > TUNNEL_MAX + L2_WINDOW + 8)
		return 0;
	u8 *h = data + l3;

	if (type == ETH_P_IP) {
		if (h + 20 > end)
			return 1;
		u32 ihl = (h[0] & 15) * 4;

		if (ihl < 20 || (view && skb->len < l3 + ihl))
			return 0;
		f->ip_tos = h[1];
		f->ip_ttl = h[8];
		f->ip_proto = h[9];
		__builtin_memcpy(f->ip_src + 12, h + 12, 4);
		__builtin_memcpy(f->ip_dst + 12, h + 16, 4);
		u16 frag = bpf_ntohs(*(u16 *)(h + 6));

		if (frag & 0x3fff) {
			f->ip_frag = frag & 0x1fff ? 1 : 3;
			if (frag & 0x1fff)
				return 0;
		}
		return dissect_l4(skb, data, end, l3, l3 + ihl, f, type, view);
	}
	if (type == ETH_P_IPV6) {
		if (h + 40 > end)
			return 1;
		u32 flow = bpf_ntohl(*(u32 *)h);
		u32 next = h[6];

		f->ip_tos = flow >> 20;
		*(u32 *)&f->cvlan_tpid |= bpf_htonl(flow & 0xfffff);	/* ipv6_label follows it */
		f->ip_ttl = h[7];
		__builtin_memcpy(f->ip_src, h + 8, 16);
		__builtin_memcpy(f->ip_dst, h + 24, 16);
		f->ip_proto = next;
		l4 = l3 + 40;
		if (view && is_extension(next)) {
			l4 = extensions(skb, f, l4, l3 + L3_WINDOW);
			return l4 ? dissect_l4(skb, data, end, l3, l4, f, type, view) : 0;
		}
		for (int i = 0; i < EXTENSIONS; i++) {
			if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT)
				break;
			if (l4 + 8 > l3 + L3_WINDOW)
				return 0;
			u8 e[8];

			if (bpf_skb_load_bytes(skb, l4, e, 8))
				return 0;
			u32 following = e[0];

			if (next == IPPROTO_FRAGMENT) {
				f->ip_proto = following;
				f->ip_frag = *(u16 *)(e + 2) & bpf_htons(0xfff8) ? 1 : 3;
				if (f->ip_frag == 1)
					return 0;
				l4 += 8;
			} else {
				l4 += (e[1] + 1) * 8;
			}
			f->ip_proto = next = following;
		}
		return dissect_l4(skb, data, end, l3, l4, f, type, view);
	}
	if (type == ETH_P_ARP || type == ETH_P_RARP) {
		if (h + 28 > end)
			return 1;
		/* Ethernet, IPv4, 6 and 4 bytes of address */
		if (*(u16 *)h != bpf_htons(1) || *(u16 *)(h + 2) != bpf_htons(ETH_P_IP) ||
		    *(u16 *)(h + 4) != bpf_htons(0x0604))
			return 0;
		if (h[6] == 0)
			f->ip_proto = h[7];
		__builtin_memcpy(f->arp_sha, h + 8, 6);
		__builtin_memcpy(f->ip_src + 12, h + 14, 4);
		__builtin_memcpy(f->arp_tha, h + 18, 6);
		__builtin_memcpy(f->ip_dst + 12, h + 24, 4);
		return 0;
	}
	if (type == ETH_P_MPLS_UC || type == ETH_P_MPLS_MC)
		return dissect_mpls(skb, f, l3);
	return type == ETH_P_NSH ? dissect_nsh(skb, f, l3) : 0;
}

/* The fields of the packet from the Ethernet header at `from` on. */
__noinline int read_fields(struct __sk_buff *skb, struct fields *f, u32 from)
{
	u32 wanted = (from & (AS_OVS - 1)) + L2_WINDOW + L3_WINDOW;

	if ((from & (AS_OVS - 1)) > TUNNEL_MAX)
		return 0;
	if (dissect(skb, f, from) && !bpf_skb_pull_data(skb, skb->len < wanted ? skb->len : wanted))
		dissect(skb, f, from);
	return 0;
}

/* How the packet is parsed for a lookup where it is now. */
static __always_inline u32 view_of(struct work *w)
{
	return w->s->table >> 31 ? AS_OVS : 0;
}

static __always_inline u8 wanted(struct work *w, u8 parsed)
{
	return w->s->table >> 31 ? parsed | PARSED_OVS : parsed;
}

/* What the packet's octets do not tell. */
__noinline int add_metadata(struct __sk_buff *skb, struct fields *f, struct state *state)
{
	if (!f || !state)
		return 0;
	f->dp_hash = bpf_htonl(state->dp_hash);
	f->skb_mark = bpf_htonl(skb->mark);
	f->skb_priority = bpf_htonl(skb->priority);
	f->no_ethernet = state->no_ethernet;
	f->tracked = state->tracked;
	return 0;
}

/* The fields of the packet as it is, its own outermost headers. */
static __always_inline void parse(struct work *w)
{
	u8 parsed = wanted(w, PARSED_PLAIN);

	if (w->s->parsed == parsed)
		return;
	w->s->parsed = parsed;
	read_fields(w->skb, &w->s->p.f, view_of(w));
	add_metadata(w->skb, &w->s->p.f, &w->s->state);
}
