// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* TCP connections: states and timeouts. Modelled on nf_conntrack_proto_tcp.c of Linux 6.12. */
#pragma once

#include "ct_tcp_window.h"

#define UNCHANGING 120 /* seconds: invalid segments do not shorten a timeout below this */

/* clang-format off */
/* The verdict on a packet of a connection. */
enum tracked_as {
	AS_VALID,	/* and the connection lives for another p->timeout seconds */
	AS_VALID_BUT_NO_LONGER,	/* but it does not extend the connection's life */
	AS_LAST,	/* valid, and the connection is removed */
	AS_INVALID,
	AS_REOPENED,	/* the connection is removed, and the packet is classified again */
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

/* The next state, by direction, kind of segment and state. In a separate section: user space writes .rodata. */
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

/* Begin a connection with this segment. 0: it cannot begin one. */
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

/* Reset all but END_BE_LIBERAL (nf_ct_tcp_state_reset()). */
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
	bounded(old);
	bounded(kind);
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

			/* It answers an ignored SYN: both ends agree, so use what was noted of that SYN. */
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
			/* A challenge ACK may follow. */
			new = old;
		}
		if (((status & IPS_SEEN_REPLY && tcp->last_kind == TCP_IS_SYN && tcp->last_dir != dir) ||
		     (!(status & IPS_ASSURED) && tcp->last_kind == TCP_IS_ACK)) &&
		    p->ack == tcp->last_end)
			goto in_window;
		/* The reply to an ACK that belonged to another connection and passed. */
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

/* Handle a segment of the connection `at`; 0: of p->fresh. Returns AS(). */
__noinline u64 track_tcp(struct __sk_buff *skb, struct flight *p, u32 at, u32 dir)
{
	struct connection *c;
	struct tracker *t = the_tracker();
	struct tcp_outcome o = {};
	struct policy *timeouts;
	u32 seconds, status, lock = at & (LOCKS - 1);
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
	timeouts = timeouts_of(c, POLICY_TCP);
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
		/* A reply without a request does not begin a connection. */
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
