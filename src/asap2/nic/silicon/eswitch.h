// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What the parts of the eSwitch program share: types, maps, one packet's state, counting and tracing. */
#pragma once

#include "base.h"

#define L2_WINDOW 22 /* Ethernet header and two tags */
#define CHAIN_MASK (0x7fffffff & ~LIMITS)

#define UPCALL_RESERVE(limit) (((limit) + 7) / 8) /* units beyond it for what is about neighbours */
#define UPCALL_PATIENCE 1000000000 /* ns; a port that may hand over no more is given one try after each such time */
#define AS_OVS 0x10000 /* of an offset that is given to the parser: see the packet as Open vSwitch does */

#define TUNNEL_PORT(flags) ((flags) >> 16) /* of a tunnel device: what its packets came to */
union packed {
	struct fields f;
	u64 w[WORDS];
};

struct key {
	u32 node;
	u32 unused;
	u64 w[WORDS];
};

/* Of a rule that is not about tracked connections: the first of the same. */
struct short_key {
	u32 node;
	u32 unused;
	u64 w[WORDS - TRACKED];
};

struct port {
	u32 id, ifindex, flags;
	u16 miss, tell;
	u32 miss_slot;
	u16 n_tables, slot; /* its own number */
	u32 tables[STAGES];
	u8 mac[6];
	u16 kind; /* user space's */
	u32 hints[2 * STAGES]; /* the program's: where it last found the mask lists of each table, tunnels' last */
	u32 behind_hint, unused; /* and that of the chain that packets went on to */
	/*
	 * Its packets for user space, in units of UPCALL_UNIT bytes begun. `given`: handed over so far; `taken`: those that
	 * user space is done with, by user space. `refused`: packets lost here; `since`: when the last was handed over, ns.
	 */
	u64 given, taken, refused, since;
	u64 delivered, failed; /* user space's: packets that reached their receiver, and that were lost later */
};

struct mask_list_id {
	u32 table, in_port;
};

struct mask_list {
	u64 generation; /* 0: not in use */
	u32 table, in_port;
	u32 first; /* node; 0: none */
	u32 merged; /* node whose mask is the union of all in the list */
};

struct node {
	u32 next; /* 0: end of list */
	u32 list;
	u32 priority;
	u32 width; /* where the mask has bits: enum width */
	u64 mask[WORDS];
};

struct rule {
	u32 node;
	u32 actions; /* entry; 0: none */
};

struct entry {
	u32 next;
	u32 op;
	u64 arg;
};

/* What an action "ct" asks for (rules.py: Ct). */
struct tracking {
	u16 zone, flags; /* enum ct_flag */
	u32 mark, mark_mask, event_mask;
	u8 labels[16], labels_mask[16];
	u8 ip_min[16], ip_max[16];
	u16 port_min, port_max;
	u8 policy, helper, family, octets; /* octets: of an address of the range; 0: it has none */
	u32 resume; /* of the hardware's */
};

/* What an action "psample" is to do and to tell (rules.py: Psample). */
struct sampling {
	u32 group, rate, every, length;
	u32 ifindex, out;
	u16 flags, cookie_len; /* enum sample_flag */
	u8 cookie[SAMPLE_COOKIE];
	u8 tos, ttl;
	u16 tp_dst; /* of a tunnel that the action itself names */
	u32 id;
	u8 src[16], dst[16];
};

/* Outer headers that wait for lengths, hash and checksum; or, for OP_SET_TUNNEL, the metadata. */
struct encap {
	u16 len; /* bytes of headers */
	u8 ip, l4; /* where the IP header begins, and what follows it */
	u16 has_udp; /* that is a UDP header */
	u16 kind; /* user space's: encaps.py */
	union {
		u8 header[OUTER_MAX];
		struct {
			u64 id;
			u8 src[16], dst[16];
			u8 tos, ttl, ipv6, csum;
			u16 dont_fragment;
			u8 without_id, options_len;
			u8 options[SET_OPTIONS_MAX];
		} meta;
		struct tracking tracking;
		struct sampling sampling;
	};
};

/*
 * What skb->tc_index, which nobody sees, tells the node of a packet that the NIC did not finish: at which chain it is to
 * go on, as having come in by which port (slot; 0: where it is), or to which port it goes, or within the actions of which
 * rule. mlx5 uses metadata register c0.
 */
struct resume {
	u32 table; /* DELIVER: to the port `slot` */
	u32 slot;
	u32 rule, entry; /* what the packet counts for, and the action list to go on with; 0: it is looked up */
};

/* What a packet, and a copy of it, has beside its octets and what the kernel knows. */
struct state {
	u32 dp_hash;
	u32 max_len; /* of what is sent next; 0: all */
	u32 given_tunnel; /* slot of `encaps`: the metadata that an action gave it; 0: none has */
	u32 arrived; /* bytes that came in, without the outer tag */
	u8 no_ethernet;
	u8 layered; /* headers have been put in front */
	u8 released; /* the metadata that the packet came with counts no more */
	u8 lookups; /* so many so far */
	u8 depth; /* of copies of copies */
	u8 single; /* of the action list, the first alone */
	u8 has_hash; /* of a packet that user space hands in */
	u8 stage; /* which of its port's tables it is in */
	struct tracked tracked;
	u32 connection, connection_id; /* the record of its connection, and what its id was */
	u16 ct_id; /* of ICMP, where its connection is new */
	u8 ct_known, ct_info; /* enum ct_known, enum ct_info */
	u8 enveloped; /* headers have been put in front: the kernel may not cut what is behind */
	u8 translated; /* by a NIC, inside its tunnel, and not changed since: struct untranslated has what was there */
	u16 mru; /* user space has put it together of fragments, the largest so long; 0: it has not */
};

/*
 * How a copy of a packet, or a packet that user space hands in, goes on: with the action list `entry`. It begins at the
 * egress of the upcall device, where nothing else sees it.
 */
struct continuation {
	u32 active; /* of a copy: it is on its way there */
	u32 slot; /* the port it came in by */
	u32 table, entry;
	u32 tunnel; /* slot of `encaps`: the metadata that it came with; 0: none */
	u32 mark, priority, hash; /* of a packet that user space hands in */
	u32 tracking; /* as in struct way: it is to be tracked first; 0: it is not */
	u32 rest; /* not used */
	struct state state;
};

struct count {
	u64 packets, bytes, used, unused;
};

/* A line of a processor's cache, or more where the union of masks is wide. */
struct cached {
	u64 generation; /* 0: empty */
	u32 rule; /* 0: no rule matches */
	u32 other; /* its other bucket's number, exclusive-or this one's */
	u64 narrow[NARROW];
};

struct wide_cached {
	struct cached first;
	u64 rest[REST];
};

/* Many masks of rules on connections need nothing of the rest: it comes last. */
struct stateful_cached {
	struct cached first;
	u64 tracked[TRACKED], rest[REST];
};

struct bucket {
	struct cached way[2];
};

struct wide_bucket {
	struct wide_cached way[2];
};

struct stateful_bucket {
	struct stateful_cached way[2];
};

/* A meter: meter.h. */
struct meter {
	u64 full_at, peak_full_at; /* when its buckets are full again, ns: the program's */
	u64 burst, peak_burst; /* what they hold, ns */
	u64 packets, bytes, over_packets, over_bytes, over, used;
	u64 owner; /* user space's: meters.py; 0: not in use */
	u32 mult, shift, peak_mult, peak_shift; /* an octet or a packet costs mult >> shift ns; mult 0: no limit */
	u32 most; /* octets of a packet; 0: any number */
	u32 least, overhead; /* octets that each packet counts at the least, and in addition */
	u32 flags; /* enum meter_flag, and above them enum counting; 0: packets pass */
};

struct stats {
	u64 drops[DROP_REASONS];
	/* [0]: TC chains, [1]: Open vSwitch tables */
	u64 hit[2], missed[2], probes[2], cache_hits[2];
};

struct upcall {
	u32 mark;
	u32 kind; /* enum upcall_kind */
	u32 in_port, table;
	u64 cookie;
	u32 hash, len, max_len, units;
	u64 at; /* its port's `given`, with this one */
	u32 mru;
	u32 tunnel; /* of what is to be cut: state.given_tunnel */
	union packed key;
	u32 options_len, unused; /* of the tunnel that the packet came in */
	u8 options[OPTIONS_MAX];
};

struct config {
	u32 upcall_ifindex, test_hash;
	u64 generation; /* user space's: the last that was given out */
	u32 traced, test_len;
	u32 test_ifindex, test_tpid, test_tci, test_tunnel;
	u32 max_rules, shards; /* user space's */
	u32 test_resume;
	u16 tunnels; /* of tunnel_ports: those behind are not in use */
	u16 tunnel_ports[TUNNEL_PORTS]; /* network byte order; 0: none */
	u16 unused;
	u32 option_kinds[OPTION_KINDS]; /* headers of options that rules match on, network byte order; 0: none */
	u32 upcall_limit, upcalls; /* units that a port may have on their way, 0: any number; the program's sequence */
	u64 failed; /* user space's: packets lost after they were handed over, of all ports that there ever were */
	struct tracked test_tracked;
	u64 test_now; /* the time, ns */
	u32 test_restore, sampled; /* sampled: somebody listens to samples */
};

/* One packet on its way. */
struct way {
	union packed p;
	struct state state;
	u32 table, node, rule, entry;
	u32 slot; /* of the port that it came in by */
	u32 tracking; /* of FLOW_TRACK and FLOW_CARRY: the slot of what is asked for */
	u32 told; /* what a NIC has said of the packet's connection (carry.h) */
	u32 counted, counted_packets; /* the rule that has counted the packet last, and what */
	u64 counted_bytes;
	int verdict;
	u16 inner; /* where the packet in a tunnel begins; 0: in none; METADATA: the kernel took it out */
	u16 probes;
	u16 resume; /* what the node is told when no rule matches */
	u8 within; /* a NIC has found `rule`, and left the packet within its actions, at `entry` */
	u8 egress, parsed, sent, flow; /* enum parsed, enum flow */
	u8 plain; /* the rules for tunnels have been tried */
};

/*
 * Those of a processor. A run of the program that sends a packet may meet itself in the middle, as with a copy, or where
 * the kernel sends a tunnel's packet at once: each run has its own.
 */
#define WAYS 10
struct ways {
	u32 deep, unused;
	struct way way[WAYS];
};

struct trace {
	u32 event, arg;
	u64 cookie;
	u32 table, vlan; /* vlan: tpid << 16 | tci, host order; 0: none in the metadata */
	u32 len, tunnel; /* bytes of an address of the tunnel's, 4 or 16; 0: no metadata of a tunnel */
	struct bpf_tunnel_key key;
	u32 options_len;
	u8 options[OPTIONS_MAX];
	u8 data[TRACE_BYTES];
};

/* clang-format off */
#define MMAPPED(name_, type_, size_) struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(map_flags, BPF_F_MMAPABLE); \
	__uint(max_entries, size_); __type(key, u32); __type(value, type_); } name_ SEC(".maps")

struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4096); __type(key, u32); __type(value, u32); }
	devs SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4096); __type(key, struct mask_list_id); __type(value, u32); }
	mask_list_of SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4096); __type(key, struct short_key); __type(value, u32); }
	keys SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(map_flags, BPF_F_NO_PREALLOC); __uint(max_entries, 4096);
	 __type(key, struct key); __type(value, u32); } stateful_keys SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32);
	 __type(value, struct stats); } stats SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32);
	 __type(value, struct key); } masked SEC(".maps");
MMAPPED(ports, struct port, 4096);
MMAPPED(near, u32, NEAR);	/* of `devs`: the slot of the last device with these low bits in its number */
MMAPPED(mask_lists, struct mask_list, 4096);
MMAPPED(cache, struct bucket, 1);	/* mmapable ones alone begin at a page */
MMAPPED(wide_cache, struct wide_bucket, 1);
MMAPPED(stateful_cache, struct stateful_bucket, 1);
MMAPPED(nodes, struct node, 4096);
MMAPPED(bloom, u64, 1);
MMAPPED(rules, struct rule, 4096);
MMAPPED(entries, struct entry, 4096);
MMAPPED(counts, struct count, 4096);
MMAPPED(upcalls, struct upcall, UPCALL_SLOTS);
MMAPPED(encaps, struct encap, 4096);
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32);
	 __type(value, struct encap); } outer SEC(".maps");
MMAPPED(meters, struct meter, METERS);
MMAPPED(config, struct config, 1);
MMAPPED(traces, struct trace, 1);
MMAPPED(resumes, struct resume, RESUMES);
MMAPPED(handed_in, struct continuation, 1);
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32);
	 __type(value, struct continuation); } copied SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32);
	 __type(value, struct ways); } ways SEC(".maps");

struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32);
	 __type(value, u8[OPTIONS_MAX]); } came_with SEC(".maps");

/* Updating a map of maps waits for every program that runs: the grace period that user space needs. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 1); __type(key, u32);
	 __array(values, struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, u32);
				  __type(value, u32); }); } grace SEC(".maps");
/* clang-format on */

/* Set before loading. */
const volatile struct {
	u32 rules; /* rule indices: counters of one shard */
	u32 shards; /* sets of counters, a power of two; fewer than CPUs: they are shared */
	u32 shared;
	u32 cpus;
	u32 buckets, wide_buckets, stateful_buckets; /* of one CPU's cache, powers of two */
	u32 bloom; /* words of that filter, a power of two */
	u32 notes; /* of one CPU, a power of two */
	u32 tracing; /* write what would be done to `traces` and do nothing: for the differential test */
} constants = { 4096, 1, 1, 1, 1, 1, 1, 1, 1, 0 };

/* It in the hands of one run of a program. */
struct work {
	struct __sk_buff *skb;
	struct port *in;
	struct way *s;
};

/* With PARSED_OVS: as Open vSwitch's tables see the packet. */
enum parsed { PARSED_NOT, PARSED_PLAIN, PARSED_TUNNEL, PARSED_OVS = 4 };
#define METADATA 1
#define UNKNOWN 2

/* What follows an action list. */
enum flow { FLOW_DONE, FLOW_GOTO, FLOW_PASS, FLOW_TRACK, FLOW_CARRY };

/* Of a packet that is traced, the test says what time it is, ns. */
static __always_inline u64 test_now(void)
{
	u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&config, &zero);

	return c ? c->test_now : 0;
}

/* The time, ns of CLOCK_MONOTONIC. */
static __always_inline u64 now_ns(void)
{
	return constants.tracing ? test_now() : bpf_ktime_get_ns();
}

/* The same of the last tick, which is faster to read. */
static __always_inline u64 coarse_now_ns(void)
{
	return constants.tracing ? test_now() : bpf_ktime_get_coarse_ns();
}

static __always_inline struct stats *this_stats(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&stats, &zero);
}

__noinline int trace(struct __sk_buff *skb, u32 event, u32 arg, u32 table, u64 cookie)
{
	u32 zero = 0, len, at;
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct trace *t;

	if (!c)
		return 0;
	at = c->traced++;
	t = bpf_map_lookup_elem(&traces, &at);
	if (!t)
		return 0;
	t->event = event;
	t->arg = arg;
	t->table = table;
	t->cookie = cookie;
	t->vlan = skb->vlan_present ? (u32)bpf_ntohs((u16)skb->vlan_proto) << 16 | (skb->vlan_tci & 0xffff) : 0;
	t->tunnel = 0;
	if (event == EVENT_SEND) {
		if (!bpf_skb_get_tunnel_key(skb, &t->key, sizeof(t->key), BPF_F_TUNINFO_FLAGS))
			t->tunnel = 4;
		else if (!bpf_skb_get_tunnel_key(skb, &t->key, sizeof(t->key),
						 BPF_F_TUNINFO_FLAGS | BPF_F_TUNINFO_IPV6))
			t->tunnel = 16;
		len = t->tunnel ? bpf_skb_get_tunnel_opt(skb, t->options, sizeof(t->options)) : 0;
		t->options_len = (s32)len > 0 ? len : 0;
	}
	t->len = len = skb->len;
	if (len > TRACE_BYTES)
		len = TRACE_BYTES;
	if (len)
		bpf_skb_load_bytes(skb, 0, t->data, len);
	return 0;
}

static __always_inline int drop(struct work *w, u32 reason)
{
	struct stats *s = this_stats();

	if (s && reason < DROP_REASONS)
		s->drops[reason]++;
	if (constants.tracing)
		trace(w->skb, EVENT_DROP, reason, 0, 0);
	return TCX_DROP;
}
