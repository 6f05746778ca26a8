// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * ERSPAN's header between GRE's and the frame (draft-foschiano-erspan-03; include/net/erspan.h). Version 0 here is its
 * type I, which has none; 1 is type II, and 2 is type III.
 */
#pragma once

#include "../silicon/base.h"

#define ETH_P_ERSPAN_ 0x88be
#define ETH_P_ERSPAN2_ 0x22eb
#define ERSPAN_INDEX 0xfffff
#define ERSPAN_TICK 100000 /* nanoseconds: a time stamp counts so many */
#define ERSPAN_IN_FRAME 3 /* the frame has its tag */
#define ERSPAN_SHORT 1
#define ERSPAN_LONG 2
#define ETH_ZLEN 60
#define ETH_FRAME_LEN 1514

/* struct erspan_metadata, which the kernel keeps beside a packet. */
struct erspan_metadata {
	u32 version;
	union {
		u32 index; /* network byte order */
		u8 md2[8]; /* time stamp, group tag, hardware id, direction */
	};
};

/* What follows GRE's header: 4 octets, and those of the version. */
static __always_inline u32 erspan_length(u32 version)
{
	return version == 1 ? 8 : 12;
}

/* Read the header `h`: its session and its metadata. The length; 0: there is none such. */
static __always_inline u32 read_erspan(const u8 *h, u32 *session, struct erspan_metadata *md)
{
	md->version = h[0] >> 4;
	*session = (h[2] & 3) << 8 | h[3];
	if (md->version == 1)
		__builtin_memcpy(&md->index, h + 4, 4);
	else if (md->version == 2)
		__builtin_memcpy(md->md2, h + 4, 8);
	else
		return 0;
	return erspan_length(md->version);
}

/*
 * Write the header `h` for a frame (erspan_build_header(), erspan_build_header_v2()). Its length; 0: the metadata is of no
 * version.
 */
static __always_inline u32 write_erspan(u8 *h, struct __sk_buff *skb, u32 session, const struct erspan_metadata *md)
{
	u16 type = 0, tci = 0, word = 0;
	u32 tos = 0;

	bpf_skb_load_bytes(skb, ETH_TYPE, &type, 2);
	if (skb->vlan_present) {
		tci = skb->vlan_tci;
	} else if (type == bpf_htons(ETH_P_8021Q)) {
		bpf_skb_load_bytes(skb, ETH_LEN, &tci, 2);
		tci = bpf_ntohs(tci);
	} else if (is_ip(type)) {
		bpf_skb_load_bytes(skb, ETH_LEN, &word, 2);
		word = bpf_ntohs(word);
		tos = type == bpf_htons(ETH_P_IP) ? word & 0xff : word >> 4 & 0xff;
	}
	h[0] = md->version << 4 | (tci >> 8 & 0xf);
	h[1] = tci;
	h[2] = (tos >> 5) << 5 | (session >> 8 & 3);
	h[3] = session;
	if (md->version == 1) {
		u32 index = md->index & bpf_htonl(ERSPAN_INDEX);

		if (skb->vlan_present || type == bpf_htons(ETH_P_8021Q))
			h[2] |= ERSPAN_IN_FRAME << 3;
		__builtin_memcpy(h + 4, &index, 4);
		return erspan_length(1);
	}
	if (md->version == 2) {
		u32 stamp = bpf_htonl(bpf_ktime_get_tai_ns() / ERSPAN_TICK);

		h[2] |= (skb->len < ETH_ZLEN ? ERSPAN_SHORT : skb->len > ETH_FRAME_LEN ? ERSPAN_LONG : 0) << 3;
		__builtin_memcpy(h + 4, &stamp, 4);
		h[8] = h[9] = 0;
		h[10] = 0x80 | (md->md2[6] & 3); /* P: the frame is an Ethernet frame */
		h[11] = md->md2[7] & 0xf8;
		return erspan_length(2);
	}
	return 0;
}
