// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* By which of its ports a bond sends a packet: bond_xmit_hash() of drivers/net/bonding/bond_main.c. */
#pragma once

#include "programs.h"

#define TUNNELS 3 /* in one another, that a hash looks through */

enum { LAYER2, LAYER34, LAYER23, ENCAP23, ENCAP34, VLAN_SRCMAC }; /* BOND_XMIT_POLICY_* */

/* What of a packet decides which port it goes by: struct flow_keys, as far as bonds use it. */
struct flow {
	__u32 at; /* where the headers begin that are still to be read */
	__u32 addresses, ports; /* as they lie in the packet; those of IPv6 are folded */
	__u32 icmp; /* type, code and id of an ICMP query, else 0 */
	__u16 protocol; /* Ethernet's, of what is at `at`, in network byte order */
	__u8 ip; /* the IP protocol of what follows; 0: that is not looked at */
};

/* bond_flow_ip(): 0 if there is no IP header. What follows a fragment's header is not looked at (`ip` is 0). */
static __always_inline int flow_ip(struct __sk_buff *skb, struct flow *f)
{
	__u32 words[10], length;

	f->ip = 0;
	if (f->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, f->at, words, 20) < 0)
			return 0;
		length = (bpf_ntohl(words[0]) >> 24 & 15) * 4;
		if (!(bpf_ntohl(words[1]) & 0x3fff))
			f->ip = bpf_ntohl(words[2]) >> 16;
		f->addresses = words[3] ^ words[4];
	} else if (f->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, f->at, words, 40) < 0)
			return 0;
		length = 40;
		f->ip = bpf_ntohl(words[1]) >> 8;
		f->addresses = words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7] ^ words[8] ^ words[9];
	} else {
		return 0;
	}
	f->at += length;
	f->ports = 0;
	switch (f->ip) { /* proto_ports_offset() */
	case 6:
	case 17:
	case 33: /* DCCP */
	case 50: /* ESP */
	case 132:
	case 136: /* UDP-Lite */
		bpf_skb_load_bytes(skb, f->at, &f->ports, sizeof f->ports);
		break;
	case 51: /* AH */
		bpf_skb_load_bytes(skb, f->at + 4, &f->ports, sizeof f->ports);
		break;
	}
	return 1;
}

/* skb_flow_get_icmp_tci(); an error is of the flow whose packet it has (bond_flow_dissect). */
static __always_inline void flow_icmp(struct __sk_buff *skb, struct flow *f, __u32 errors)
{
	__u8 h[8];
	__u32 error, query;

	f->icmp = 0;
	if ((f->ip != 1 && f->ip != 58) || bpf_skb_load_bytes(skb, f->at, h, sizeof h) < 0)
		return;
	if (f->ip == 1) {
		query = h[0] == 0 || h[0] == 8 || h[0] == 13 || h[0] == 14;
		error = errors && (h[0] == 3 || h[0] == 4 || h[0] == 5 || h[0] == 11 || h[0] == 12);
	} else {
		query = h[0] == 128 || h[0] == 129;
		error = errors && h[0] >= 1 && h[0] <= 4;
	}
	if (query) {
		__u16 id = h[4] << 8 | h[5];

		/* the kernel's structure: two octets, and a number of this host; 0 stands for none */
		__builtin_memcpy((__u8 *)&f->icmp, h, 2);
		id = id ?: 1;
		__builtin_memcpy((__u8 *)&f->icmp + 2, &id, 2);
	} else if (error) {
		f->at += sizeof h;
		flow_ip(skb, f);
	}
}

/* The innermost packet in tunnels of IP and GRE, for the policies encap2+3 and encap3+4. */
static __always_inline void flow_inside(struct __sk_buff *skb, struct flow *f)
{
	for (int i = 0; i < TUNNELS; i++) {
		struct flow in = { .at = f->at };
		__u16 gre[2];

		if (f->ip == 4) {
			in.protocol = bpf_htons(ETH_P_IP);
		} else if (f->ip == 41) {
			in.protocol = bpf_htons(ETH_P_IPV6);
		} else if (f->ip == 47) {
			if (bpf_skb_load_bytes(skb, in.at, gre, sizeof gre) < 0 || gre[0] & bpf_htons(0x4007))
				return;
			in.at += 4;
			in.at += gre[0] & bpf_htons(0x8000) ? 4 : 0;
			in.at += gre[0] & bpf_htons(0x2000) ? 4 : 0;
			in.at += gre[0] & bpf_htons(0x1000) ? 4 : 0;
			in.protocol = gre[1];
			if (in.protocol == bpf_htons(0x6558)) { /* a frame */
				if (bpf_skb_load_bytes(skb, in.at + 12, &in.protocol, 2) < 0)
					return;
				in.at += ETH_HLEN;
			}
		} else {
			return;
		}
		if (!flow_ip(skb, &in))
			return;
		*f = in;
	}
}

/* bond_xmit_hash() of drivers/net/bonding/bond_main.c. */
static __always_inline __u32 bond_hash(struct __sk_buff *skb, __u32 policy)
{
	struct flow f = { .at = ETH_HLEN, .protocol = skb->protocol };
	__u32 hash, l34 = policy == LAYER34 || policy == ENCAP34;
	__u8 h[ETH_HLEN];

	if (bpf_skb_load_bytes(skb, 0, h, sizeof h) < 0)
		return 0;
	if (policy == VLAN_SRCMAC) {
		hash = (h[6] << 16 | h[7] << 8 | h[8]) ^ (h[9] << 16 | h[10] << 8 | h[11]);
		return skb->vlan_present ? hash ^ skb->vlan_tci : hash;
	}
	hash = h[5] ^ h[11] ^ bpf_ntohs(f.protocol);
	if (policy == LAYER2 || !flow_ip(skb, &f))
		return hash;
	if (policy == ENCAP23 || policy == ENCAP34)
		flow_inside(skb, &f);
	flow_icmp(skb, &f, policy == LAYER34);
	if (l34)
		hash = f.icmp ?: f.ports;
	hash ^= f.addresses;
	hash ^= hash >> 16;
	hash ^= hash >> 8;
	return l34 ? hash >> 1 : hash;
}
