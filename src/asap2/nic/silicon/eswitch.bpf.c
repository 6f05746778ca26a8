// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The eSwitch: parse, exact-match cache, masked search, actions, counters, redirect.
 *
 * One program serves the silicon of a NIC (at tcx ingress of the far end of every VF, representor and uplink) and the
 * software datapath of a node (at tcx ingress of the ports of TC and Open vSwitch, at tcx egress of internal ports).
 * What it must do is defined by reference.py; the memory it shares with user space is described by maps.py.
 *
 * A packet meets the tables of its port in turn. For each (table, port) there is a *head*: a linked list of masks
 * ("nodes") in the order of priority and age, and the union of those masks. The first mask under which the packet has
 * a rule decides. The cache remembers, for the packet under the union of masks, which rule (or none) that was, until
 * the head's generation changes.
 *
 * User space changes these lists while packets walk them. So a node's mask never changes while it can be reached, a
 * list is changed by one 32-bit store, and an index is used again only after an RCU grace period.
 *
 * Build: clang -O2 -g -target bpf -mcpu=v3 -I/usr/include/$(uname -m)-linux-gnu -c eswitch.bpf.c -o eswitch.bpf.o
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define barrier() asm volatile("" ::: "memory")
/* Keeps the compiler from merging or moving what the verifier has to see as one checked value. */
#define opaque(x) asm volatile("" : "+r"(x))

#define TABLES 4	/* tables of one port, tried in turn */
#define LOOKUPS 8	/* lookups of one packet: stages and gotos */
#define MASKS 4096	/* nodes in one list */
#define ACTIONS 64	/* actions of one rule */
#define L2_WINDOW 22	/* Ethernet header and two tags */
#define L3_WINDOW 192	/* what is looked at from the network header on */
#define EXTENSIONS 8	/* IPv6 extension headers that are skipped */
#define CHAIN_MASK 0x7fffffff
#define STAGE_OVS 0x80000000

#define UPCALL_MAGIC 0xa5a00000	/* upper 12 bits of skb->mark of a packet for user space; below: sequence */
#define UPCALL_SEQ 0x000fffff
#define SELF_MARK 0xa5b00000	/* the copy that an internal port transmits for its taps and counters */

#define ETH_P_802_2 0x0004
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_RARP 0x8035
#define ETH_P_8021Q 0x8100
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021AD 0x88a8
#define VLAN_PRESENT 0x1000

/* enum tcx_action_base; not in the headers of Linux 6.1 */
enum { TCX_NEXT = -1, TCX_PASS = 0, TCX_DROP = 2 };

enum hook { HOOK_INGRESS, HOOK_EGRESS };
enum port_flag { PORT_ENABLED = 1, PORT_INTERNAL = 2, PORT_PEER = 4, PORT_PEER_ANY = 8, PORT_INGRESS = 16,
		 PORT_KNOWN = 32 /* user space's: the slot is taken */ };
enum miss { MISS_DROP, MISS_REDIRECT, MISS_UPCALL, MISS_PASS };
enum op { OP_END, OP_OUTPUT, OP_PUSH_VLAN, OP_POP_VLAN, OP_MODIFY_VLAN, OP_DROP, OP_GOTO, OP_UPCALL, OP_PASS,
	  OP_TRUNCATE };
enum drop { DROP_RULE, DROP_MISS, DROP_SHORT, DROP_IN_PORT, DROP_OUT_PORT, DROP_LOOP, DROP_ACTION, DROP_TRUNCATE,
	    DROP_UPCALL, DROP_OUTPUT, DROP_REASONS = 16 };
enum event { EVENT_MATCH, EVENT_SEND, EVENT_UPCALL, EVENT_PASS, EVENT_DROP };

/* What rules match on; network byte order. The offsets are also in maps.py. */
struct fields {
	u8 eth_dst[6];
	u16 eth_type;
	u8 eth_src[6];
	u16 vlan_tpid;
	u16 vlan_tci, cvlan_tci;
	u8 ip_proto, ip_tos, ip_ttl, ip_frag;
	u32 ipv6_label;
	u16 l4_src, l4_dst;
	u8 ip_src[16];
	u8 ip_dst[16];
	u8 arp_sha[6];
	u16 tcp_flags;
	u8 arp_tha[6];
	u16 unused;
	u8 nd_target[16];
};

#define WORDS (sizeof(struct fields) / 8)

union packed {
	struct fields f;
	u64 w[WORDS];
};

struct key {
	u32 node;
	u32 unused;
	u64 w[WORDS];
};

struct dev {
	u32 ifindex, hook;
};

struct port {
	u32 id, ifindex, hook, flags;
	u32 miss, miss_slot, n_tables, tables[TABLES];
	u8 mac[6];
	u16 kind;	/* user space's */
	u32 unused;
};

struct head_id {
	u32 table, in_port;
};

struct head {
	u64 generation;
	u32 table, in_port;
	u32 first;	/* node; 0: none */
	u32 merged;	/* node whose mask is the union of all in the list */
};

struct node {
	u32 next;	/* 0: end of list */
	u32 head;
	u32 priority;
	u32 unused;
	u64 mask[WORDS];
};

struct rule {
	u32 node;
	u32 actions;	/* cell; 0: none */
};

struct cell {
	u32 next;
	u32 op;
	u64 arg;
};

struct count {
	u64 packets, bytes, used, unused;
};

struct cached {
	u64 generation;
	u32 rule;	/* 0: no rule matches */
	u32 second;	/* where it goes when another takes its place */
	u64 w[WORDS];
};

struct stats {
	u64 drops[DROP_REASONS];
	/* [0]: TC chains, [1]: Open vSwitch tables */
	u64 hit[2], missed[2], probes[2], cache_hits[2];
	u64 upcalls;
};

struct upcall {
	u32 mark;
	u32 kind;	/* 0 miss, 1 action */
	u32 in_port, table;
	u64 cookie;
	u32 hash, len, max_len, unused;
	union packed key;
};

struct config {
	u32 upcall_ifindex, unused2;
	u64 generation;	/* user space's: the last that was given out */
	u32 traced, test_len;
	u32 test_hook, test_ifindex, test_tpid, test_tci;
	u32 max_rules, shards;	/* user space's */
};

#define TRACE_BYTES 1024
struct trace {
	u32 event, arg;
	u64 cookie;
	u32 table, vlan;	/* vlan: tpid << 16 | tci, host order; 0: none in the metadata */
	u32 len, how;
	u8 data[TRACE_BYTES];
};

#define MMAPPED(name_, type_, size_) struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(map_flags, BPF_F_MMAPABLE); \
	__uint(max_entries, size_); __type(key, u32); __type(value, type_); } name_ SEC(".maps")

struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4096); __type(key, struct dev); __type(value, u32); }
	devs SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4096); __type(key, struct head_id); __type(value, u32); }
	head_of SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4096); __type(key, struct key); __type(value, u32); }
	keys SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct cached); }
	cache SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32);
	 __type(value, struct stats); } stats SEC(".maps");
MMAPPED(ports, struct port, 4096);
MMAPPED(heads, struct head, 4096);
MMAPPED(nodes, struct node, 4096);
MMAPPED(rules, struct rule, 4096);
MMAPPED(cells, struct cell, 4096);
MMAPPED(counts, struct count, 4096);
MMAPPED(upcalls, struct upcall, 8192);
MMAPPED(config, struct config, 1);
MMAPPED(traces, struct trace, 1);

/* Updating a map of maps waits for every program that runs: the grace period that user space needs. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 1); __type(key, u32);
	 __array(values, struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, u32);
				  __type(value, u32); }); } grace SEC(".maps");

/* Set before loading. */
const volatile struct {
	u32 rules;	/* rule indices: counters of one shard */
	u32 shards;	/* sets of counters, a power of two; fewer than CPUs: they are shared */
	u32 shared;
	u32 cpus;
	u32 cached;	/* cache entries of one CPU, a power of two */
	u32 tracing;	/* write what would be done to `traces` and do nothing: for the differential test */
} constants = { 4096, 1, 1, 1, 1, 0 };

struct work {
	struct __sk_buff *skb;
	struct port *in;
	union packed p;
	u32 hook, parsed;
	u32 table, stage;
	u32 node, rule, probes;
	u32 cell, sent, max_len;
	u32 flow;	/* what follows the action list, enum flow */
	int verdict;
};

enum flow { FLOW_DONE, FLOW_GOTO, FLOW_PASS };

/* ---- counting and tracing ---- */

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
		trace(w->skb, EVENT_DROP, reason, w->table, 0);
	return TCX_DROP;
}

/* ---- parsing ---- */

static __always_inline int is_vlan(u16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* Whether `n` bytes at `off` are there and inside the window. Needs data, end, l3 in scope. */
#define HAVE(off, n) ((off) + (n) <= l3 + L3_WINDOW && data + (off) + (n) <= end)

static __always_inline int dissect_l4(u8 *data, u8 *end, u32 l3, u32 l4, struct fields *f, u32 type)
{
	u8 proto = f->ip_proto;

	opaque(l4);
	if (l4 > L2_WINDOW + L3_WINDOW)
		return 0;
	u8 *h = data + l4;

	if (proto == 6) {
		if (l4 + 20 > l3 + L3_WINDOW)
			return 0;
		if (h + 20 > end)
			return 1;
		f->l4_src = *(u16 *)h;
		f->l4_dst = *(u16 *)(h + 2);
		f->tcp_flags = *(u16 *)(h + 12) & bpf_htons(0x0fff);
	} else if (proto == 17) {
		if (l4 + 8 > l3 + L3_WINDOW)
			return 0;
		if (h + 8 > end)
			return 1;
		f->l4_src = *(u16 *)h;
		f->l4_dst = *(u16 *)(h + 2);
	} else if (proto == 132) {
		if (l4 + 12 > l3 + L3_WINDOW)
			return 0;
		if (h + 12 > end)
			return 1;
		f->l4_src = *(u16 *)h;
		f->l4_dst = *(u16 *)(h + 2);
	} else if ((proto == 1 && type == ETH_P_IP) || (proto == 58 && type == ETH_P_IPV6)) {
		if (l4 + 8 > l3 + L3_WINDOW)
			return 0;
		if (h + 8 > end)
			return 1;
		f->l4_src = bpf_htons(h[0]);
		f->l4_dst = bpf_htons(h[1]);
		if (proto == 58 && (h[0] == 135 || h[0] == 136) && h[1] == 0) {
			if (l4 + 24 > l3 + L3_WINDOW)
				return 0;
			if (h + 24 > end)
				return 1;
			__builtin_memcpy(f->nd_target, h + 8, 16);
		}
	}
	return 0;
}

/* Fills `f`. 1: the linear part of the packet ended before a header did. */
__noinline int dissect(struct __sk_buff *skb, struct fields *f)
{
	u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	u32 l3 = 14, l4, tags = 0, type;
	u16 proto;

	if (!f)
		return 0;
	__builtin_memset(f, 0, sizeof(*f));
	if (data + 14 > end)
		return 1;
	__builtin_memcpy(f->eth_dst, data, 6);
	__builtin_memcpy(f->eth_src, data + 6, 6);
	proto = *(u16 *)(data + 12);
	if (skb->vlan_present) {
		f->vlan_tci = bpf_htons((skb->vlan_tci & 0xefff) | VLAN_PRESENT);
		f->vlan_tpid = (u16)skb->vlan_proto;
		tags = 1;
	}
	if (is_vlan(proto)) {
		f->eth_type = proto;
		if (data + 18 > end)
			return 1;
		u16 tci = (*(u16 *)(data + 14) & bpf_htons(0xefff)) | bpf_htons(VLAN_PRESENT);

		if (tags) {
			f->cvlan_tci = tci;
		} else {
			f->vlan_tci = tci;
			f->vlan_tpid = proto;
		}
		tags++;
		proto = *(u16 *)(data + 16);
		l3 = 18;
		if (tags == 1 && is_vlan(proto)) {
			f->eth_type = proto;
			if (data + 22 > end)
				return 1;
			f->cvlan_tci = (*(u16 *)(data + 18) & bpf_htons(0xefff)) | bpf_htons(VLAN_PRESENT);
			proto = *(u16 *)(data + 20);
			l3 = 22;
		}
	}
	type = bpf_ntohs(proto);
	if (type < 0x600)
		type = ETH_P_802_2;
	f->eth_type = bpf_htons(type);

	opaque(l3);
	if (l3 > L2_WINDOW)
		return 0;
	u8 *h = data + l3;

	if (type == ETH_P_IP) {
		if (h + 20 > end)
			return 1;
		u32 ihl = (h[0] & 15) * 4;

		if (ihl < 20)
			return 0;
		f->ip_tos = h[1];
		f->ip_ttl = h[8];
		f->ip_proto = h[9];
		__builtin_memcpy(f->ip_src + 12, h + 12, 4);
		__builtin_memcpy(f->ip_dst + 12, h + 16, 4);
		u16 frag = bpf_ntohs(*(u16 *)(h + 6));

		if (frag & 0x3fff) {
			f->ip_frag = frag & 0x1fff ? 1 : 3;
			if (frag & 0x1fff)
				return 0;
		}
		return dissect_l4(data, end, l3, l3 + ihl, f, type);
	}
	if (type == ETH_P_IPV6) {
		if (h + 40 > end)
			return 1;
		u32 flow = bpf_ntohl(*(u32 *)h);
		u32 next = h[6];

		f->ip_tos = flow >> 20;
		f->ipv6_label = bpf_htonl(flow & 0xfffff);
		f->ip_ttl = h[7];
		__builtin_memcpy(f->ip_src, h + 8, 16);
		__builtin_memcpy(f->ip_dst, h + 24, 16);
		f->ip_proto = next;
		l4 = l3 + 40;
		for (int i = 0; i < EXTENSIONS; i++) {
			if (next != 0 && next != 43 && next != 60 && next != 44)
				break;
			if (l4 + 8 > l3 + L3_WINDOW)
				return 0;
			u8 e[8];

			if (bpf_skb_load_bytes(skb, l4, e, 8))
				return 0;
			u32 following = e[0];

			if (next == 44) {
				f->ip_proto = following;
				f->ip_frag = *(u16 *)(e + 2) & bpf_htons(0xfff8) ? 1 : 3;
				if (f->ip_frag == 1)
					return 0;
				l4 += 8;
			} else {
				l4 += (e[1] + 1) * 8;
			}
			f->ip_proto = next = following;
		}
		return dissect_l4(data, end, l3, l4, f, type);
	}
	if (type == ETH_P_ARP || type == ETH_P_RARP) {
		if (h + 28 > end)
			return 1;
		/* Ethernet, IPv4, 6 and 4 bytes of address */
		if (*(u16 *)h != bpf_htons(1) || *(u16 *)(h + 2) != bpf_htons(ETH_P_IP) ||
		    *(u16 *)(h + 4) != bpf_htons(0x0604))
			return 0;
		if (h[6] == 0)
			f->ip_proto = h[7];
		__builtin_memcpy(f->arp_sha, h + 8, 6);
		__builtin_memcpy(f->ip_src + 12, h + 14, 4);
		__builtin_memcpy(f->arp_tha, h + 18, 6);
		__builtin_memcpy(f->ip_dst + 12, h + 24, 4);
	}
	return 0;
}

static __always_inline void parse(struct work *w)
{
	struct __sk_buff *skb = w->skb;

	if (w->parsed)
		return;
	w->parsed = 1;
	if (dissect(skb, &w->p.f) && !bpf_skb_pull_data(skb, skb->len < L2_WINDOW + L3_WINDOW ? skb->len :
							L2_WINDOW + L3_WINDOW))
		dissect(skb, &w->p.f);
}

/* ---- lookup ---- */

static long probe(u32 i, struct work *w)
{
	u32 at = w->node, *found;
	struct key key = { .node = at };
	struct node *node = bpf_map_lookup_elem(&nodes, &at);

	if (!node)
		return 1;
#pragma unroll
	for (int i = 0; i < WORDS; i++)
		key.w[i] = w->p.w[i] & node->mask[i];
	w->probes++;
	found = bpf_map_lookup_elem(&keys, &key);
	if (found) {
		/* A hash element that was deleted just now may already hold another key: its rule tells. */
		u32 index = READ_ONCE(*found);
		struct rule *r = bpf_map_lookup_elem(&rules, &index);

		if (r && r->node == at) {
			w->rule = index;
			return 1;
		}
	}
	w->node = READ_ONCE(node->next);
	return w->node == 0;
}

static __always_inline u64 mix(u64 x)
{
	x ^= x >> 32;
	x *= 0x9e3779b97f4a7c15;
	return x ^ x >> 29;
}

#define WORD(i) (w[i] & mask[i])

/* Multilinear: independent multiplications by odd random constants. */
static __always_inline u64 masked_hash(const u64 *w, const u64 *mask, u64 generation)
{
	u64 h = WORD(0) * 0x87c37b91114253d5 + WORD(1) * 0x4cf5ad432745937f + WORD(2) * 0x9ddfea08eb382d69;

	h ^= h >> 29;
	h += WORD(3) * 0xff51afd7ed558ccd + WORD(4) * 0xc4ceb9fe1a85ec53 + WORD(5) * 0xbf58476d1ce4e5b9;
	h ^= h >> 31;
	h += WORD(6) * 0x94d049bb133111eb + WORD(7) * 0xd6e8feb86659fd93 + WORD(8) * 0xa0761d6478bd642f;
	h ^= h >> 33;
	h += WORD(9) * 0xe7037ed1a0b428db + WORD(10) * 0x8ebc6af09c88c6e3 + WORD(11) * 0x589965cc75374cc3;
	return mix(h + generation * 0x1d8e4e27c47d124f);
}

static __always_inline int cache_holds(const struct cached *c, u64 generation, const u64 *w, const u64 *mask)
{
	u64 differ = c->generation ^ generation;

	opaque(mask);	/* mask anew: twelve words kept would be stack */
#pragma unroll
	for (int i = 0; i < WORDS; i++)
		differ |= c->w[i] ^ WORD(i);
	return differ == 0;
}

/* The rule that decides in (w->table, in port), 0 when there is none. */
static __noinline u32 lookup(struct work *w)
{
	struct head_id id = { .table = w->table, .in_port = w->in->id };
	struct stats *s = this_stats();
	u32 ovs = w->table >> 31, at, second, base, *found;
	struct cached *c0 = 0, *c1 = 0;
	struct head *head;
	struct node *merged;
	u64 generation, hash;

	if (!s)
		return 0;
	found = bpf_map_lookup_elem(&head_of, &id);
	if (!found)
		goto none;
	at = READ_ONCE(*found);
	head = bpf_map_lookup_elem(&heads, &at);
	if (!head || head->table != id.table || head->in_port != id.in_port)
		goto none;
	/* The generation first: what is found in a list that changes meanwhile is cached under the old one. */
	generation = READ_ONCE(head->generation);
	barrier();
	at = READ_ONCE(head->merged);
	w->node = READ_ONCE(head->first);
	if (!w->node)
		goto none;
	parse(w);
	merged = bpf_map_lookup_elem(&nodes, &at);
	if (!merged)
		goto none;
	hash = masked_hash(w->p.w, merged->mask, generation);

	base = bpf_get_smp_processor_id() * constants.cached;

	at = base + (hash & (constants.cached - 1));
	c0 = bpf_map_lookup_elem(&cache, &at);
	second = hash >> 32 & (constants.cached - 1);
	at = base + second;
	c1 = bpf_map_lookup_elem(&cache, &at);
	if (!c0 || !c1)
		goto none;
	if (cache_holds(c0, generation, w->p.w, merged->mask)) {
		w->rule = c0->rule;
		s->cache_hits[ovs]++;
		goto decided;
	}
	if (cache_holds(c1, generation, w->p.w, merged->mask)) {
		w->rule = c1->rule;
		s->cache_hits[ovs]++;
		goto decided;
	}
	w->rule = 0;
	w->probes = 0;
	bpf_loop(MASKS, probe, w, 0);
	s->probes[ovs] += w->probes;
	/* The newest in the first way, the one it displaces in its second. */
	if (c0->generation) {
		at = base + c0->second;
		c1 = bpf_map_lookup_elem(&cache, &at);
		if (c1 && c1 != c0)
			__builtin_memcpy(c1, c0, sizeof(*c0));
	}
	c0->generation = generation;
	c0->rule = w->rule;
	c0->second = second;
#pragma unroll
	for (int i = 0; i < WORDS; i++)
		c0->w[i] = w->p.w[i] & merged->mask[i];
decided:
	if (!w->rule)
		goto none;
	s->hit[ovs]++;
	return w->rule;
none:
	s->missed[ovs]++;
	return 0;
}

/* ---- sending ---- */

static __always_inline int deliver(struct work *w, u32 slot, int last)
{
	struct port *p = bpf_map_lookup_elem(&ports, &slot);
	struct __sk_buff *skb = w->skb;
	u32 ifindex, flags;

	if (!p)
		return drop(w, DROP_OUT_PORT);
	flags = READ_ONCE(p->flags);
	ifindex = READ_ONCE(p->ifindex);
	if (!(flags & PORT_ENABLED) || !ifindex)
		return drop(w, DROP_OUT_PORT);
	if (constants.tracing) {
		trace(skb, EVENT_SEND, p->id, w->table, 0);
		return TCX_PASS;
	}
	if (!last) {
		if (bpf_clone_redirect(skb, ifindex, flags & PORT_INGRESS ? BPF_F_INGRESS : 0))
			drop(w, DROP_OUTPUT);
		return 0;
	}
	if (flags & PORT_INGRESS)
		return bpf_redirect(ifindex, BPF_F_INGRESS);
	if (flags & PORT_PEER && w->hook == HOOK_INGRESS) {
		u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

		/* It makes the packet "for this host" (PACKET_HOST) whatever its address. */
		if (flags & PORT_PEER_ANY)
			return bpf_redirect_peer(ifindex, 0);
		if (data + 6 <= end && *(u32 *)data == *(u32 *)p->mac &&
		    *(u16 *)(data + 4) == *(u16 *)(p->mac + 4))
			return bpf_redirect_peer(ifindex, 0);
	}
	return bpf_redirect(ifindex, 0);
}

static __always_inline int upcall(struct work *w, u32 kind, u64 cookie, int last)
{
	struct __sk_buff *skb = w->skb;
	u32 zero = 0, at, mark, ifindex, old;
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct stats *s = this_stats();
	struct upcall *u;

	if (!c || !s)
		return drop(w, DROP_UPCALL);
	ifindex = READ_ONCE(c->upcall_ifindex);
	if (!ifindex)
		return drop(w, DROP_UPCALL);
	/* Each CPU counts in steps of how many there are: no two give the same number. */
	mark = UPCALL_MAGIC | ((s->upcalls++ * constants.cpus + bpf_get_smp_processor_id()) & UPCALL_SEQ);
	at = mark & 8191;
	u = bpf_map_lookup_elem(&upcalls, &at);
	if (!u)
		return drop(w, DROP_UPCALL);
	parse(w);
	u->mark = 0;
	u->kind = kind;
	u->in_port = w->in->id;
	u->table = w->table;
	u->cookie = cookie;
	u->hash = bpf_get_hash_recalc(skb);
	u->len = skb->len;
	u->max_len = w->max_len;
	__builtin_memcpy(&u->key, &w->p, sizeof(w->p));
	barrier();
	u->mark = mark;
	if (constants.tracing) {
		trace(skb, EVENT_UPCALL, mark, w->table, cookie);
		return TCX_PASS;
	}
	old = skb->mark;
	skb->mark = mark;
	if (last)
		return bpf_redirect(ifindex, 0);
	if (bpf_clone_redirect(skb, ifindex, 0))
		drop(w, DROP_UPCALL);
	skb->mark = old;
	return 0;
}

/*
 * On to the network stack. A peer redirect has made every packet one "for this host"; eth_type_trans() would have told
 * by the address, and so is told here again. At egress the copy for the taps has gone on already.
 */
static __always_inline int pass(struct work *w)
{
	struct __sk_buff *skb = w->skb;

	if (constants.tracing) {
		trace(skb, EVENT_PASS, 0, w->table, 0);
		return TCX_PASS;
	}
	if (w->hook == HOOK_EGRESS)
		return TCX_DROP;
	if (w->in->flags & PORT_PEER_ANY) {
		u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

		if (data + 6 <= end && !(data[0] & 1) && (*(u32 *)data != *(u32 *)w->in->mac ||
							  *(u16 *)(data + 4) != *(u16 *)(w->in->mac + 4)))
			bpf_skb_change_type(skb, 3 /* PACKET_OTHERHOST */);
	}
	return TCX_NEXT;
}

/* ---- actions ---- */

/* The outer tag becomes `tpid`, `tci`, but keeps its DEI bit, as with TC's "vlan modify". */
static __always_inline int modify_vlan(struct __sk_buff *skb, u32 arg)
{
	u16 tpid = bpf_htons(arg >> 16), dei;

	if (skb->vlan_present) {
		dei = skb->vlan_tci & 0x1000;
	} else {
		u16 tci;

		if (!is_vlan((u16)skb->protocol))
			return 0;
		if (bpf_skb_load_bytes(skb, 14, &tci, 2))
			return -1;
		dei = bpf_ntohs(tci) & 0x1000;
	}
	if (bpf_skb_vlan_pop(skb))
		return -1;
	return bpf_skb_vlan_push(skb, tpid, (arg & 0xefff) | dei);
}

static long act(u32 i, struct work *w)
{
	struct cell *c = bpf_map_lookup_elem(&cells, &w->cell);
	int last, verdict;
	u32 len;

	if (!c)
		return 1;
	last = c->next == 0;
	switch (c->op) {
	case OP_OUTPUT:
		verdict = deliver(w, c->arg, last);
		if (last)
			w->verdict = verdict;
		w->sent = 1;
		break;
	case OP_UPCALL:
		verdict = upcall(w, 1, c->arg, last);
		if (last)
			w->verdict = verdict;
		w->max_len = 0;
		w->sent = 1;
		break;
	case OP_PUSH_VLAN:
		w->parsed = 0;
		if (bpf_skb_vlan_push(w->skb, bpf_htons((u32)c->arg >> 16), (u16)c->arg))
			goto failed;
		break;
	case OP_POP_VLAN:
		w->parsed = 0;
		if (bpf_skb_vlan_pop(w->skb))
			goto failed;
		break;
	case OP_MODIFY_VLAN:
		w->parsed = 0;
		if (modify_vlan(w->skb, c->arg))
			goto failed;
		break;
	case OP_TRUNCATE:
		/* Only right before an upcall (user space cuts) or the last output. */
		len = c->arg;
		if (c->arg >> 32) {
			w->max_len = len;
			break;
		}
		/* The outer tag does not count, wherever it is. */
		if (!w->skb->vlan_present && is_vlan((u16)w->skb->protocol))
			len += 4;
		if (w->skb->len <= len)
			break;
		w->parsed = 0;
		if (bpf_skb_change_tail(w->skb, len, 0)) {
			w->verdict = drop(w, DROP_TRUNCATE);
			w->sent = 1;
			return 1;
		}
		break;
	case OP_GOTO:
		w->table = c->arg;
		w->flow = FLOW_GOTO;
		return 1;
	case OP_PASS:
		w->flow = FLOW_PASS;
		return 1;
	default:	/* OP_DROP */
		w->verdict = drop(w, DROP_RULE);
		w->sent = 1;
		return 1;
	}
	w->cell = c->next;
	return last;
failed:
	w->verdict = drop(w, DROP_ACTION);
	w->sent = 1;
	return 1;
}

static __always_inline void count(struct work *w, u32 rule)
{
	struct __sk_buff *skb = w->skb;
	u32 at = (bpf_get_smp_processor_id() & (constants.shards - 1)) * constants.rules + rule;
	struct count *c = bpf_map_lookup_elem(&counts, &at);
	u64 packets = skb->gso_segs ?: 1, bytes = skb->len + (skb->vlan_present ? 4 : 0);

	if (!c)
		return;
	if (constants.shared) {
		__sync_fetch_and_add(&c->packets, packets);
		__sync_fetch_and_add(&c->bytes, bytes);
	} else {
		c->packets += packets;
		c->bytes += bytes;
	}
	c->used = bpf_ktime_get_coarse_ns();
}

static __always_inline int missed(struct work *w)
{
	struct port *in = w->in;

	switch (in->miss) {
	case MISS_REDIRECT:
		return deliver(w, in->miss_slot, 1);
	case MISS_UPCALL:
		return upcall(w, 0, 0, 1);
	case MISS_PASS:
		return pass(w);
	default:
		return drop(w, DROP_MISS);
	}
}

/* One lookup and what it leads to; 1: the packet's verdict is known. */
static long step(u32 i, struct work *w)
{
	struct port *in = w->in;
	struct rule *r;
	u32 rule, stage, chain = 0;

	if (i == LOOKUPS) {
		w->verdict = drop(w, DROP_LOOP);
		return 1;
	}
	rule = lookup(w);
	if (!rule) {
		/* The next stage goes on where this one stopped: tc_skb_ext's chain, openvswitch's recirc_id. */
		chain = w->table & CHAIN_MASK;
		goto next_stage;
	}
	r = bpf_map_lookup_elem(&rules, &rule);
	if (!r)
		return 1;
	count(w, rule);
	if (constants.tracing)
		trace(w->skb, EVENT_MATCH, rule, w->table, 0);
	w->cell = READ_ONCE(r->actions);
	w->flow = FLOW_DONE;
	w->sent = 0;
	w->max_len = 0;
	w->verdict = TCX_DROP;
	if (w->cell)
		bpf_loop(ACTIONS, act, w, 0);
	if (w->flow == FLOW_GOTO)
		return 0;
	if (w->flow == FLOW_DONE) {
		if (!w->sent)
			drop(w, DROP_RULE);
		return 1;
	}
next_stage:
	stage = ++w->stage;
	if (stage < in->n_tables && stage < TABLES) {
		opaque(stage);
		w->table = in->tables[stage & (TABLES - 1)] | chain;
		return 0;
	}
	w->verdict = rule ? pass(w) : missed(w);
	return 1;
}

static __always_inline int run(struct __sk_buff *skb, u32 hook)
{
	struct dev dev = { .ifindex = skb->ifindex, .hook = hook };
	struct work w;
	u32 *slot, at;

	if (constants.tracing) {
		u32 zero = 0;
		struct config *c = bpf_map_lookup_elem(&config, &zero);

		if (c) {
			dev.hook = hook = c->test_hook;
			dev.ifindex = c->test_ifindex;
			/* BPF_PROG_TEST_RUN takes no packet that ends in its IP header, and no tags in metadata. */
			if (c->test_len)
				bpf_skb_change_tail(skb, c->test_len, 0);
			if (c->test_tpid)
				bpf_skb_vlan_push(skb, bpf_htons(c->test_tpid), c->test_tci);
		}
	} else if (hook == HOOK_EGRESS && skb->mark == SELF_MARK) {
		return TCX_NEXT;
	}
	slot = bpf_map_lookup_elem(&devs, &dev);
	if (!slot)
		return TCX_NEXT;
	at = READ_ONCE(*slot);
	__builtin_memset(&w, 0, sizeof(w));
	w.skb = skb;
	w.hook = hook;
	w.in = bpf_map_lookup_elem(&ports, &at);
	if (!w.in)
		return TCX_NEXT;
	if (w.in->ifindex != dev.ifindex || w.in->hook != hook || !(READ_ONCE(w.in->flags) & PORT_ENABLED))
		return drop(&w, DROP_IN_PORT);
	if (skb->len < 14)
		return drop(&w, DROP_SHORT);
	if (hook == HOOK_EGRESS && !constants.tracing) {
		/* Taps and counters of the port see the packet; the original takes the pipeline. */
		u32 mark = skb->mark;

		skb->mark = SELF_MARK;
		bpf_clone_redirect(skb, dev.ifindex, 0);
		skb->mark = mark;
	}
	if (!w.in->n_tables)
		return missed(&w);
	w.table = w.in->tables[0];
	bpf_loop(LOOKUPS + 1, step, &w, 0);
	return w.verdict;
}

SEC("tc")
int esw_ingress(struct __sk_buff *skb)
{
	return run(skb, HOOK_INGRESS);
}

SEC("tc")
int esw_egress(struct __sk_buff *skb)
{
	return run(skb, HOOK_EGRESS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
