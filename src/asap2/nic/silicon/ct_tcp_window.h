// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Whether a TCP segment is in the receiver's window. Modelled on tcp_in_window() of nf_conntrack_proto_tcp.c. */
#pragma once

#include "ct_tcp_segment.h"

/* clang-format off */
enum tcp_state {
	TCP_NONE, TCP_SYN_SENT, TCP_SYN_RECV, TCP_ESTABLISHED, TCP_FIN_WAIT, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_TIME_WAIT,
	TCP_CLOSE, TCP_SYN_SENT2, TCP_INVALID, TCP_IGNORE, TCP_RETRANS, TCP_UNACKNOWLEDGED,
};
/* clang-format on */

#define ACK_WINDOW 66000 /* the least age, in octets, that an acknowledgement may have (MAXACKWINCONST) */

static __always_inline void take_options(struct tcp_end *sender, struct flight *p)
{
	if (p->header == 20)
		return;
	sender->scale = p->scale;
	sender->flags = (sender->flags & END_BE_LIBERAL) | p->options;
}

static __always_inline void begin_sender(struct tcp_end *sender, struct tcp_end *receiver, struct flight *p, u32 dir)
{
	sender->end = sender->max_end = p->last;
	sender->max_window = p->window ?: 1;
	take_options(sender, p);
	/* Windows are scaled if both ends offer it (RFC 7323). */
	if (dir && !(sender->flags & receiver->flags & END_WINDOW_SCALE))
		sender->scale = receiver->scale = 0;
}

enum in_window { WINDOW_IN, WINDOW_IGNORE, WINDOW_OUT };

static __always_inline int in_window(struct tcp_connection *tcp, struct flight *p, u32 dir, int liberal)
{
	struct tcp_end *sender = &tcp->seen[dir & 1], *receiver = &tcp->seen[(dir & 1) ^ 1];
	u32 seq = p->seq, ack = p->ack, sack = p->ack, end = p->last, window = p->window, wide, back;
	u32 syn = p->flags & TCP_SYN, acks = p->flags & TCP_ACK;

	if (receiver->flags & END_SACK_PERM)
		sack = p->sack;
	if (!sender->max_window) {
		if (syn) {
			begin_sender(sender, receiver, p, dir);
			if (!acks)
				return WINDOW_IN;
		} else {
			/* In the middle of a connection: take what the segment tells. */
			sender->end = end;
			wide = window << (sender->scale & 15);
			sender->max_window = wide ?: 1;
			sender->max_end = end + sender->max_window;
			if (!receiver->max_window)
				receiver->end = receiver->max_end = sack;
			else if (sack == receiver->end + 1)
				receiver->end++; /* of a keepalive */
		}
	} else if (syn && after(end, sender->end) && (tcp->state == TCP_SYN_SENT || tcp->state == TCP_SYN_RECV)) {
		begin_sender(sender, receiver, p, dir);
		if (dir && !acks)
			return WINDOW_IN;
	}
	if (!acks || (p->flags & TCP_RST && !ack))
		ack = sack = receiver->end;
	if (p->flags & TCP_RST && !seq && tcp->state == TCP_SYN_SENT)
		seq = end = sender->end;
	back = sender->max_window > ACK_WINDOW ? sender->max_window : ACK_WINDOW;
	liberal |= sender->flags & END_BE_LIBERAL;
	if (!before(seq, sender->max_end + 1)) {
		u32 over = end - sender->max_end + 1;

		if (receiver->max_window && after(end, sender->end - receiver->max_window - 1) &&
		    after(sack, receiver->end - back - 1) && over <= receiver->max_window &&
		    before(sack, receiver->end + 1)) {
			/* Only the upper limit is exceeded. Note the segment, so that the reply to it is valid. */
			sender->end = end;
			sender->flags |= END_UNACKNOWLEDGED;
			return liberal ? WINDOW_IN : WINDOW_IGNORE;
		}
		return liberal ? WINDOW_IN : WINDOW_OUT;
	}
	if (!before(sack, receiver->end + 1))
		return liberal ? WINDOW_IN : WINDOW_OUT;
	if (receiver->max_window && !after(end, sender->end - receiver->max_window - 1))
		return liberal ? WINDOW_IN : WINDOW_IGNORE;
	if (!after(sack, receiver->end - back - 1))
		return liberal ? WINDOW_IN : WINDOW_IGNORE;
	if (!syn)
		window <<= sender->scale & 15;
	wide = window + (sack - ack);
	if (sender->max_window < wide)
		sender->max_window = wide;
	if (after(end, sender->end)) {
		sender->end = end;
		sender->flags |= END_UNACKNOWLEDGED;
	}
	if (acks) {
		if (!(sender->flags & END_MAX_ACK)) {
			sender->max_ack = ack;
			sender->flags |= END_MAX_ACK;
		} else if (after(ack, sender->max_ack)) {
			sender->max_ack = ack;
		}
	}
	if (receiver->max_window && after(end, sender->max_end))
		receiver->max_window += end - sender->max_end;
	if (after(sack + window, receiver->max_end - 1))
		receiver->max_end = sack + window + !window;
	if (ack == receiver->end)
		receiver->flags &= ~END_UNACKNOWLEDGED;
	if (p->kind == TCP_IS_ACK) {
		if (tcp->last_dir == dir && tcp->last_seq == seq && tcp->last_ack == ack && tcp->last_end == end &&
		    tcp->last_window == p->window) {
			tcp->retrans++;
		} else {
			tcp->last_dir = dir;
			tcp->last_seq = seq;
			tcp->last_ack = ack;
			tcp->last_end = end;
			tcp->last_window = p->window;
			tcp->retrans = 0;
		}
	}
	return WINDOW_IN;
}
