// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The eSwitch: parse, exact-match cache, masked search, actions, counters, redirect.
 *
 * One program serves the silicon of a NIC (at tcx ingress of the far end of every VF, representor and uplink) and the
 * software datapath of a node (at tcx ingress of the ports of TC and Open vSwitch, at tcx egress of internal ports).
 * What it must do is defined by reference.py; the memory it shares with user space is described by maps.py.
 *
 * A packet meets the tables of its port in turn. For each (table, port) there is a *mask list*, a linked list of masks
 * ("nodes") in the order of priority and age, and the union of those masks. The first mask under which the packet has
 * a rule decides; a Bloom filter of all keys spares it the look under most masks where it has none. The cache of each
 * CPU remembers, for the packet under the union of masks, which rule (or none) that was, until the list's generation
 * changes.
 *
 * User space changes these lists while packets walk them. So a node's mask never changes while it can be reached, a
 * list is changed by one 32-bit store, and an index is used again only after an RCU grace period.
 *
 * Build: clang -O2 -g -target bpf -mcpu=v3 -I/usr/include/$(uname -m)-linux-gnu -c eswitch.bpf.c -o eswitch.bpf.o
 */
#include "actions.h"
#include "express_carry.h"
#include "keep.h"

/* Of a super-packet whose headers have changed (the kernel then forgets), from the Ethernet header at `from` on. */
static __always_inline u32 segments(struct __sk_buff *skb, u32 from)
{
	u32 size = skb->gso_size, headers = header_length(skb, from);

	return size && headers && skb->len > headers ? (skb->len - headers + size - 1) / size : 1;
}

static __always_inline void count(struct work *w, u32 rule)
{
	struct __sk_buff *skb = w->skb;
	u32 packets = skb->gso_segs ?: 1, room = w->s->state.no_ethernet ? 14 : 0, inner, tc;

	if (!skb->gso_segs && skb->gso_size) {
		inner = (w->s->parsed & ~PARSED_OVS) == PARSED_TUNNEL ? w->s->inner : tunnel_at(skb, &w->s->p.f);
		packets = segments(skb, inner > UNKNOWN ? inner : 0);
	}
	tc = w->in->flags & PORT_ARRIVED && !(w->s->table >> 31);
	w->s->counted = rule;
	w->s->counted_packets = packets;
	w->s->counted_bytes = tc ? octets_arrived(w->s->state.arrived, packets) : octets(skb) - room;
	add(rule, packets, w->s->counted_bytes);
}

/*
 * A NIC's packet of a connection that it does not carry: the node goes on at that action of the rule, and counts the
 * packet for it.
 */
static __noinline int leave_to_node(struct work *w)
{
	u32 slot = w->s->tracking;
	struct encap *e = bpf_map_lookup_elem(&encaps, &slot);

	if (!e || w->in->miss != MISS_REDIRECT)
		return drop(w, DROP_MISS);
	add(w->s->counted, -(u64)w->s->counted_packets, -w->s->counted_bytes);
	if (w->s->state.translated && undo_translation(w->skb))
		return drop(w, DROP_ACTION);
	WATCH(w->skb, EVENT_LEAVE, w->s->counted, w->s->table, 0);
	tell(w, e->tracking.resume);
	return deliver(w, w->in->miss_slot, 1);
}

static __noinline int missed(struct work *w)
{
	struct port *in = w->in;

	switch (in->miss) {
	case MISS_REDIRECT:
		if (w->s->state.translated && undo_translation(w->skb))
			return drop(w, DROP_ACTION);
		tell(w, w->s->resume);
		if (w->s->resume)
			tell_connection(w->skb, &w->s->state);
		return deliver(w, in->miss_slot, 1);
	case MISS_UPCALL:
		w->s->state.max_len = 0;
		return upcall(w, UPCALL_MISS, 0, 1);
	case MISS_PASS:
		return pass(w);
	default:
		return drop(w, DROP_MISS);
	}
}

/* Lookups, and actions that are done between them, of one packet. */
#define STEPS (LOOKUPS * (ACTIONS + 4))

/* One lookup and what it leads to, or an action that had to wait; 1: the packet's verdict is known. */
static long step(u32 i, struct work *w)
{
	struct port *in = w->in;
	struct rule *r;
	u32 rule = 0, stage, list = 0, chain = 0, slot;

	if (w->s->flow == FLOW_CARRY) {
		int carried = carry(w->skb, &w->s->state, w->s->tracking, &w->s->p.f);

		WATCH_CONNECTION(w->skb, EVENT_TRACK, carried, w->s->table, &w->s->state);
		if (carried) {
			w->s->verdict = carried < 0 ? drop(w, DROP_ACTION) : leave_to_node(w);
			return 1;
		}
		changed(w);
		rule = 1;
		goto go_on;
	}
	if (w->s->flow == FLOW_TRACK) {
		u32 kind = UPCALL_FRAGMENT, with = w->s->tracking;
		int tracked;

		parse(w);
		/* Connections are of whole packets. */
		if (!w->s->p.f.ip_frag) {
			tracked = track(w->skb, &w->s->state, with, w->s->table >> 31);
			if (tracked < 0) {
				w->s->verdict = drop(w, DROP_ACTION);
				return 1;
			}
			WATCH_CONNECTION(w->skb, EVENT_TRACK, CARRIED, w->s->table, &w->s->state);
			changed(w);
			kind = tracked == WANTS_HELPER ? UPCALL_HELPER : UPCALL_MISS;
			with = w->s->state.connection;
		}
		if (kind != UPCALL_MISS) {
			w->s->verdict = upcall(w, kind, (u64)with << 32 | w->s->entry, 1);
			return 1;
		}
		rule = 1;
		goto go_on;
	}
	if (w->s->within) {
		rule = w->s->rule;
		goto found;
	}
	if (!w->s->plain) {
		if (w->s->state.lookups++ >= (constants.tracing ? TRACED_LOOKUPS : LOOKUPS)) {
			w->s->verdict = drop(w, DROP_LOOP);
			return 1;
		}
		if (in->flags & (PORT_WIRE | PORT_METADATA) && !(w->s->state.released && in->flags & PORT_METADATA)) {
			w->s->parsed = PARSED_PLAIN;
			w->s->inner = find_inner(w->skb, &w->s->p.f, in->flags);
			add_metadata(w->skb, &w->s->p.f, &w->s->state);
			list = w->s->inner ? TUNNEL_LIST : 0;
		}
	}
	one_path(list);
	rule = lookup(w, list);
	if (!rule && list) {
		w->s->plain = 1;
		return 0;
	}
	w->s->plain = 0;
	w->s->first = 0;
	if (!rule) {
		WATCH_CONNECTION(w->skb, EVENT_NO_MATCH, w->s->probes, w->s->table, &w->s->state);
		/* The next stage goes on where this one stopped: tc_skb_ext's chain, openvswitch's recirc_id. */
		chain = w->s->table & CHAIN_MASK;
		goto next_stage;
	}
	r = bpf_map_lookup_elem(&rules, &rule);
	if (!r)
		return 1;
	w->s->entry = READ_ONCE(r->actions);
found:
	w->s->within = 0;
	count(w, rule);
	if (constants.tracing)
		trace(w->skb, EVENT_MATCH, rule, w->s->table, 0);
	WATCH_CONNECTION(w->skb, EVENT_MATCH, rule, w->s->table, &w->s->state);
go_on:
	perform(w->skb, w->s);
	if (w->s->flow == FLOW_TRACK || w->s->flow == FLOW_CARRY)
		return 0;
	if (w->s->flow == FLOW_GOTO) {
		slot = w->s->slot;
		in = bpf_map_lookup_elem(&ports, &slot);
		if (!in)
			return 1;
		w->in = in;
		return 0;
	}
	if (w->s->flow == FLOW_DONE)
		return 1;
	chain = 0;
next_stage:
	stage = ++w->s->state.stage;
	if (stage < in->n_tables && stage < STAGES) {
		bounded(stage);
		w->s->table = in->tables[stage & (STAGES - 1)] | chain;
		return 0;
	}
	w->s->verdict = rule ? pass(w) : missed(w);
	return 1;
}

static __always_inline struct port *port_of(u32 ifindex)
{
	u32 at = ifindex & (NEAR - 1), *slot = bpf_map_lookup_elem(&near, &at);
	struct port *port;

	if (slot) {
		at = READ_ONCE(*slot);
		port = bpf_map_lookup_elem(&ports, &at);
		if (port && at && READ_ONCE(port->ifindex) == ifindex)
			return port;
	}
	slot = bpf_map_lookup_elem(&devs, &ifindex);
	if (!slot)
		return 0;
	at = READ_ONCE(*slot);
	return bpf_map_lookup_elem(&ports, &at);
}

/* Room for one run of the program; what is there of an earlier one is gone. */
static __always_inline struct way *take_way(struct ways *all)
{
	u32 deep = all->deep;
	struct way *way;

	bounded(deep);
	if (deep >= WAYS)
		return 0;
	all->deep = deep + 1;
	way = &all->way[deep];
	__builtin_memset(way, 0, sizeof(*way));
	return way;
}

/*
 * A packet that comes in by a device without Ethernet gets room for a header, whose type is right, or begins with such a
 * header of its own. -1: failed.
 */
static __always_inline int enter_bare(struct __sk_buff *skb, struct state *state, u32 flags)
{
	u16 type = skb->protocol;

	if (!constants.tracing && !(flags & PORT_VEILED)) {
		if (type == bpf_htons(ETH_P_TEB))
			return settle(skb);
		if (bpf_skb_change_head(skb, 14, 0) || bpf_skb_store_bytes(skb, 12, &type, 2, 0))
			return -1;
		state->arrived += 14;
	}
	state->no_ethernet = 1;
	return 0;
}

/* An internal port is read at egress. Its taps and counters see a copy; the original takes the pipeline. */
__noinline int show(struct __sk_buff *skb, u32 ifindex)
{
	u32 mark = skb->mark;

	skb->mark = SELF_MARK;
	WATCH_CLONE(skb, ifindex, 0);
	skb->mark = mark;
	return 0;
}

static __always_inline int follow(struct work *w)
{
	struct __sk_buff *skb = w->skb;
	struct port *in = w->in;
	struct way *s = w->s;
	u32 resume = skb->tc_index, slot;
	struct resume *found;

	s->egress = !!(in->flags & PORT_INTERNAL);
	s->inner = UNKNOWN;
	s->state.arrived = skb->len;
	if (constants.tracing) {
		u32 zero = 0;
		struct config *c = bpf_map_lookup_elem(&config, &zero);

		if (c)
			s->state.tracked = c->test_tracked;
		if (c && resume && in->flags & PORT_RESUME)
			s->told = c->test_restore;
	}
	if (!skb->vlan_present && is_vlan((u16)skb->protocol) && skb->len >= 18)
		s->state.arrived -= 4;
	tell(w, 0);
	if (in->flags & PORT_BARE && enter_bare(skb, &s->state, in->flags))
		return drop(w, DROP_ACTION);
	if (skb->len < 14)
		return drop(w, DROP_SHORT);
	if (s->egress && !constants.tracing)
		show(skb, in->ifindex);
	if (resume && in->flags & PORT_RESUME) {
		found = bpf_map_lookup_elem(&resumes, &resume);
		if (found && found->table == DELIVER)
			return deliver(w, found->slot, 1);
		if (found) {
			s->table = found->table;
			s->within = found->entry != 0;
			s->rule = found->rule;
			s->entry = found->entry;
			slot = found->slot;
			if (slot) {
				in = bpf_map_lookup_elem(&ports, &slot);
				if (!in || !(READ_ONCE(in->flags) & PORT_ENABLED))
					return drop(w, DROP_IN_PORT);
				w->in = in;
				s->egress = !!(in->flags & PORT_INTERNAL);
			}
			if (!constants.tracing && skb->hash) {
				s->told = skb->hash;
				bpf_set_hash_invalid(skb);
			}
		}
	}
	/* What goes on has been limited, where its port has limits. */
	s->state.stage = (s->table || s->within) && in->tables[0] == LIMITS;
	if (in->n_tables <= s->state.stage) {
		s->table = 0;
		return missed(w);
	}
	s->slot = in->slot;
	s->table |= in->tables[s->state.stage & 1];
	if (!s->within && tells_connection(s->told) && restore(skb, &s->state, s->told))
		return drop(w, DROP_ACTION);
	bpf_loop(STEPS, step, w, 0);
	return s->verdict;
}

/* A copy of a packet, or a packet that user space hands in, goes on. */
static __always_inline int go_on(struct work *w)
{
	struct __sk_buff *skb = w->skb;
	u32 zero = 0, slot;
	struct continuation *e = bpf_map_lookup_elem(&copied, &zero);
	struct ways *all = bpf_map_lookup_elem(&ways, &zero);
	struct way *s;
	int verdict;

	skb->tc_index = 0;
	if (!e || !all)
		return TCX_DROP;
	if (e->active) {
		e->active = 0;
		WATCH_ONWARD(skb, e->slot, 1);
	} else {
		e = bpf_map_lookup_elem(&handed_in, &zero);
		if (!e)
			return TCX_DROP;
		skb->mark = e->mark;
		skb->priority = e->priority;
		WATCH_ONWARD(skb, e->slot, 0);
		if (e->state.has_hash)
			bpf_set_hash(skb, e->hash);
		if (e->tunnel)
			set_tunnel(skb, e->tunnel);
	}
	s = take_way(all);
	if (!s)
		return TCX_DROP;
	s->slot = e->slot;
	s->egress = 1;
	s->inner = UNKNOWN;
	s->table = e->table;
	s->entry = e->entry;
	s->state = e->state;
	s->tracking = e->tracking;
	if (s->tracking)
		s->flow = FLOW_TRACK;
	else
		perform(skb, s);
	s->state.single = 0;
	verdict = s->verdict;
	if (s->flow != FLOW_DONE) {
		slot = s->slot;
		w->s = s;
		w->in = bpf_map_lookup_elem(&ports, &slot);
		if (w->in && s->flow == FLOW_PASS) {
			verdict = pass(w);
		} else if (w->in) {
			bpf_loop(STEPS, step, w, 0);
			verdict = s->verdict;
		}
	}
	all->deep--;
	return constants.tracing ? TCX_DROP : verdict;
}

static __always_inline int is_untracked_packet(const struct tracked *t)
{
	const u64 *w = (const u64 *)t;
	u64 any = 0;

#pragma unroll
	for (u32 i = 0; i < sizeof(*t) / 8; i++)
		any |= w[i];
	return !any;
}

SEC("tc")
int eswitch(struct __sk_buff *skb)
{
	u32 ifindex = skb->ifindex, zero = 0;
	struct work w = { .skb = skb };
	struct config *c;
	struct port *in;
	struct ways *all;
	struct way *s;
	int verdict, untracked = 1;

	if (skb->tc_index == ONWARD)
		return go_on(&w);
	if (constants.tracing) {
		c = bpf_map_lookup_elem(&config, &zero);
		if (!c)
			return TCX_NEXT;
		ifindex = c->test_ifindex;
		/* BPF_PROG_TEST_RUN takes no packet that ends in its IP header, and no tags in metadata. */
		if (c->test_len)
			bpf_skb_change_tail(skb, c->test_len, 0);
		if (c->test_tpid)
			bpf_skb_vlan_push(skb, bpf_htons(c->test_tpid), c->test_tci);
		if (c->test_tunnel)
			set_tunnel(skb, TEST_SLOT);
		skb->tc_index = c->test_resume;
		untracked = is_untracked_packet(&c->test_tracked);
	}
	in = port_of(ifindex);
	if (!in)
		return TCX_NEXT;
	WATCH_ENTER(skb, in);
	if (!skb->tc_index && untracked && in->ifindex == ifindex && READ_ONCE(in->flags) & PORT_ENABLED &&
	    in->n_tables) {
		verdict = express(skb, in);
		if (verdict == CARRY_WAY)
			verdict = express_carry(skb, in);
		if (verdict != LONG_WAY)
			return verdict;
	}
	if (in->flags & PORT_INTERNAL && skb->mark == SELF_MARK)
		return TCX_NEXT;
	if (in->ifindex != ifindex || !(READ_ONCE(in->flags) & PORT_ENABLED))
		return drop(&w, DROP_IN_PORT);
	all = bpf_map_lookup_elem(&ways, &zero);
	s = all ? take_way(all) : 0;
	if (!s)
		return TCX_DROP;
	w.in = in;
	w.s = s;
	verdict = follow(&w);
	all->deep--;
	return verdict;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u32));
	__array(values, int(struct __sk_buff *));
} programs SEC(".maps") = { .values = { (void *)&eswitch } };

/*
 * At the egress of the device that upcalls leave by: copies of packets, and packets that user space hands in, go on
 * there. Upcalls pass. What follows is in the other program, so that the verifier has to go through it only once.
 */
SEC("tc")
int onward(struct __sk_buff *skb)
{
	u32 zero = 0;
	struct continuation *e = bpf_map_lookup_elem(&copied, &zero);

	if (!e || (!e->active && skb->mark != CONTINUE_MARK))
		return TCX_NEXT;
	skb->tc_index = ONWARD;
	bpf_tail_call(skb, &programs, 0);
	return TCX_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
