// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The connections of a node: the memory that its pipeline and those of its NICs share, and user space.
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
