// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Parse a TCP segment for connection tracking: its kind, sequence numbers and options. */
#pragma once

#include "tuple.h"

/* clang-format off */
enum tcp_kind { TCP_IS_SYN, TCP_IS_SYNACK, TCP_IS_FIN, TCP_IS_ACK, TCP_IS_RST, TCP_IS_NONE };

enum tcp_header_flag { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16, TCP_URG = 32 };

/* Flags of struct tcp_end: IP_CT_TCP_FLAG_*. */
enum tcp_end_flag {
	END_WINDOW_SCALE = 1, END_SACK_PERM = 2, END_CLOSE_INIT = 4, END_BE_LIBERAL = 8, END_UNACKNOWLEDGED = 0x10,
	END_MAX_ACK = 0x20, END_CHALLENGE_ACK = 0x40, END_SIMULTANEOUS = 0x80,
};
/* clang-format on */

static __always_inline int before(u32 a, u32 b)
{
	return (s32)(a - b) < 0;
}

static __always_inline int after(u32 a, u32 b)
{
	return before(b, a);
}

/* One option, or one block of SACK. */
static long tcp_option(u32 i, struct flight **of)
{
	struct flight *p = *of;
	u32 at = p->option_at, left = p->option_end - at, code, size, edge;

	if (at >= p->option_end || at >= 40)
		return 1;
	code = p->option[at];
	if (code == 0)
		return 1;
	if (code == 1) {
		p->option_at = at + 1;
		return 0;
	}
	if (left < 2 || at + 1 >= 40)
		return 1;
	size = p->option[at + 1];
	if (size < 2 || size > left)
		return 1;
	p->option_at = at + size;
	if (code == 4 && size == 2) {
		p->options |= END_SACK_PERM;
	} else if (code == 3 && size == 3 && at + 2 < 40) {
		u32 scale = p->option[at + 2];

		p->scale = scale > 14 ? 14 : scale;
		p->options |= END_WINDOW_SCALE;
	} else if (code == 5 && size >= 10 && !((size - 2) % 8) && !p->sacked) {
		/* Only the first such option counts. */
		p->sacked = 1;
		for (u32 block = 0; block < 4; block++) {
			u32 from = at + 6 + 8 * block;

			if (8 * block + 2 >= size || from + 4 > 40)
				break;
			edge = (u32)p->option[from] << 24 | (u32)p->option[from + 1] << 16 |
			       (u32)p->option[from + 2] << 8 | p->option[from + 3];
			if (after(edge, p->sack))
				p->sack = edge;
		}
	}
	return 0;
}

/* Parse the segment that begins at p->l4. 0: it is invalid. */
__noinline int read_tcp(struct __sk_buff *skb, struct flight *p)
{
	u32 h[5], flags, length;

	if (!p || p->l4 + 20 > p->end || bpf_skb_load_bytes(skb, p->l4, h, 20))
		return 0;
	p->header = (bpf_ntohl(h[3]) >> 28) * 4;
	if (p->header < 20 || p->l4 + p->header > p->end)
		return 0;
	flags = bpf_ntohl(h[3]) >> 16 & 0x3f;
	p->flags = flags;
	flags &= ~TCP_PSH;
	/* PSH may always be set; the other flags must be one of these combinations (tcp_valid_flags). */
	if (!(flags == TCP_SYN || flags == (TCP_SYN | TCP_URG) || flags == (TCP_SYN | TCP_ACK) || flags == TCP_RST ||
	      flags == (TCP_RST | TCP_ACK) || flags == (TCP_FIN | TCP_ACK) || flags == (TCP_FIN | TCP_ACK | TCP_URG) ||
	      flags == TCP_ACK || flags == (TCP_ACK | TCP_URG)))
		return 0;
	p->kind = flags & TCP_RST ? TCP_IS_RST :
		  flags & TCP_SYN ? (flags & TCP_ACK ? TCP_IS_SYNACK : TCP_IS_SYN) :
		  flags & TCP_FIN ? TCP_IS_FIN :
		  flags & TCP_ACK ? TCP_IS_ACK :
				    TCP_IS_NONE;
	p->seq = bpf_ntohl(h[1]);
	p->ack = p->sack = bpf_ntohl(h[2]);
	p->window = bpf_ntohl(h[3]);
	p->last = p->seq + p->end - p->l4 - p->header + !!(flags & TCP_SYN) + !!(flags & TCP_FIN);
	p->scale = p->options = p->sacked = 0;
	length = p->header - 20;
	if (!is_length(length, 40))
		return 1;
	if (bpf_skb_load_bytes(skb, p->l4 + 20, p->option, length))
		return 0;
	/* Most segments have a timestamp and no other option. */
	if (length == 12 && p->option_words[0] == bpf_htonl(0x0101080a))
		return 1;
	p->option_at = 0;
	p->option_end = length;
	bpf_loop(40, tcp_option, &p, 0);
	return 1;
}
