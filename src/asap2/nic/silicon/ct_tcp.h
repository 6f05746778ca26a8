// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * TCP connections: their states, and which segments are in the window of the receiver, as nf_conntrack_proto_tcp.c of
 * Linux 6.12 has them.
 */
#pragma once

#include "tuple.h"

/* clang-format off */
enum tcp_state {
	TCP_NONE, TCP_SYN_SENT, TCP_SYN_RECV, TCP_ESTABLISHED, TCP_FIN_WAIT, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_TIME_WAIT,
	TCP_CLOSE, TCP_SYN_SENT2, TCP_INVALID, TCP_IGNORE, TCP_RETRANS, TCP_UNACKNOWLEDGED,
};

enum tcp_kind { TCP_IS_SYN, TCP_IS_SYNACK, TCP_IS_FIN, TCP_IS_ACK, TCP_IS_RST, TCP_IS_NONE };

enum tcp_header_flag { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16, TCP_URG = 32 };

/* Of struct tcp_end: IP_CT_TCP_FLAG_*. */
enum tcp_end_flag {
	END_WINDOW_SCALE = 1, END_SACK_PERM = 2, END_CLOSE_INIT = 4, END_BE_LIBERAL = 8, END_UNACKNOWLEDGED = 0x10,
	END_MAX_ACK = 0x20, END_CHALLENGE_ACK = 0x40, END_SIMULTANEOUS = 0x80,
};

#define ACK_WINDOW 66000	/* an acknowledgement may be so old, at least */
#define UNCHANGING 120	/* seconds: a timeout below it is not made shorter by invalid segments */

/* What becomes of a packet of a connection. */
enum tracked_as {
	AS_VALID,	/* and the connection lives on for another p->timeout seconds */
	AS_VALID_BUT_NO_LONGER,	/* it does not live longer for it */
	AS_LAST,	/* valid, and the connection is forgotten */
	AS_INVALID,
	AS_REOPENED,	/* the connection is forgotten, and the packet is looked at again */
};
/* clang-format on */

#define AS(verdict, seconds) ((u64)(verdict) << 32 | (seconds))

#define sNO TCP_NONE
#define sSS TCP_SYN_SENT
#define sSR TCP_SYN_RECV
#define sES TCP_ESTABLISHED
#define sFW TCP_FIN_WAIT
#define sCW TCP_CLOSE_WAIT
#define sLA TCP_LAST_ACK
#define sTW TCP_TIME_WAIT
#define sCL TCP_CLOSE
#define sS2 TCP_SYN_SENT2
#define sIV TCP_INVALID
#define sIG TCP_IGNORE

/* What a segment of a kind, by direction, makes of each state. In a section of its own: user space writes .rodata. */
/* clang-format off */
static const u8 tcp_states[2][6][10] SEC(".rodata.tcp") = {
	{
		{ sSS, sSS, sIG, sIG, sIG, sIG, sIG, sSS, sSS, sS2 },
		{ sIV, sIV, sSR, sIV, sIV, sIV, sIV, sIV, sIV, sSR },
		{ sIV, sIV, sFW, sFW, sLA, sLA, sLA, sTW, sCL, sIV },
		{ sES, sIV, sES, sES, sCW, sCW, sTW, sTW, sCL, sIV },
		{ sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL },
		{ sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV },
	},
	{
		{ sIV, sS2, sIV, sIV, sIV, sIV, sIV, sSS, sIV, sS2 },
		{ sIV, sSR, sIG, sIG, sIG, sIG, sIG, sIG, sIG, sSR },
		{ sIV, sIV, sFW, sFW, sLA, sLA, sLA, sTW, sCL, sIV },
		{ sIV, sIG, sSR, sES, sCW, sCW, sTW, sTW, sCL, sIG },
		{ sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL },
		{ sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV, sIV },
	},
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

/* Reads the segment that begins at p->l4. 0: it is no right one. */
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
	/* Pushing goes with all; these go together. */
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
	bounded(length);
	if (!length || length > 40)
		return 1;
	if (bpf_skb_load_bytes(skb, p->l4 + 20, p->option, length))
		return 0;
	/* Most have a timestamp, and nothing else. */
	if (length == 12 && p->option_words[0] == bpf_htonl(0x0101080a))
		return 1;
	p->option_at = 0;
	p->option_end = length;
	bpf_loop(40, tcp_option, &p, 0);
	return 1;
}

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
	/* Windows are scaled where both ends say so (RFC 7323). */
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
			/* In the middle of a connection: the segment says what it can. */
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
			/* More than the window allows, and nothing else is wrong: the answer to it shall not be, too. */
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

/* The first segment of a connection that may become one: what is known of its ends. 0: it cannot. */
static __always_inline int new_tcp(struct tcp_connection *tcp, struct flight *p, int loose)
{
	struct tcp_end *sender = &tcp->seen[0];

	__builtin_memset(tcp, 0, sizeof(*tcp));
	if (p->kind == TCP_IS_SYN) {
		sender->max_end = sender->end = p->last;
		sender->max_window = p->window ?: 1;
		take_options(sender, p);
	} else {
		if (p->kind != TCP_IS_ACK || !loose)
			return 0;
		sender->end = p->last;
		sender->max_window = p->window ?: 1;
		sender->max_end = sender->end + sender->max_window;
		sender->flags = tcp->seen[1].flags = END_SACK_PERM | END_BE_LIBERAL;
	}
	tcp->last_kind = TCP_IS_NONE;
	return 1;
}

/* All but that nothing is out of its window. */
static __always_inline void forget_end(struct tcp_end *end)
{
	end->end = end->max_end = end->max_window = end->max_ack = 0;
	end->scale = 0;
	end->flags &= END_BE_LIBERAL;
}

static __always_inline int tcp_is_established(const struct connection *c)
{
	return c->tcp.state == TCP_ESTABLISHED && c->status & IPS_ASSURED;
}

static __always_inline int closing(u32 state)
{
	return state >= TCP_FIN_WAIT && state <= TCP_CLOSE;
}

struct tcp_outcome {
	u32 as, state, old, shorten;
};

/* The part that needs the lock. */
static __always_inline void tcp_transition(struct connection *c, struct flight *p, u32 dir, struct tracker *t,
					   struct tcp_outcome *o)
{
	struct tcp_connection *tcp = &c->tcp;
	u32 old = tcp->state, new, kind = p->kind, status = c->status;
	int in;

	o->as = AS_INVALID;
	o->old = old;
	o->shorten = 0;
	dir &= 1;
	if (old > TCP_SYN_SENT2 || kind > TCP_IS_NONE)
		return;
	new = tcp_states[dir][kind][old];
	if (new == TCP_INVALID)
		return;
	if (new == TCP_SYN_SENT && old >= TCP_TIME_WAIT &&
	    ((tcp->seen[0].flags | tcp->seen[1].flags) & END_CLOSE_INIT ||
	     (tcp->last_dir == dir && tcp->last_kind == TCP_IS_RST))) {
		o->as = AS_REOPENED;
		return;
	}
	if (new == TCP_IGNORE || (new == TCP_SYN_SENT &&old >= TCP_TIME_WAIT)) {
		if (kind == TCP_IS_SYNACK && tcp->last_kind == TCP_IS_SYN && tcp->last_dir != dir &&
		    p->ack == tcp->last_end) {
			struct tcp_end *other = &tcp->seen[tcp->last_dir & 1];

			/* It answers a SYN that was ignored: the ends are in step, and what was noted of that SYN counts. */
			old = TCP_SYN_SENT;
			new = TCP_SYN_RECV;
			other->end = other->max_end = tcp->last_end;
			other->max_window = tcp->last_window ?: 1;
			other->scale = tcp->last_scale;
			tcp->last_flags &= ~END_CHALLENGE_ACK;
			other->flags = tcp->last_flags;
			forget_end(&tcp->seen[dir]);
			goto window;
		}
		tcp->last_kind = kind;
		tcp->last_dir = dir;
		tcp->last_seq = p->seq;
		tcp->last_end = p->last;
		tcp->last_window = p->window;
		if (kind == TCP_IS_SYN && !dir) {
			tcp->last_flags = p->options;
			tcp->last_scale = p->options & END_WINDOW_SCALE ? p->scale : 0;
			if (old == TCP_LAST_ACK)
				tcp->last_flags |= END_CHALLENGE_ACK;
		}
		if (old == TCP_SYN_SENT && kind == TCP_IS_ACK && dir)
			tcp->last_ack = p->ack;
		o->as = AS_VALID_BUT_NO_LONGER;
		return;
	}
	if (new == TCP_TIME_WAIT) {
		if (old == TCP_LAST_ACK && kind == TCP_IS_ACK && tcp->last_dir != dir && tcp->last_kind == TCP_IS_SYN &&
		    tcp->last_flags & END_CHALLENGE_ACK) {
			tcp->last_flags &= ~END_CHALLENGE_ACK;
			o->as = AS_VALID_BUT_NO_LONGER;
			return;
		}
	} else if (new == TCP_SYN_SENT2) {
		tcp->last_flags |= END_SIMULTANEOUS;
	} else if (new == TCP_SYN_RECV) {
		if (dir && kind == TCP_IS_ACK && tcp->last_flags & END_SIMULTANEOUS)
			new = TCP_ESTABLISHED;
	} else if (new == TCP_CLOSE && kind == TCP_IS_RST) {
		struct tcp_end *receiver = &tcp->seen[dir ^ 1];
		int established = old == TCP_ESTABLISHED && status & IPS_ASSURED;

		if (closing(old))
			goto in_window;
		if (receiver->flags & END_MAX_ACK && tcp->last_kind != TCP_IS_SYN) {
			if (!p->seq && !established)
				goto window;
			if (before(p->seq, receiver->max_ack) && !t->ignore_rst)
				return;
			if (!established || p->seq == receiver->max_ack)
				goto window;
			if (tcp->last_kind == TCP_IS_ACK && tcp->last_dir == dir && p->seq == tcp->last_end)
				goto window;
			/* Perhaps answered by a challenge. */
			new = old;
		}
		if (((status & IPS_SEEN_REPLY && tcp->last_kind == TCP_IS_SYN) ||
		     (!(status & IPS_ASSURED) && tcp->last_kind == TCP_IS_ACK)) &&
		    p->ack == tcp->last_end)
			goto in_window;
		/* The answer to an acknowledgement of another connection's segment, which passed. */
		if (old == TCP_SYN_SENT && tcp->last_kind == TCP_IS_ACK && tcp->last_dir && p->seq == tcp->last_ack)
			goto in_window;
	}
window:
	in = in_window(tcp, p, dir, t->liberal);
	if (in == WINDOW_IGNORE) {
		o->as = AS_VALID_BUT_NO_LONGER;
		return;
	}
	if (in == WINDOW_OUT) {
		if (status & IPS_ASSURED && !(status & IPS_FIXED_TIMEOUT) &&
		    (kind == TCP_IS_RST || kind == TCP_IS_FIN)) {
			if (tcp->last_dir != dir && (tcp->last_kind == TCP_IS_FIN || tcp->last_kind == TCP_IS_RST)) {
				o->shorten = 1;
			} else {
				tcp->last_kind = kind;
				tcp->last_dir = dir;
			}
		}
		return;
	}
in_window:
	tcp->last_kind = kind;
	tcp->last_dir = dir;
	tcp->state = new;
	if (old != new &&new == TCP_FIN_WAIT)
		tcp->seen[dir].flags |= END_CLOSE_INIT;
	o->as = AS_VALID;
	o->state = new;
	o->old = old;
}

static __always_inline u32 longest(u32 seconds, u32 most)
{
	return seconds > most ? most : seconds;
}

/* A segment of the connection `at`; 0: of p->fresh. AS(). */
__noinline u64 track_tcp(struct __sk_buff *skb, struct flight *p, u32 at, u32 dir)
{
	struct connection *c;
	struct tracker *t = the_tracker();
	struct tcp_outcome o = {};
	struct policy *timeouts;
	u32 policy, seconds, status, lock = at & (LOCKS - 1);
	struct lock *l = bpf_map_lookup_elem(&locks, &lock);

	if (!p || !t || !l)
		return AS(AS_INVALID, 0);
	c = connection_or_fresh(p, at);
	if (!c)
		return AS(AS_INVALID, 0);
	if (!read_tcp(skb, p))
		return AS(AS_INVALID, 0);
	if (!at && !new_tcp(&c->tcp, p, t->loose))
		return AS(AS_INVALID, 0);
	bpf_spin_lock(&l->lock);
	tcp_transition(c, p, dir, t, &o);
	bpf_spin_unlock(&l->lock);
	policy = c->policy ?: POLICY_TCP;
	timeouts = bpf_map_lookup_elem(&policies, &policy);
	if (!timeouts)
		return AS(AS_INVALID, 0);
	if (o.shorten) {
		u64 shorter = p->now + timeouts->seconds[TCP_UNACKNOWLEDGED] * SECOND;

		if (c->expires >= p->now + UNCHANGING * SECOND && c->expires > shorter)
			c->expires = shorter;
	}
	if (o.as != AS_VALID)
		return AS(o.as, 0);
	seconds = timeouts->seconds[o.state & (POLICY_TIMEOUTS - 1)];
	if (c->tcp.retrans >= t->max_retrans && seconds > timeouts->seconds[TCP_RETRANS])
		seconds = timeouts->seconds[TCP_RETRANS];
	else if (p->kind == TCP_IS_RST)
		seconds = timeouts->seconds[TCP_CLOSE];
	else if ((c->tcp.seen[0].flags | c->tcp.seen[1].flags) & END_UNACKNOWLEDGED &&
		 seconds > timeouts->seconds[TCP_UNACKNOWLEDGED])
		seconds = timeouts->seconds[TCP_UNACKNOWLEDGED];
	else if (!c->tcp.last_window)
		seconds = longest(seconds, timeouts->seconds[TCP_RETRANS]);
	status = c->status;
	if (!(status & IPS_SEEN_REPLY)) {
		/* An answer to nobody's question is no connection. */
		if (p->kind == TCP_IS_RST)
			return AS(AS_LAST, 0);
		if (p->kind == TCP_IS_SYN && o.old == TCP_SYN_SENT)
			return AS(AS_VALID_BUT_NO_LONGER, 0);
		if (o.state == TCP_ESTABLISHED)
			seconds = longest(seconds, timeouts->seconds[TCP_UNACKNOWLEDGED]);
	} else if (!(status & IPS_ASSURED) && (o.old == TCP_SYN_RECV || o.old == TCP_ESTABLISHED) &&
		   o.state == TCP_ESTABLISHED) {
		__sync_fetch_and_or(&c->status, IPS_ASSURED);
	}
	return AS(AS_VALID, seconds);
}
