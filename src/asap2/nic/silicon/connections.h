// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The connections of a node: the memory that its pipeline and those of its NICs share, and how one is found, remembered
 * and forgotten.
 *
 * A record lies in an array, `connections`. A hash map, `tuples`, finds it: both directions of a connection that NAT does
 * not change have one key, the lesser of its two tuples, so that two processors that see the first packet of either
 * direction at once cannot both remember it. One with NAT has two keys, which say that they are exact. Who finds a record
 * compares the tuple: a key may outlive what it names for a moment. Who clears CONFIRMED has the record to bury.
 */
#pragma once

#include "copies.h"

#define SECOND 1000000000ULL

/* IPv4 addresses are in the last octets. Of ICMP the ports are the id, and type and code; of GRE, keys. */
struct tuple {
	union {
		struct {
			u8 src[16], dst[16];
			u16 src_port, dst_port, zone;
			u8 proto, family; /* 4 or 6 */
		};
		u64 w[5];
	};
};

#define EXACT 0x80 /* of a key's family */

/* One end of a TCP connection (struct ip_ct_tcp_state). */
struct tcp_end {
	u32 end, max_end, max_window, max_ack;
	u8 scale, flags;
	u16 unused;
};

struct tcp_connection {
	struct tcp_end seen[2];
	u8 state, last_dir, retrans, last_kind;
	u32 last_seq, last_ack, last_end;
	u16 last_window;
	u8 last_scale, last_flags;
};

struct sctp_connection {
	u32 vtag[2]; /* network byte order */
	u8 state, init[2], last_dir, flags;
};

/*
 * Four lines of a processor's cache: what hardware needs of a packet in the original direction is in the first and the
 * third, the reply's tuple is in the second, and the states of protocols in the last.
 */
struct connection {
	struct tuple original;
	u32 status; /* IPS_*; 0: no connection */
	u32 mark;
	u64 expires; /* ns of CLOCK_MONOTONIC */
	u64 used; /* by hardware, ns */
	struct tuple reply;
	u32 event_mask;
	u8 policy, helper, unused[18];
	u64 packets[2], bytes[2];
	u8 labels[16];
	u64 started; /* ns */
	u32 id, master; /* master: the number of a record */
	union {
		struct tcp_connection tcp;
		struct sctp_connection sctp;
		u64 stream; /* of UDP: from when on it is one, ns */
		u64 proto[8];
	};
};
_Static_assert(sizeof(struct connection) == 4 * 64, "connection");

/* Of all connections. */
struct tracker {
	u32 count, max; /* how many there are, and may be */
	u32 next; /* records from this number on have never been used */
	u32 ids; /* the last id that was given out */
	u32 events; /* CT_EVENT_* that somebody listens to */
	u32 translated; /* there has been a connection with NAT */
	u8 liberal, loose, max_retrans, ignore_rst; /* nf_conntrack_tcp_* */
	u32 expecting; /* there has been an expectation */
	u8 acct, timestamp, unused[6]; /* user space's: what programs see of each connection */
};

/* A connection that a helper expects: it is found by its original tuple without the source port. */
struct expectation {
	struct tuple reply; /* where NAT changes it; the port of its destination is the source's */
	u64 expires; /* ns of CLOCK_MONOTONIC */
	u32 master, master_id; /* the connection that it belongs to */
	u32 status, unused; /* IPS_* that it begins with */
};

struct zone {
	u32 count, limit, limited, unused;
};

struct policy {
	u32 seconds[POLICY_TIMEOUTS];
	char name[POLICY_NAME]; /* of one that an action names; this and what follows is user space's */
	u16 family;
	u8 protocol, unused[5];
};

/* nf_conntrack_stat */
struct tracker_stats {
	u64 found, invalid, insert, insert_failed, drop, early_drop, error, clash, carried;
};

/* What has happened to a connection, for user space, which tells programs that listen. */
struct ct_event {
	u64 now;
	u32 at, events; /* enum ct_event_bit */
	struct connection connection;
};

#define INSIDE 256 /* octets of the packet in an ICMP error that NAT may change */

/* The search for a port that is free. */
struct port_search {
	u32 offset, least, size, attempts, left, manip;
};

/* What is known of a packet while it is tracked. */
struct flight {
	struct tuple tuple, inverse, key;
	u64 now;
	u32 l3, l4, end;
	u32 seq, ack, sack, last; /* of TCP; `last` is the sequence number behind the segment */
	u32 segment; /* octets from the network header on */
	union {
		u8 option[40];
		u32 option_words[10];
		struct { /* of SCTP */
			u32 tag; /* network byte order */
			u32 place, count,
				chunks; /* the chunk, how many came before, and a bit for each kind there is */
			u8 alone, silent, state;
		};
	};
	u16 window;
	u8 flags, kind, header, scale, options, sacked, fragment, error;
	u32 option_at, option_end;
	u32 looked; /* for the connection now, or it is new: its helper has not seen the packet */
	u32 at, reply, info; /* of the connection: its record (0: `fresh`), the direction, and enum ct_info */
	u32 events; /* enum ct_event_bit: what the packet has done to its connection */
	u32 old_status, old_state; /* of the connection, before the packet */
	u32 quiet; /* user space itself tells of what is forgotten */
	u32 redirect, inner_proto; /* of the packet in an ICMP error */
	struct connection fresh;
	struct tuple wanted, present, chosen, target; /* of NAT */
	struct tracking null;
	union packed packed; /* as rules see it, with what is known of its connection */
	struct port_search ports;
	u8 inside[2][INSIDE];
};

MMAPPED(connections, struct connection, 1);
MMAPPED(tracker, struct tracker, 1);
MMAPPED(zones, struct zone, 65536);
MMAPPED(policies, struct policy, POLICIES);
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct tuple);
	__type(value, u32);
} tuples SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct tuple);
	__type(value, struct expectation);
} expectations SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, u32);
} free_connections SEC(".maps");
struct lock {
	struct bpf_spin_lock lock;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOCKS);
	__type(key, u32);
	__type(value, struct lock);
} locks SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct tracker_stats);
} tracker_stats SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct flight);
} flights SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} ct_events SEC(".maps");

static __always_inline struct flight *this_flight(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&flights, &zero);
}

static __always_inline struct tracker_stats *this_tracker_stats(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&tracker_stats, &zero);
}

static __always_inline struct tracker *the_tracker(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&tracker, &zero);
}

static __always_inline struct connection *connection_at(u32 at)
{
	return bpf_map_lookup_elem(&connections, &at);
}

static __always_inline u64 tracker_now(void)
{
	u32 zero = 0;
	struct config *c;

	if (!constants.tracing)
		return bpf_ktime_get_coarse_ns();
	c = bpf_map_lookup_elem(&config, &zero);
	return c ? c->test_now : 0;
}

/* The type of the ICMP message that answers one of this type; 0xff: none does. */
static __always_inline u8 icmp_answer(u8 type, u32 family)
{
	if (family == 4)
		return type == 8 ? 0 : type == 0 ? 8 : type >= 13 && type <= 18 ? ((type - 1) ^ 1) + 1 : 0xff;
	return type == 128 ? 129 : type == 129 ? 128 : type == 139 ? 140 : type == 140 ? 139 : 0xff;
}

/* The tuple of packets in the other direction. 0: there are none. */
static __always_inline int invert(const struct tuple *t, struct tuple *inverse)
{
	u32 icmp = t->proto == (t->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	u8 type = bpf_ntohs(t->dst_port) >> 8;

	__builtin_memcpy(inverse->src, t->dst, 16);
	__builtin_memcpy(inverse->dst, t->src, 16);
	inverse->zone = t->zone;
	inverse->proto = t->proto;
	inverse->family = t->family;
	if (!icmp) {
		inverse->src_port = t->dst_port;
		inverse->dst_port = t->src_port;
		return 1;
	}
	type = icmp_answer(type, t->family);
	inverse->src_port = t->src_port;
	inverse->dst_port = bpf_htons((u16)type << 8 | (bpf_ntohs(t->dst_port) & 0xff));
	return type != 0xff;
}

static __always_inline int same_tuple(const struct tuple *a, const struct tuple *b)
{
	u64 differ = 0;

#pragma unroll
	for (int i = 0; i < 5; i++)
		differ |= a->w[i] ^ b->w[i];
	return !differ;
}

/* An order of tuples, any. */
static __always_inline int before_tuple(const struct tuple *a, const struct tuple *b)
{
#pragma unroll
	for (int i = 0; i < 5; i++)
		if (a->w[i] != b->w[i])
			return a->w[i] < b->w[i];
	return 1;
}

static __always_inline void key_of(struct tuple *key, const struct tuple *one, const struct tuple *other)
{
	*key = before_tuple(one, other) ? *one : *other;
}

static __always_inline void exact_key_of(struct tuple *key, const struct tuple *one)
{
	*key = *one;
	key->family |= EXACT;
}

/* The record `at`, or where there is none yet, the new connection. */
static __always_inline struct connection *connection_or_fresh(struct flight *p, u32 at)
{
	return at ? connection_at(at) : &p->fresh;
}

/* Tell user space what has happened to a connection, if somebody listens to that, and the connection may tell. */
static __always_inline void announce(struct connection *c, u32 at, u32 events)
{
	struct tracker *t = the_tracker();
	struct ct_event *e;

	if (!t || !(READ_ONCE(t->events) & events) || !(c->event_mask & events))
		return;
	e = bpf_ringbuf_reserve(&ct_events, sizeof(*e), 0);
	if (!e)
		return;
	e->now = tracker_now();
	e->at = at;
	e->events = events;
	e->connection = *c;
	bpf_ringbuf_submit(e, 0);
}

/* Forget a connection: 1 when it was there. The key is where p->key was. */
__noinline int forget(struct flight *p, u32 at)
{
	struct connection *c = connection_at(at);
	struct tracker *t = the_tracker();
	struct zone *z;
	u32 was, zone;

	if (!p || !c || !t)
		return 0;
	was = __sync_fetch_and_and(&c->status, ~IPS_CONFIRMED);
	if (!(was & IPS_CONFIRMED))
		return 0;
	if (was & IPS_NAT_MASK) {
		exact_key_of(&p->key, &c->original);
		bpf_map_delete_elem(&tuples, &p->key);
		exact_key_of(&p->key, &c->reply);
	} else {
		key_of(&p->key, &c->original, &c->reply);
	}
	bpf_map_delete_elem(&tuples, &p->key);
	if (!p->quiet)
		announce(c, at, CT_EVENT_DESTROY);
	zone = c->original.zone;
	z = bpf_map_lookup_elem(&zones, &zone);
	if (z)
		__sync_fetch_and_add(&z->count, -1);
	__sync_fetch_and_add(&t->count, -1);
	c->status = 0;
	bpf_map_push_elem(&free_connections, &at, 0);
	return 1;
}

/*
 * The record that a key names, if it is that of a connection with the packet's tuple: its number, doubled, and the
 * direction; 0. `*stale`: the number of one whose time is over.
 */
static __always_inline u32 peek(struct flight *p, u32 *stale)
{
	u32 at, *found, reply;
	struct connection *c;

	*stale = 0;
	found = bpf_map_lookup_elem(&tuples, &p->key);
	if (!found)
		return 0;
	at = READ_ONCE(*found);
	c = connection_at(at);
	if (!c || !(READ_ONCE(c->status) & IPS_CONFIRMED))
		return 0;
	/* Where both are the same, the kernel, too, sees the reply first. Without NAT that is so of a tuple's own inverse. */
	if (same_tuple(&c->original, &p->tuple))
		reply = same_tuple(p->key.family & EXACT ? &c->reply : &p->inverse, &p->tuple);
	else if (same_tuple(&c->reply, &p->tuple))
		reply = 1;
	else
		return 0;
	if (READ_ONCE(c->expires) <= p->now) {
		*stale = at;
		return 0;
	}
	return at << 1 | reply;
}

/* The same; one whose time is over is forgotten. */
__noinline u32 found_by_key(struct flight *p)
{
	u32 found, stale;

	if (!p)
		return 0;
	found = peek(p, &stale);
	if (stale)
		forget(p, stale);
	return found;
}

/* The connection of p->tuple, whose inverse is p->inverse: the number of its record, doubled, and the direction; 0. */
static __always_inline u32 find_connection(struct flight *p)
{
	struct tracker *t = the_tracker();
	u32 found;

	key_of(&p->key, &p->tuple, &p->inverse);
	found = found_by_key(p);
	if (found || !t || !READ_ONCE(t->translated))
		return found;
	exact_key_of(&p->key, &p->tuple);
	return found_by_key(p);
}

/* Whether a connection has p->key that is not the same as p->fresh, for another packet that was faster. */
static __always_inline int key_taken(struct flight *p)
{
	u32 stale, found = peek(p, &stale);
	struct connection *c = connection_at(found >> 1);

	return found && c && !same_tuple(&c->original, &p->fresh.original);
}

/*
 * Whether a connection has p->tuple, so that the new p->fresh cannot. It forgets none: NAT asks from deep within (at most
 * 8 calls may be nested).
 */
static __always_inline int tuple_taken(struct flight *p)
{
	if (!invert(&p->tuple, &p->inverse))
		return 0;
	key_of(&p->key, &p->tuple, &p->inverse);
	if (key_taken(p))
		return 1;
	exact_key_of(&p->key, &p->tuple);
	return key_taken(p);
}

/* Whether a connection has this tuple; one whose time is over is forgotten. */
static __always_inline int occupied(struct flight *p, const struct tuple *one, const struct tuple *inverse)
{
	p->tuple = *one;
	p->inverse = *inverse;
	return find_connection(p) != 0;
}

/* Let p->key name the record. 0: done. A key that names nothing any more gives way. */
static __always_inline int name(struct flight *p, u32 at)
{
	if (!bpf_map_update_elem(&tuples, &p->key, &at, BPF_NOEXIST))
		return 0;
	p->tuple = p->key;
	p->tuple.family &= ~EXACT;
	if (found_by_key(p))
		return -1;
	return bpf_map_update_elem(&tuples, &p->key, &at, BPF_NOEXIST) ? -1 : 0;
}

/* A free record's number; 0: none. */
static __always_inline u32 take_record(struct tracker *t)
{
	u32 at = 0;

	if (!bpf_map_pop_elem(&free_connections, &at) && at)
		return at;
	if (READ_ONCE(t->next) > t->max)
		return 0;
	at = __sync_fetch_and_add(&t->next, 1);
	return at && at <= t->max ? at : 0;
}

/* Remember p->fresh: the number of its record; 0: there is no room; -1: another connection has one of its tuples. */
__noinline int insert(struct flight *p)
{
	struct tracker *t = the_tracker();
	struct tracker_stats *s = this_tracker_stats();
	struct connection *c;
	struct zone *z;
	u32 at, zone;
	int failed, nat;

	if (!p || !t || !s)
		return 0;
	nat = p->fresh.status & IPS_NAT_MASK;
	/* A key that is exact and one that is not are not the same. */
	if (nat || t->translated) {
		invert(&p->fresh.original, &p->wanted);
		invert(&p->fresh.reply, &p->present);
		if (occupied(p, &p->fresh.original, &p->wanted) || occupied(p, &p->fresh.reply, &p->present)) {
			s->insert_failed++;
			return -1;
		}
	}
	if (__sync_fetch_and_add(&t->count, 1) >= t->max)
		goto full;
	at = take_record(t);
	if (!at)
		goto full;
	c = connection_at(at);
	if (!c)
		goto full;
	if (!p->fresh.id)
		p->fresh.id = __sync_fetch_and_add(&t->ids, 1) + 1;
	p->fresh.status |= IPS_CONFIRMED;
	*c = p->fresh;
	if (nat) {
		t->translated = 1;
		exact_key_of(&p->key, &p->fresh.original);
		failed = name(p, at);
		if (!failed && !same_tuple(&p->fresh.original, &p->fresh.reply)) {
			exact_key_of(&p->key, &p->fresh.reply);
			failed = name(p, at);
			if (failed) {
				exact_key_of(&p->key, &p->fresh.original);
				bpf_map_delete_elem(&tuples, &p->key);
			}
		}
	} else {
		key_of(&p->key, &p->fresh.original, &p->fresh.reply);
		failed = name(p, at);
	}
	if (failed) {
		c->status = 0;
		bpf_map_push_elem(&free_connections, &at, 0);
		__sync_fetch_and_add(&t->count, -1);
		s->insert_failed++;
		return -1;
	}
	zone = p->fresh.original.zone;
	z = bpf_map_lookup_elem(&zones, &zone);
	if (z)
		__sync_fetch_and_add(&z->count, 1);
	s->insert++;
	return at;
full:
	__sync_fetch_and_add(&t->count, -1);
	return 0;
}
