// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* SCTP associations: states and verification tags. Modelled on nf_conntrack_proto_sctp.c of Linux 6.12. */
#pragma once

#include "ct_protocols.h"

/* clang-format off */
enum sctp_chunk {
	CHUNK_DATA = 0, CHUNK_INIT = 1, CHUNK_INIT_ACK = 2, CHUNK_HEARTBEAT = 4, CHUNK_HEARTBEAT_ACK = 5, CHUNK_ABORT = 6,
	CHUNK_SHUTDOWN_ACK = 8, CHUNK_COOKIE_ECHO = 10, CHUNK_COOKIE_ACK = 11, CHUNK_SHUTDOWN_COMPLETE = 14,
	CHUNK_KINDS = 15,	/* others change no state */
};

enum sctp_state {
	SCTP_NONE, SCTP_CLOSED, SCTP_COOKIE_WAIT, SCTP_COOKIE_ECHOED, SCTP_ESTABLISHED, SCTP_SHUTDOWN_SENT,
	SCTP_SHUTDOWN_RECD, SCTP_SHUTDOWN_ACK_SENT, SCTP_HEARTBEAT_SENT, SCTP_STATES, SCTP_INVALID,
};
/* clang-format on */

#define MAX_CHUNKS 16 /* a packet with more is invalid */
#define SCTP_T_BIT 1 /* of a chunk's flags: the tag is the other direction's */
#define HEARTBEAT_FAILED 1 /* of struct sctp_connection */

#define BIT(n) (1u << (n))
#define ALONE (BIT(CHUNK_INIT) | BIT(CHUNK_INIT_ACK) | BIT(CHUNK_SHUTDOWN_COMPLETE)) /* must be alone in a packet */
#define LEADING (BIT(CHUNK_COOKIE_ACK) | BIT(CHUNK_COOKIE_ECHO)) /* must come first */
#define NEVER_NEW (BIT(CHUNK_ABORT) | BIT(CHUNK_SHUTDOWN_COMPLETE) | BIT(CHUNK_COOKIE_ACK))
#define OWN_TAG_CHECK \
	(BIT(CHUNK_INIT) | BIT(CHUNK_SHUTDOWN_COMPLETE) | BIT(CHUNK_COOKIE_ECHO) | BIT(CHUNK_ABORT) | \
	 BIT(CHUNK_SHUTDOWN_ACK) | BIT(CHUNK_HEARTBEAT) | BIT(CHUNK_HEARTBEAT_ACK))

#define aNO SCTP_NONE
#define aCL SCTP_CLOSED
#define aCW SCTP_COOKIE_WAIT
#define aCE SCTP_COOKIE_ECHOED
#define aES SCTP_ESTABLISHED
#define aSS SCTP_SHUTDOWN_SENT
#define aSR SCTP_SHUTDOWN_RECD
#define aSA SCTP_SHUTDOWN_ACK_SENT
#define aHS SCTP_HEARTBEAT_SENT
#define aIV SCTP_INVALID

/* The next state, by direction, chunk and state. */
/* clang-format off */
static const u8 sctp_states[2][CHUNK_KINDS][SCTP_STATES] SEC(".rodata.sctp") = {
	{
		{ aNO, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },	/* DATA */
		{ aCL, aCL, aCW, aCE, aES, aCL, aCL, aSA, aCW },	/* INIT */
		{ aCL, aCL, aCW, aCE, aES, aSS, aSR, aSA, aCL },	/* INIT ACK */
		{ aNO, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },
		{ aHS, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },	/* HEARTBEAT */
		{ aCL, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },	/* HEARTBEAT ACK */
		{ aCL, aCL, aCL, aCL, aCL, aCL, aCL, aCL, aCL },	/* ABORT */
		{ aCL, aCL, aCW, aCE, aSS, aSS, aSR, aSA, aCL },	/* SHUTDOWN */
		{ aSA, aCL, aCW, aCE, aES, aSA, aSA, aSA, aSA },	/* SHUTDOWN ACK */
		{ aCL, aCL, aCW, aCE, aES, aSS, aSR, aSA, aCL },	/* ERROR */
		{ aCL, aCL, aCE, aCE, aES, aSS, aSR, aSA, aCL },	/* COOKIE ECHO */
		{ aCL, aCL, aCW, aES, aES, aSS, aSR, aSA, aCL },	/* COOKIE ACK */
		{ aNO, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },
		{ aNO, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },
		{ aCL, aCL, aCW, aCE, aES, aSS, aSR, aCL, aCL },	/* SHUTDOWN COMPLETE */
	},
	{
		{ aNO, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },	/* DATA */
		{ aIV, aCL, aCW, aCE, aES, aSS, aSR, aSA, aIV },	/* INIT */
		{ aIV, aCW, aCW, aCE, aES, aSS, aSR, aSA, aIV },	/* INIT ACK */
		{ aNO, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },
		{ aIV, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },	/* HEARTBEAT */
		{ aIV, aCL, aCW, aCE, aES, aSS, aSR, aSA, aES },	/* HEARTBEAT ACK */
		{ aIV, aCL, aCL, aCL, aCL, aCL, aCL, aCL, aIV },	/* ABORT */
		{ aIV, aCL, aCW, aCE, aSR, aSS, aSR, aSA, aIV },	/* SHUTDOWN */
		{ aIV, aCL, aCW, aCE, aES, aSA, aSA, aSA, aIV },	/* SHUTDOWN ACK */
		{ aIV, aCL, aCW, aCL, aES, aSS, aSR, aSA, aIV },	/* ERROR */
		{ aIV, aCL, aCE, aCE, aES, aSS, aSR, aSA, aIV },	/* COOKIE ECHO */
		{ aIV, aCL, aCW, aES, aES, aSS, aSR, aSA, aIV },	/* COOKIE ACK */
		{ aNO, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },
		{ aNO, aCL, aCW, aCE, aES, aSS, aSR, aSA, aHS },
		{ aIV, aCL, aCW, aCE, aES, aSS, aSR, aCL, aIV },	/* SHUTDOWN COMPLETE */
	},
};
/* clang-format on */

static __always_inline u32 next_state(u32 direction, u32 state, u32 kind)
{
	if (kind >= CHUNK_KINDS || state >= SCTP_STATES)
		return state;
	return READ_ONCE(sctp_states[direction & 1][kind][state]);
}

/* Read the tag that an INIT or INIT ACK at `place` demands of the other direction; -1: it is truncated. */
static __always_inline s64 init_tag(struct __sk_buff *skb, struct flight *p, u32 place)
{
	u32 tag;

	if (place + 20 > p->end || bpf_skb_load_bytes(skb, place + 4, &tag, 4))
		return -1;
	return tag;
}

/* Note the chunk at p->place, and advance. 1: done; 0: there is none; -1: the packet is invalid. */
__noinline int note_chunk(struct __sk_buff *skb, struct flight *p, struct sctp_connection *s, u32 fresh)
{
	u32 place, kind, known, length, state;
	s64 tag;
	u8 h[4];

	if (!p || !s)
		return -1;
	place = p->place;
	if (place + 4 > p->end || bpf_skb_load_bytes(skb, place, h, 4))
		return 0;
	kind = h[0];
	known = kind < 32 ? BIT(kind) : 0;
	length = h[2] << 8 | h[3];
	if (known & ALONE)
		p->alone = 1;
	if ((p->count && (p->alone || known & LEADING)) || !length || p->count == MAX_CHUNKS)
		return -1;
	p->chunks |= known;
	p->count++;
	p->place = place + ((length + 3) & ~3);
	if (!fresh)
		return 1;
	state = next_state(0, SCTP_NONE, kind);
	if (state == SCTP_NONE || state == SCTP_INVALID || known & NEVER_NEW)
		return -1;
	switch (kind) {
	case CHUNK_INIT:
		tag = init_tag(skb, p, place);
		if (p->tag || tag < 0)
			return -1;
		s->vtag[1] = tag;
		break;
	case CHUNK_HEARTBEAT:
		s->vtag[0] = p->tag;
		break;
	case CHUNK_SHUTDOWN_ACK:
		s->vtag[1] = p->tag;
		break;
	}
	return 1;
}

/*
 * Check the packet's tag for a chunk (RFC 9260, 8.5). 1: valid; 0: valid, but the chunk does not count; -1: invalid.
 */
static __always_inline int check_tag(struct flight *p, struct sctp_connection *s, u32 kind, u32 flags, u32 direction)
{
	u32 own = s->vtag[direction], other = s->vtag[!direction];

	switch (kind) {
	case CHUNK_INIT:
		return p->tag ? -1 : 1;
	case CHUNK_ABORT:
	case CHUNK_SHUTDOWN_COMPLETE:
		return p->tag == (flags & SCTP_T_BIT ? other : own) ? 1 : -1;
	case CHUNK_COOKIE_ECHO:
		return p->tag == own ? 1 : -1;
	case CHUNK_COOKIE_ACK:
		s->init[0] = s->init[1] = 0;
		return 1;
	case CHUNK_HEARTBEAT:
	case CHUNK_HEARTBEAT_ACK:
		if (!own) {
			s->vtag[direction] = p->tag;
		} else if (p->tag == own) {
			s->flags &= ~HEARTBEAT_FAILED;
		} else if (p->chunks & BIT(CHUNK_DATA) || p->silent) {
			return -1;
		} else if (kind == CHUNK_HEARTBEAT) {
			s->flags |= HEARTBEAT_FAILED;
			s->last_dir = direction;
			p->silent = 1;
			return 0;
		} else if (!(s->flags & HEARTBEAT_FAILED) || s->last_dir == direction) {
			return -1;
		} else {
			s->flags &= ~HEARTBEAT_FAILED;
			s->vtag[direction] = p->tag;
			s->vtag[!direction] = 0;
		}
	}
	return 1;
}

/* Note the tag that an INIT or INIT ACK demands of the other direction. Returns whether it is valid. */
static __always_inline int note_tag(struct __sk_buff *skb, struct flight *p, struct sctp_connection *s, u32 kind,
				    u32 direction)
{
	u32 other = !direction, was = s->vtag[other];
	s64 tag;

	if (kind != CHUNK_INIT && kind != CHUNK_INIT_ACK)
		return 1;
	tag = init_tag(skb, p, p->place);
	if (tag < 0)
		return 0;
	if (kind == CHUNK_INIT) {
		if (s->init[direction] && s->init[other])
			s->init[other] = 0;
		s->init[direction] = 1;
	} else if (was != (u32)tag && ((!s->init[other] && was) || (s->init[direction] && s->init[other]))) {
		return 0;
	}
	s->vtag[other] = tag;
	return 1;
}

/*
 * Apply the chunk at p->place to its association. 1: done; 2: done, and the association is assured; 0: there is no
 * chunk; -1: the packet is invalid.
 */
__noinline int follow_chunk(struct __sk_buff *skb, struct flight *p, struct sctp_connection *s, u32 fresh)
{
	u32 place, direction, old, new;
	int counts;
	u8 h[4];

	if (!p || !s)
		return -1;
	place = p->place;
	direction = p->reply & 1;
	if (place + 4 > p->end || bpf_skb_load_bytes(skb, place, h, 4))
		return 0;
	counts = check_tag(p, s, h[0], h[1], direction);
	if (counts < 0)
		return -1;
	old = s->state;
	new = next_state(direction, old, h[0]);
	if (counts) {
		if (new == SCTP_INVALID || !note_tag(skb, p, s, h[0], direction))
			return -1;
		if (h[0] == CHUNK_INIT && old == SCTP_CLOSED && new == SCTP_CLOSED && !fresh)
			p->silent = 1; /* a retransmission does not keep the association alive */
		s->state = p->state = new;
	}
	p->place = place + (((h[2] << 8 | h[3]) + 3) & ~3);
	return counts && old != new &&new == SCTP_ESTABLISHED ? 2 : 1;
}

/* Handle a packet of the connection `at`; 0: of p->fresh. Returns AS(). */
__noinline u64 track_sctp(struct __sk_buff *skb, struct flight *p, u32 at)
{
	struct connection *c;
	struct policy *timeouts;
	u32 first;
	int done = 1;

	if (!p)
		return AS(AS_INVALID, 0);
	c = connection_or_fresh(p, at);
	if (!c)
		return AS(AS_INVALID, 0);
	timeouts = timeouts_of(c, POLICY_SCTP);
	first = p->l4 + 12;
	if (!timeouts || first > p->end || bpf_skb_load_bytes(skb, p->l4 + 4, &p->tag, 4))
		return AS(AS_INVALID, 0);
	p->place = first;
	p->chunks = p->count = 0;
	p->alone = p->silent = p->state = 0;
	for (int i = 0; i <= MAX_CHUNKS && done > 0; i++)
		done = note_chunk(skb, p, &c->sctp, !at);
	if (done < 0 || !p->count)
		return AS(AS_INVALID, 0);
	if (!(p->chunks & OWN_TAG_CHECK) && p->tag != c->sctp.vtag[p->reply & 1])
		return AS(AS_INVALID, 0);
	p->place = first;
	done = 1;
	for (int i = 0; i < MAX_CHUNKS && done > 0; i++) {
		done = follow_chunk(skb, p, &c->sctp, !at);
		if (done == 2)
			__sync_fetch_and_or(&c->status, IPS_ASSURED);
	}
	if (done < 0)
		return AS(AS_INVALID, 0);
	return AS(p->silent ? AS_VALID_BUT_NO_LONGER : AS_VALID, timeouts->seconds[p->state & (POLICY_TIMEOUTS - 1)]);
}
