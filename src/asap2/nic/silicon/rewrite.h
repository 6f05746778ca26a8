// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Header rewrite, one 32-bit word at a time, with the checksums kept right (specified in rewrite.py). */
#pragma once

#include "parse.h"

/* The product of two polynomials over GF(2) modulo CRC32c's, with reflected bits: x^0 is the highest bit. */
static __always_inline u32 crc_product(u32 a, u32 b)
{
	u32 product = 0;

	for (int i = 0; i < 32; i++) {
		product ^= b & -(a >> 31);
		a <<= 1;
		b = b >> 1 ^ (0x82f63b78 & -(b & 1));
	}
	return product;
}

/* x^(8 * 2^i): each is the square of the one before. In its own section, because user space writes .rodata. */
static const u32 crc_powers[17] SEC(".rodata.crc") = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7, 0x88e56f72,
	0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc, 0xfe7740e6,
};

/* How a packet's CRC32c changes if the four octets that begin `octets` before its end change by `change` (XOR). */
__noinline u32 crc_change(u32 change, u32 octets)
{
	u32 factor = 0x80000000; /* x^0 */

	for (int i = 0; i < 17; i++) {
		/* No branch: the verifier would walk both ways each time. */
		u32 odd = -(octets & 1);

		factor = (crc_product(factor, crc_powers[i]) & odd) | (factor & ~odd);
		octets >>= 1;
	}
	return crc_product(change, factor);
}

/* Replace both ports of the SCTP header at `l4`, whose packet ends at `end`, and correct its checksum. -1: failed. */
static __always_inline int replace_sctp_ports(struct __sk_buff *skb, u32 l4, u32 end, u32 old, u32 new)
{
	u32 sum;

	if (bpf_skb_load_bytes(skb, l4 + SCTP_CHECKSUM, &sum, 4) || bpf_skb_store_bytes(skb, l4, &new, 4, 0))
		return -1;
	sum ^= crc_change(old ^ new, end - l4);
	return bpf_skb_store_bytes(skb, l4 + SCTP_CHECKSUM, &sum, 4, 0) ? -1 : 0;
}

static __always_inline u32 l4_checksum(const struct places *at)
{
	switch (at->proto) {
	case IPPROTO_TCP:
		return at->l4 + TCP_CHECKSUM;
	case IPPROTO_UDP:
		return at->l4 + UDP_CHECKSUM;
	case IPPROTO_ICMPV6:
		return at->type == ETH_P_IPV6 ? at->l4 + ICMP_CHECKSUM : 0;
	default:
		return 0;
	}
}

/*
 * Rewrite one word. `op` holds the layer and the index of the word in its second and third octets; `arg` holds value
 * and mask, as they lie in the packet, whose fields are `f`. OP_ADD adds to the one octet of the mask. 1: the packet
 * has changed; -1: failed.
 */
__noinline int rewrite(struct __sk_buff *skb, struct fields *f, u32 op, u64 arg)
{
	u32 layer = op >> 8 & 0xff, word = op >> 16 & 0xff, mask = arg, value = arg >> 32, old, new, offset, check = 0;
	u64 flags = 4;
	struct places at;

	if (!f)
		return -1;
	locate(skb, f, &at);
	switch (layer) {
	case LAYER_MPLS:
		if (f->eth_type != bpf_htons(ETH_P_MPLS_UC) && f->eth_type != bpf_htons(ETH_P_MPLS_MC))
			return 0;
		offset = at.l3;
		break;
	case LAYER_ETHERNET:
		offset = 4 * word;
		break;
	case LAYER_ADDRESS_LOW:
		/* The last word of the source (0) or destination (1) address of either version. */
		if (at.type == ETH_P_IP) {
			layer = LAYER_IPV4;
			word = 3 + word;
		} else {
			layer = LAYER_IPV6;
			word = 5 + 4 * word;
		}
		/* fall through */
	case LAYER_IPV4:
	case LAYER_IPV6:
		if (at.type != (layer == LAYER_IPV4 ? ETH_P_IP : ETH_P_IPV6))
			return 0;
		offset = at.l3 + 4 * word;
		break;
	default:
		if (layer == LAYER_SCTP && at.proto != IPPROTO_SCTP)
			return 0;
		if (!at.type || !at.l4 ||
		    (at.proto != IPPROTO_TCP && at.proto != IPPROTO_UDP && at.proto != IPPROTO_SCTP))
			return 0;
		if (skb->len < at.l4 + (at.proto == IPPROTO_TCP ? TCP_LEN :
					at.proto == IPPROTO_UDP ? UDP_LEN :
								  SCTP_LEN))
			return 0;
		offset = at.l4;
		break;
	}
	if (bpf_skb_load_bytes(skb, offset, &old, 4))
		return 0;
	new = (old & ~mask) | (((op & 0xff) == OP_ADD ? old + value : value) & mask);
	if (new == old)
		return 0;
	if (layer == LAYER_SCTP)
		return replace_sctp_ports(skb, offset, skb->len, old, new) ? -1 : 1;
	if (layer != LAYER_ETHERNET && layer < LAYER_MPLS && at.l4) {
		check = l4_checksum(&at);
		if (check && skb->len < check + 2)
			check = 0;
	}
	/* First, for the time to live shares a word with the header's checksum. */
	if (bpf_skb_store_bytes(skb, offset, &new, 4, 0))
		return -1;
	if (layer == LAYER_IPV4) {
		if (bpf_l3_csum_replace(skb, at.l3 + IPV4_CHECKSUM, old, new, 4))
			return -1;
		flags |= BPF_F_PSEUDO_HDR;
		if (word < 3 || at.proto == IPPROTO_ICMPV6)
			check = 0;
	} else if (layer == LAYER_IPV6) {
		flags |= BPF_F_PSEUDO_HDR;
		if (word < 2)
			check = 0;
	} else if (layer == LAYER_L4 && at.proto == IPPROTO_SCTP) {
		check = 0;
	}
	if (check) {
		if (at.proto == IPPROTO_UDP)
			flags |= BPF_F_MARK_MANGLED_0;
		if (bpf_l4_csum_replace(skb, check, old, new, flags))
			return -1;
	}
	return 1;
}
