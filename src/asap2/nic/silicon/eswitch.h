// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What all parts of the eSwitch program share: types, maps, the state of one packet, counters and tracing. */
#pragma once

#include "base.h"

#define L2_WINDOW 22 /* Ethernet header and two tags */
#define CHAIN_MASK (0x7fffffff & ~LIMITS)

#define UPCALL_RESERVE(limit) (((limit) + 7) / 8) /* extra units, for neighbour discovery only */
#define UPCALL_PATIENCE 1000000000 /* ns; a port that is over its limit may try once in each such period */
#define AS_OVS 0x10000 /* in an offset for the parser: see the packet as Open vSwitch does */

#define TUNNEL_PORT(flags) ((flags) >> 16) /* of a tunnel device: the UDP port that its packets were sent to */
union packed {
	struct fields f;
	u64 w[WORDS];
};

struct key {
	u32 node;
	u32 unused;
	u64 w[WORDS];
};

/* For rules that do not match on connections: the leading words of the same. */
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
	 * Packets for user space, in units of UPCALL_UNIT bytes, rounded up. `given`: handed over so far; `taken`:
	 * handled by user space, which writes it. `refused`: packets dropped here; `since`: when the last was handed
	 * over, ns.
	 */
	u64 given, taken, refused, since;
	u64 delivered, failed; /* by user space: packets that reached their receiver, and packets lost on the way */
};

struct mask_list_id {
	u32 table, in_port;
};

struct mask_list {
	u64 generation; /* 0: not in use */
	u32 table, in_port;
	u32 first; /* node; 0: none */
	u32 merged; /* node whose mask is the union of all masks in the list */
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

/* The arguments of an action "ct" (rules.py: Ct). */
struct tracking {
	u16 zone, flags; /* enum ct_flag */
	u32 mark, mark_mask, event_mask;
	u8 labels[16], labels_mask[16];
	u8 ip_min[16], ip_max[16];
	u16 port_min, port_max;
	u8 policy, helper, family, octets; /* octets: of an address of the range; 0: it has none */
	u32 resume; /* of the hardware's */
};

/* The arguments of an action "psample" (rules.py: Psample). */
struct sampling {
	u32 group, rate, every, length;
	u32 ifindex, out;
	u16 flags, cookie_len; /* enum sample_flag */
	u8 cookie[SAMPLE_COOKIE];
	u8 tos, ttl;
	u16 tp_dst; /* of a tunnel that the action itself sets */
	u32 id;
	u8 src[16], dst[16];
};

/* Outer headers without lengths, source port and checksum yet; or, for OP_SET_TUNNEL, the metadata. */
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
 * Where the node resumes a packet that the NIC did not finish: at a chain, as if received on a port (slot; 0: where it
 * is), at the output to a port, or within the actions of a rule. The number of this record travels in skb->tc_index,
 * which nothing else reads; mlx5 uses metadata register c0.
 */
struct resume {
	u32 table; /* DELIVER: to the port `slot` */
	u32 slot;
	u32 rule, entry; /* the rule that counts the packet, and the action list to continue; 0: look it up */
};

/* What we know of a packet, or of a copy, that neither its octets nor the kernel hold. */
struct state {
	u32 dp_hash;
	u32 max_len; /* of the next output, in bytes; 0: no limit */
	u32 given_tunnel; /* slot of `encaps`: the tunnel metadata that an action set; 0: none */
	u32 arrived; /* bytes received, without the outer tag */
	u8 no_ethernet;
	u8 layered; /* headers have been put in front */
	u8 released; /* the tunnel metadata that it came with is no longer valid */
	u8 lookups; /* done so far */
	u8 depth; /* of nested copies */
	u8 single; /* do only the first action of the list */
	u8 has_hash; /* handed in by user space, with a hash */
	u8 stage; /* which of the port's tables comes next */
	struct tracked tracked;
	u32 connection, connection_id; /* the record of its connection, and the id that this had */
	u16 ct_id; /* ICMP id, if the connection is new */
	u8 ct_known, ct_info; /* enum ct_known, enum ct_info */
	u8 enveloped; /* outer headers were added: the kernel cannot segment what is inside */
	u8 translated; /* by a NIC, inside a tunnel, and unchanged since: struct untranslated holds the original */
	u16 mru; /* reassembled by user space from fragments of at most this size; 0: it was not */
};

/*
 * How a copy of a packet, or a packet from user space, continues: with the action list `entry`. It starts at the egress
 * of the upcall device, where nothing else sees it.
 */
struct continuation {
	u32 active; /* a copy is on its way there */
	u32 slot; /* the port that received it */
	u32 table, entry;
	u32 tunnel; /* slot of `encaps`: the tunnel metadata that it came with; 0: none */
	u32 mark, priority, hash; /* of a packet from user space */
	u32 tracking; /* as in struct way: track it first; 0: do not */
	u32 rest; /* not used */
	struct state state;
};

struct count {
	u64 packets, bytes, used, unused;
};

/* One cache line, or more if the union of masks is wide. */
struct cached {
	u64 generation; /* 0: empty */
	u32 rule; /* 0: no rule matches */
	u32 other; /* the number of its other bucket, XORed with this one's */
	u64 narrow[NARROW];
};

struct wide_cached {
	struct cached first;
	u64 rest[REST];
};

/* Many masks of rules on connections need only the first words: the rest comes last. */
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
	u64 full_at, peak_full_at; /* when its buckets will be full, ns: written by the program */
	u64 burst, peak_burst; /* their sizes, ns */
	u64 packets, bytes, over_packets, over_bytes, over, used;
	u64 owner; /* user space's: meters.py; 0: not in use */
	u32 mult, shift, peak_mult, peak_shift; /* an octet or a packet costs mult >> shift ns; mult 0: no limit */
	u32 most; /* longest packet, octets; 0: no limit */
	u32 least, overhead; /* octets that a packet counts at least, and extra octets for each */
	u32 flags; /* enum meter_flag, enum counting above them; 0: all packets pass */
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
	u32 tunnel; /* of a packet to fragment: state.given_tunnel */
	union packed key;
	u32 options_len, unused; /* of the tunnel that carried the packet */
	u8 options[OPTIONS_MAX];
};

struct config {
	u32 upcall_ifindex, test_hash;
	u64 generation; /* written by user space: the last one issued */
	u32 traced, test_len;
	u32 test_ifindex, test_tpid, test_tci, test_tunnel;
	u32 max_rules, shards; /* user space's */
	u32 test_resume;
	u16 tunnels; /* how many tunnel_ports are in use */
	u16 tunnel_ports[TUNNEL_PORTS]; /* network byte order; 0: none */
	u16 unused;
	u32 option_kinds[OPTION_KINDS]; /* option headers that rules match on, network byte order; 0: none */
	u32 upcall_limit, upcalls; /* units in flight for each port, 0: no limit; sequence number, by the program */
	u64 failed; /* written by user space: packets lost after they were handed over, on all ports ever */
	struct tracked test_tracked;
	u64 test_now; /* the time, ns */
	u32 test_restore, sampled; /* sampled: samples have a listener */
};

/* The state of one packet. */
struct way {
	union packed p;
	struct state state;
	u32 table, node, rule, entry;
	u32 slot; /* of the port that received it */
	u32 tracking; /* for FLOW_TRACK and FLOW_CARRY: the slot of the arguments */
	u32 first; /* the lookup is for rules of this priority or greater */
	u32 told; /* what a NIC reported about the packet's connection (carry.h) */
	u32 counted, counted_packets; /* the last rule that counted the packet, and as how many */
	u64 counted_bytes;
	int verdict;
	u16 inner; /* where the inner packet begins; 0: not in a tunnel; METADATA: the kernel decapsulated it */
	u16 probes;
	u16 resume; /* what to tell the node if no rule matches */
	u8 within; /* a NIC found `rule`, and left the packet within its actions, at `entry` */
	u8 egress, parsed, sent, flow; /* enum parsed, enum flow */
	u8 plain; /* the rules for tunnels were tried already */
};

/*
 * The states of one CPU. A run of the program that sends a packet may start another run before it ends, as for a copy,
 * or if the kernel sends a tunnel's packet at once: each run has its own state.
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
	u32 len, tunnel; /* bytes of a tunnel address, 4 or 16; 0: no tunnel metadata */
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
MMAPPED(near, u32, NEAR);	/* of `devs`: the slot of the last device whose number has these low bits */
MMAPPED(mask_lists, struct mask_list, 4096);
MMAPPED(cache, struct bucket, 1);	/* only mmapable maps begin at a page */
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

/* Updating a map of maps waits for all running programs: user space uses it as a grace period. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 1); __type(key, u32);
	 __array(values, struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, u32);
				  __type(value, u32); }); } grace SEC(".maps");
/* clang-format on */

/* Set before the program is loaded. */
const volatile struct {
	u32 rules; /* rule indices: counters of one shard */
	u32 shards; /* sets of counters, a power of two; shared if there are more CPUs */
	u32 shared;
	u32 cpus;
	u32 buckets, wide_buckets, stateful_buckets; /* of one CPU's cache; powers of two */
	u32 bloom; /* words of the Bloom filter, a power of two */
	u32 notes; /* of one CPU; a power of two */
	u32 tracing; /* write what would be done to `traces`, and do nothing: for the differential test */
#ifdef ASAP2_TRACE
	u32 pipeline, most; /* watch.h: the number that records have for it, and the octets of a packet in one */
#endif
} constants = { .rules = 4096,
		.shards = 1,
		.shared = 1,
		.cpus = 1,
		.buckets = 1,
		.wide_buckets = 1,
		.stateful_buckets = 1,
		.bloom = 1,
		.notes = 1 };

/* The packet and its state, as one run of a program holds them. */
struct work {
	struct __sk_buff *skb;
	struct port *in;
	struct way *s;
};

/* With PARSED_OVS: the packet as Open vSwitch's tables see it. */
enum parsed { PARSED_NOT, PARSED_PLAIN, PARSED_TUNNEL, PARSED_OVS = 4 };
#define METADATA 1
#define UNKNOWN 2

/* What comes after an action list. */
enum flow { FLOW_DONE, FLOW_GOTO, FLOW_PASS, FLOW_TRACK, FLOW_CARRY };

/* For a traced packet, the test sets the time, ns. */
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

/* The same as of the last tick, which is faster to read. */
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
	if (is_length(len, TRACE_BYTES))
		bpf_skb_load_bytes(skb, 0, t->data, len);
	return 0;
}

#include "watch.h"

static __always_inline int drop(struct work *w, u32 reason)
{
	struct stats *s = this_stats();

	if (s && reason < DROP_REASONS)
		s->drops[reason]++;
	if (constants.tracing)
		trace(w->skb, EVENT_DROP, reason, 0, 0);
	WATCH(w->skb, EVENT_DROP, reason, 0, 0);
	return TCX_DROP;
}
