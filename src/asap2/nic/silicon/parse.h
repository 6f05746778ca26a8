// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Extract the fields that rules match on from a packet (specified in packet.py). */
#pragma once

#include "headers.h"

#define FARTHEST (TUNNEL_MAX + L2_WINDOW + 8 + L3_WINDOW)

/*
 * Whether a header of so many octets is missing: -1: it ends beyond the window to be read; 1: beyond the linear part of
 * the packet. A macro with constants, because the verifier bounds packet pointers only by constants.
 */
#define lacks(octets) (l4 + (octets) > l3 + L3_WINDOW ? -1 : h + (octets) > end)

static __always_inline int dissect_l4(struct __sk_buff *skb, u8 *data, u8 *end, u32 l3, u32 l4, struct fields *f,
				      u32 type, u32 view)
{
	u8 proto = f->ip_proto, *h;
	int missing;

	bounded(l4);
	if (l4 > FARTHEST)
		return 0;
	h = data + l4;

	if (proto == IPPROTO_TCP) {
		missing = lacks(TCP_LEN);
		if (missing)
			return missing > 0;
		if (view && (h[TCP_DATA_OFFSET] >> 4 < 5 || skb->len < l4 + (h[TCP_DATA_OFFSET] >> 4) * 4))
			return 0;
		read_ports((struct fields_head *)f, h);
		f->tcp_flags = *(u16 *)(h + TCP_DATA_OFFSET) & bpf_htons(0x0fff);
	} else if (proto == IPPROTO_UDP) {
		missing = lacks(UDP_LEN);
		if (missing)
			return missing > 0;
		read_ports((struct fields_head *)f, h);
	} else if (proto == IPPROTO_SCTP) {
		missing = lacks(SCTP_LEN);
		if (missing)
			return missing > 0;
		read_ports((struct fields_head *)f, h);
	} else if ((proto == IPPROTO_ICMP && type == ETH_P_IP) || (proto == IPPROTO_ICMPV6 && type == ETH_P_IPV6)) {
		missing = lacks(8);
		if (missing)
			return missing > 0;
		f->l4_src = bpf_htons(h[0]);
		f->l4_dst = bpf_htons(h[1]);
		if (proto == IPPROTO_ICMPV6 && (h[0] == 135 || h[0] == 136) && h[1] == 0) {
			missing = lacks(24);
			if (missing)
				return missing > 0;
			__builtin_memcpy(f->nd_target, h + 8, 16);
			neighbour_options(skb, f, l4 + 24, l3 + L3_WINDOW);
		}
	}
	return 0;
}

/*
 * Fill `f` from the Ethernet header at `from` on; with AS_OVS, as Open vSwitch sees the packet. 1: the linear part of
 * the packet ended within a header.
 */
__noinline int dissect(struct __sk_buff *skb, struct fields *f, u32 from)
{
	u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	u32 l3, l4, tags = 0, type, view = from & AS_OVS;
	struct fields_head *head = (struct fields_head *)f;
	u8 *eth, *h;
	u16 proto;

	from &= AS_OVS - 1;
	if (!f || from > TUNNEL_MAX)
		return 0;
	__builtin_memset(f, 0, __builtin_offsetof(struct fields, tracked));
	eth = data + from;
	if (eth + ETH_LEN > end)
		return 1;
	read_ethernet(head, eth);
	proto = *(u16 *)(eth + ETH_TYPE);
	l3 = ETH_LEN;
	if (!from)
		tags = read_metadata_tag(skb, head);
	if (is_vlan(proto)) {
		f->eth_type = proto;
		if (eth + ETH_LEN + TAG_LEN > end)
			return 1;
		if (tags) {
			f->cvlan_tci = present(*(u16 *)(eth + ETH_LEN));
			f->cvlan_tpid = *(u8 *)&proto;
		} else {
			f->vlan_tci = present(*(u16 *)(eth + ETH_LEN));
			f->vlan_tpid = proto;
		}
		tags++;
		proto = *(u16 *)(eth + ETH_TYPE + TAG_LEN);
		l3 += TAG_LEN;
		if (tags == 1 && is_vlan(proto)) {
			f->eth_type = proto;
			if (eth + ETH_LEN + 2 * TAG_LEN > end)
				return 1;
			f->cvlan_tci = present(*(u16 *)(eth + ETH_LEN + TAG_LEN));
			f->cvlan_tpid = *(u8 *)&proto;
			proto = *(u16 *)(eth + ETH_TYPE + 2 * TAG_LEN);
			l3 += TAG_LEN;
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
	bounded(l3);
	if (l3 > TUNNEL_MAX + L2_WINDOW + 8)
		return 0;
	h = data + l3;

	if (type == ETH_P_IP) {
		u32 ihl, frag;

		if (h + IPV4_LEN > end)
			return 1;
		ihl = (h[0] & 15) * 4;
		if (ihl < IPV4_LEN || (view && skb->len < l3 + ihl))
			return 0;
		read_ipv4(head, h);
		frag = bpf_ntohs(*(u16 *)(h + IPV4_FRAGMENT));
		if (frag & (FRAGMENT_OFFSET | MORE_FRAGMENTS)) {
			f->ip_frag = frag & FRAGMENT_OFFSET ? 1 : 3;
			if (f->ip_frag == 1)
				return 0;
		}
		return dissect_l4(skb, data, end, l3, l3 + ihl, f, type, view);
	}
	if (type == ETH_P_IPV6) {
		u32 flow, next;

		if (h + IPV6_LEN > end)
			return 1;
		flow = bpf_ntohl(*(u32 *)h);
		next = h[IPV6_NEXT_HEADER];
		f->ip_tos = flow >> 20;
		*(u32 *)&f->cvlan_tpid |= bpf_htonl(flow & 0xfffff); /* ipv6_label follows it */
		f->ip_ttl = h[IPV6_HOP_LIMIT];
		__builtin_memcpy(f->ip_src, h + IPV6_SRC, 16);
		__builtin_memcpy(f->ip_dst, h + IPV6_DST, 16);
		f->ip_proto = next;
		l4 = l3 + IPV6_LEN;
		if (view && is_extension(next)) {
			l4 = extensions(skb, f, l4, l3 + L3_WINDOW);
		} else {
			l4 = behind_extensions(skb, l4, l3 + L3_WINDOW, &next, &f->ip_frag);
			f->ip_proto = next;
		}
		return l4 ? dissect_l4(skb, data, end, l3, l4, f, type, view) : 0;
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

/*
 * A shorter form for the usual packets: IPv4, TCP or UDP, not fragmented, with at most one tag, in the metadata. Reads
 * the narrow words of the packet; 0: it is of another kind.
 */
static __always_inline int usual(struct __sk_buff *skb, u32 flags, u64 *w)
{
	u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *ip = data + ETH_LEN,
	   *l4 = ip + IPV4_LEN;
	u32 proto;

	if (l4 + UDP_LEN > end)
		return 0;
	proto = ip[IPV4_PROTOCOL];
	/* From the wire, UDP may carry a tunnel. */
	if (*(u16 *)(data + ETH_TYPE) != bpf_htons(ETH_P_IP) || ip[0] != IPV4_WITHOUT_OPTIONS ||
	    *(u16 *)(ip + IPV4_FRAGMENT) & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS) ||
	    !(proto == IPPROTO_TCP ? l4 + TCP_LEN <= end : proto == IPPROTO_UDP && !(flags & PORT_WIRE)))
		return 0;
	/* Open vSwitch sees no ports in a TCP header that is too short or truncated. */
	if (proto == IPPROTO_TCP && (l4[TCP_DATA_OFFSET] < 0x50 || l4 + (l4[TCP_DATA_OFFSET] >> 2 & 0x3c) > end))
		return 0;
	union {
		struct fields_head head;
		u64 w[8];
	} f;

	__builtin_memset(&f, 0, sizeof(f));
	read_ethernet(&f.head, data);
	f.head.eth_type = bpf_htons(ETH_P_IP);
	read_metadata_tag(skb, &f.head);
	read_ipv4(&f.head, ip);
	read_ports(&f.head, l4);
	__builtin_memcpy(w, f.w, sizeof(f.w));
	return 1;
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

/* How to parse the packet for the next lookup. */
static __always_inline u32 view_of(struct work *w)
{
	return w->s->table >> 31 ? AS_OVS : 0;
}

static __always_inline u8 wanted(struct work *w, u8 parsed)
{
	return w->s->table >> 31 ? parsed | PARSED_OVS : parsed;
}

/* Fields that are not in the packet's octets. */
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

/* The fields of the packet's present outermost headers. */
static __always_inline void parse(struct work *w)
{
	u8 parsed = wanted(w, PARSED_PLAIN);

	if (w->s->parsed == parsed)
		return;
	w->s->parsed = parsed;
	read_fields(w->skb, &w->s->p.f, view_of(w));
	add_metadata(w->skb, &w->s->p.f, &w->s->state);
}
