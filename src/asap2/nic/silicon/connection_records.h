// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The memory of a node's connections, which its pipeline, those of its NICs and user space share.
 *
 * A record is in the array `connections`; the hash map `tuples` finds it. Both directions of a connection without NAT
 * share one key, the lesser of its two tuples, so that two CPUs that see the first packet of each direction at the same
 * time cannot both insert it. A connection with NAT has two keys, marked EXACT. A key may outlive its record for a
 * moment, so compare the tuple after each lookup. Whoever clears CONFIRMED frees the record.
 */
#pragma once

#include "copies.h"

#define SECOND 1000000000ULL

/* IPv4 addresses are in the last octets. For ICMP, the ports are the id, and type and code; for GRE, keys. */
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

#define MAPPINGS 2 /* of one source that are known at a time */

#define EXACT 0x80 /* bit in a key's family */

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
 * Four cache lines: the first and third have what hardware needs for a packet in the original direction, the second has
 * the reply's tuple, and the fourth the protocols' states.
 */
struct connection {
	struct tuple original;
	u32 status; /* IPS_*; 0: no connection */
	u32 mark;
	u64 expires; /* ns of CLOCK_MONOTONIC */
	u64 used; /* last used by hardware, ns */
	struct tuple reply;
	u32 event_mask;
	u8 policy, helper, mapped, unused; /* mapped: counted among those with its source's mapping (ct_sources.h) */
	u32 uncounted; /* closed, and so no longer counted by its zone */
	u32 holders; /* itself while it exists, and connections whose master it is; its tuple stays until there is none */
	u8 more_unused[8];
	u64 packets[2], bytes[2];
	u8 labels[16];
	u64 started; /* ns */
	u32 id, master; /* master: the number of a record */
	union {
		struct tcp_connection tcp;
		struct sctp_connection sctp;
		u64 stream; /* UDP: when it becomes a stream, ns */
		u64 proto[8];
	};
};
_Static_assert(sizeof(struct connection) == 4 * 64, "connection");

/* State shared by all connections. */
struct tracker {
	u32 count, max; /* number of connections, and its limit */
	u32 next; /* first record that has never been used */
	u32 ids; /* the last id assigned */
	u32 events; /* CT_EVENT_* that a program listens to */
	u32 translated; /* whether there has been a connection with NAT */
	u8 liberal, loose, max_retrans, ignore_rst; /* nf_conntrack_tcp_* */
	u32 expecting; /* whether there has been an expectation */
	u8 checksum; /* nf_conntrack_checksum */
	u8 acct, timestamp, unused[5]; /* for user space: whether programs see counters and times */
};

/* A connection that a helper expects, found by its original tuple without the source port. */
struct expectation {
	struct tuple reply; /* if NAT changes it; its destination port is the actual source port */
	u64 expires; /* ns of CLOCK_MONOTONIC */
	u32 master, master_id; /* the connection that it belongs to */
	u32 status, unused; /* initial IPS_* */
};

/* What NAT has made of a source: address, and port, ICMP id or GRE key. And how many connections have it. */
struct mapping {
	u64 w[2];
	u16 port, unused;
	u32 connections;
};

struct source {
	struct bpf_spin_lock lock;
	u32 tag; /* what it is of; 0: just made */
	struct mapping mappings[MAPPINGS];
};

struct zone {
	u32 count, limit, limited;
	u32 hand; /* where the search for connections that do not count goes on */
};

struct policy {
	u32 seconds[POLICY_TIMEOUTS];
	char name[POLICY_NAME]; /* if an action can name it; this and the rest is for user space */
	u16 family;
	u8 protocol, unused[5];
};

/* nf_conntrack_stat */
struct tracker_stats {
	u64 found, invalid, insert, insert_failed, drop, early_drop, error, clash, carried;
};

/* An event of a connection, which user space announces to the programs that listen. */
struct ct_event {
	u64 now;
	u32 at, events; /* enum ct_event_bit */
	struct connection connection;
};

#define INSIDE 256 /* octets of the packet quoted in an ICMP error that NAT may change */

/* The search for a free port. */
struct port_search {
	u32 offset, least, size, attempts, left, manip;
	u32 vacate; /* the record of an ended connection that has the port that was found; 0: none has */
};

/* The sum of a packet's octets from `at` to `end` */
struct checksum {
	u32 at, end, sum;
	u16 field, covered; /* the checksum in the packet; the octets that UDP-Lite's covers */
};

/* The search for connections that no longer count in a zone that has reached its limit. */
struct zone_search {
	u32 zone, from, records;
};

/* What a packet inside a tunnel had before NAT. */
struct untranslated {
	u32 l3, l4, check; /* where its headers begin, and the checksum of the transport header; 0: it has none */
	u32 ports;
	u16 l3_check, l4_check;
	u8 family, addresses[32];
};

/* What is known of a packet while it is tracked. */
struct flight {
	struct tuple tuple, inverse, key;
	u64 now;
	u32 l3, l4, end;
	u32 seq, ack, sack, last; /* of TCP; `last` is the sequence number after the segment */
	union {
		u8 option[40];
		u32 option_words[10];
		struct { /* of SCTP */
			u32 tag; /* network byte order */
			u32 place, count, chunks; /* the chunk, the number before it, and a bit for each kind */
			u8 alone, silent, state;
		};
	};
	u16 window;
	u8 flags, kind, header, scale, options, sacked, fragment, error;
	u32 option_at, option_end;
	u32 at, reply, info; /* the connection's record (0: `fresh`), the direction, and enum ct_info */
	u32 events; /* enum ct_event_bit: events that the packet has caused */
	u32 looked; /* this action looked it up, or it is new: its helper has not seen the packet */
	u32 old_status, old_state; /* of the connection, before the packet */
	u32 policy; /* timeout policy of a new connection */
	u32 quiet; /* user space itself announces removals */
	u32 from; /* of a NIC's action: where the packet's Ethernet header is */
	u32 ovs, known; /* of the action: it is Open vSwitch's; an earlier one found the connection */
	u32 redirect, damaged, inner_proto; /* of an ICMP error and the packet quoted in it */
	struct connection fresh;
	struct tuple wanted, present, chosen, target; /* of NAT */
	struct mapping mapping, mappings[MAPPINGS];
	u64 no_source[sizeof(struct source) / 8]; /* always 0 */
	struct tracking null;
	union packed packed; /* the packet's key, with the fields of its connection */
	struct port_search ports;
	struct zone_search search;
	struct checksum checksum;
	u8 inside[2][INSIDE];
	struct untranslated before;
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
	__type(key, struct tuple); /* zone, protocol, address and port */
	__type(value, struct source);
} sources SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
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
