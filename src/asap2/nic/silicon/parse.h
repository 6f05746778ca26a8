// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* From a packet to the fields that rules match on. The specification is packet.py. */
#pragma once

#include "eswitch.h"

#define FARTHEST (TUNNEL_MAX + L2_WINDOW + L3_WINDOW)

static __always_inline int dissect_l4(u8 *data, u8 *end, u32 l3, u32 l4, struct fields *f, u32 type)
{
	u8 proto = f->ip_proto;

	opaque(l4);
	if (l4 > FARTHEST)
		return 0;
	u8 *h = data + l4;

	if (proto == 6) {
		if (l4 + 20 > l3 + L3_WINDOW)
			return 0;
		if (h + 20 > end)
			return 1;
		f->l4_src = *(u16 *)h;
		f->l4_dst = *(u16 *)(h + 2);
		f->tcp_flags = *(u16 *)(h + 12) & bpf_htons(0x0fff);
	} else if (proto == 17) {
		if (l4 + 8 > l3 + L3_WINDOW)
			return 0;
		if (h + 8 > end)
			return 1;
		f->l4_src = *(u16 *)h;
		f->l4_dst = *(u16 *)(h + 2);
	} else if (proto == 132) {
		if (l4 + 12 > l3 + L3_WINDOW)
			return 0;
		if (h + 12 > end)
			return 1;
		f->l4_src = *(u16 *)h;
		f->l4_dst = *(u16 *)(h + 2);
	} else if ((proto == 1 && type == ETH_P_IP) || (proto == 58 && type == ETH_P_IPV6)) {
		if (l4 + 8 > l3 + L3_WINDOW)
			return 0;
		if (h + 8 > end)
			return 1;
		f->l4_src = bpf_htons(h[0]);
		f->l4_dst = bpf_htons(h[1]);
		if (proto == 58 && (h[0] == 135 || h[0] == 136) && h[1] == 0) {
			if (l4 + 24 > l3 + L3_WINDOW)
				return 0;
			if (h + 24 > end)
				return 1;
			__builtin_memcpy(f->nd_target, h + 8, 16);
		}
	}
	return 0;
}

/* Fills `f` from the Ethernet header at `from` on. 1: the linear part of the packet ended before a header did. */
__noinline int dissect(struct __sk_buff *skb, struct fields *f, u32 from)
{
	u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	u32 l3, l4, tags = 0, type;
	u16 proto;

	if (!f || from > TUNNEL_MAX)
		return 0;
	__builtin_memset(f, 0, sizeof(*f));
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
	if (type < 0x600)
		type = ETH_P_802_2;
	f->eth_type = bpf_htons(type);

	l3 += from;
	opaque(l3);
	if (l3 > TUNNEL_MAX + L2_WINDOW)
		return 0;
	u8 *h = data + l3;

	if (type == ETH_P_IP) {
		if (h + 20 > end)
			return 1;
		u32 ihl = (h[0] & 15) * 4;

		if (ihl < 20)
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
		return dissect_l4(data, end, l3, l3 + ihl, f, type);
	}
	if (type == ETH_P_IPV6) {
		if (h + 40 > end)
			return 1;
		u32 flow = bpf_ntohl(*(u32 *)h);
		u32 next = h[6];

		f->ip_tos = flow >> 20;
		f->ipv6_label |= bpf_htonl(flow & 0xfffff);
		f->ip_ttl = h[7];
		__builtin_memcpy(f->ip_src, h + 8, 16);
		__builtin_memcpy(f->ip_dst, h + 24, 16);
		f->ip_proto = next;
		l4 = l3 + 40;
		for (int i = 0; i < EXTENSIONS; i++) {
			if (next != 0 && next != 43 && next != 60 && next != 44)
				break;
			if (l4 + 8 > l3 + L3_WINDOW)
				return 0;
			u8 e[8];

			if (bpf_skb_load_bytes(skb, l4, e, 8))
				return 0;
			u32 following = e[0];

			if (next == 44) {
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
		return dissect_l4(data, end, l3, l4, f, type);
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
	}
	return 0;
}

/* The fields of the packet from the Ethernet header at `from` on. */
__noinline int read_fields(struct __sk_buff *skb, struct fields *f, u32 from)
{
	u32 wanted = from + L2_WINDOW + L3_WINDOW;

	if (from > TUNNEL_MAX)
		return 0;
	if (dissect(skb, f, from) && !bpf_skb_pull_data(skb, skb->len < wanted ? skb->len : wanted))
		dissect(skb, f, from);
	return 0;
}

/* The fields of the packet as it is, its own outermost headers. */
static __always_inline void parse(struct work *w)
{
	if (w->parsed == PARSED_PLAIN)
		return;
	w->parsed = PARSED_PLAIN;
	read_fields(w->skb, &w->p.f, 0);
}
