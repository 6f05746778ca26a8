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
#include "copies.h"

/* ---- user space, and the network stack ---- */

/* A packet that user space should have got. */
static __always_inline int lost(struct work *w)
{
	__sync_fetch_and_add(&w->in->refused, 1);
	return drop(w, DROP_UPCALL);
}

/* Who already talks to another asks now and then where that is, and must have an answer: ARP, neighbour discovery. */
static __always_inline int about_neighbours(const struct fields *f)
{
	u32 kind = bpf_ntohs(f->l4_src);

	return f->eth_type == bpf_htons(ETH_P_ARP) ||
	       (f->eth_type == bpf_htons(ETH_P_IPV6) && f->ip_proto == 58 && kind >= 133 && kind <= 137);
}

/*
 * Whether a port has no more room for packets on their way to user space: the memory, and what user space manages, is
 * for all. Some room is kept for what is about neighbours: the port may be a wire, with many guests behind it. Where
 * such packets get lost unseen, room would never come back: so one may try now and then.
 */
static __always_inline int full(struct work *w, u32 limit, u64 now)
{
	s64 waiting = READ_ONCE(w->in->given) - READ_ONCE(w->in->taken);

	if (!limit || waiting < (s64)limit)
		return 0;
	if (waiting < (s64)limit + UPCALL_RESERVE(limit) && about_neighbours(&w->s->p.f))
		return 0;
	return constants.tracing || now - READ_ONCE(w->in->since) < UPCALL_PATIENCE;
}

static __always_inline int upcall(struct work *w, u32 kind, u64 cookie, int last)
{
	struct __sk_buff *skb = w->skb;
	u32 zero = 0, at, mark, ifindex, old, units;
	struct config *c = bpf_map_lookup_elem(&config, &zero);
	struct upcall *u;
	u64 now;

	if (!c)
		return lost(w);
	ifindex = READ_ONCE(c->upcall_ifindex);
	now = bpf_ktime_get_ns();
	if (!ifindex)
		return lost(w);
	if (w->in->flags & PORT_METADATA && !w->s->state.released && has_metadata(skb)) {
		w->s->inner = METADATA;
		parse_tunnel(w);
	} else {
		parse(w);
	}
	if (full(w, READ_ONCE(c->upcall_limit), now))
		return lost(w);
	mark = UPCALL_MAGIC | (__sync_fetch_and_add(&c->upcalls, 1) & UPCALL_SEQ);
	at = mark & (UPCALL_SLOTS - 1);
	u = bpf_map_lookup_elem(&upcalls, &at);
	if (!u)
		return lost(w);
	units = 1 + (skb->len + (skb->vlan_present ? 4 : 0)) / UPCALL_UNIT;
	w->in->since = now;
	u->mark = 0;
	u->kind = kind;
	u->in_port = w->in->id;
	u->table = w->s->table;
	u->cookie = cookie;
	u->hash = bpf_get_hash_recalc(skb);
	u->len = skb->len;
	u->max_len = w->s->state.max_len;
	u->units = units;
	u->at = __sync_fetch_and_add(&w->in->given, units) + units;
	__builtin_memcpy(&u->key, &w->s->p, sizeof(w->s->p));
	barrier();
	u->mark = mark;
	if (constants.tracing) {
		trace(skb, EVENT_UPCALL, mark, w->s->table, cookie);
		return TCX_PASS;
	}
	/* What is lost from here on user space counts, by the gap in `at`. */
	old = skb->mark;
	skb->mark = mark;
	if (last)
		return bpf_redirect(ifindex, 0);
	bpf_clone_redirect(skb, ifindex, 0);
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
		trace(skb, EVENT_PASS, 0, w->s->table, 0);
		return TCX_PASS;
	}
	if (w->s->egress)
		return TCX_DROP;
	if (w->in->flags & PORT_PEER_ANY) {
		u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

		if (data + 6 <= end && (*(u32 *)data != *(u32 *)w->in->mac ||
					*(u16 *)(data + 4) != *(u16 *)(w->in->mac + 4)))
			bpf_skb_change_type(skb, *(u32 *)data == 0xffffffff && *(u16 *)(data + 4) == 0xffff ? PACKET_BROADCAST :
						 data[0] & 1 ? PACKET_MULTICAST : PACKET_OTHERHOST);
	}
	return TCX_NEXT;
}

/* ---- actions ---- */

enum transformed { UNCHANGED = 0, CHANGED = 1, RELEASED = 2 };

/*
 * The outer tag becomes `tpid`, `tci`, but keeps its DEI bit, and, where the upper half of `arg` says so, its priority:
 * as with TC's "vlan modify".
 */
static __always_inline int modify_vlan(struct __sk_buff *skb, u64 arg)
{
	u16 tpid = bpf_htons((u32)arg >> 16), keep = arg >> 32 ? 0xf000 : 0x1000, kept;

	if (skb->vlan_present) {
		kept = skb->vlan_tci & keep;
	} else {
		u16 tci;

		if (!is_vlan((u16)skb->protocol))
			return 0;
		if (bpf_skb_load_bytes(skb, 14, &tci, 2))
			return -1;
		kept = bpf_ntohs(tci) & keep;
	}
	if (bpf_skb_vlan_pop(skb))
		return -1;
	return bpf_skb_vlan_push(skb, tpid, (arg & 0xefff) | kept);
}

/*
 * One action that changes the packet, whose outermost fields are `f` when `known`: what has changed (enum transformed),
 * or -1. `flags` are those of the port it came in by.
 */
__noinline int transform(struct __sk_buff *skb, struct fields *f, u32 op, u64 arg, u32 flags)
{
	if (!f)
		return -1;
	switch (op & 0xff) {
	case OP_PUSH_VLAN:
		return bpf_skb_vlan_push(skb, bpf_htons((u32)arg >> 16), (u16)arg) ? -1 : CHANGED;
	case OP_POP_VLAN:
		return bpf_skb_vlan_pop(skb) ? -1 : CHANGED;
	case OP_MODIFY_VLAN:
		return modify_vlan(skb, arg) ? -1 : CHANGED;
	case OP_SET:
	case OP_ADD:
		read_fields(skb, f, 0);
		return rewrite(skb, f, op, arg) < 0 ? -1 : CHANGED;
	case OP_ENCAP:
		return encapsulate(skb, arg);
	case OP_DECAP:
		return flags & PORT_METADATA ? RELEASED : decapsulate(skb, f);
	case OP_SET_TUNNEL:
		return set_tunnel(skb, arg) ? -1 : RELEASED;
	default:
		return -1;
	}
}

/* The packet is not what it was: what is known of it is void. */
static __always_inline void changed(struct work *w)
{
	w->s->parsed = PARSED_NOT;
	if (w->s->inner != METADATA)
		w->s->inner = UNKNOWN;
}

/*
 * Before a packet goes out of a port: cut it as an action before has said; where it is not the `last` that becomes of it,
 * a copy goes by the entry `single`, and the packet does not. 1: so it is; -1: failed.
 */
__noinline int shorten(struct __sk_buff *skb, struct state *state, u64 place, u32 single)
{
	u32 limit, len = skb->len;

	if (!state)
		return -1;
	limit = state->max_len + (state->no_ethernet ? 14 : 0);
	if (untagged_length(skb, len) <= limit)
		return 0;
	if (single)
		return copy(skb, state, place, place >> 32, single | SINGLE) ? -1 : 1;
	return bpf_skb_change_tail(skb, limit + (len - untagged_length(skb, len)), 0) ? -1 : 0;
}

/* Whether a port takes packets without an Ethernet header. Then it takes no others: it sends what follows the header. */
static __always_inline int takes_bare(u32 slot)
{
	struct port *port = bpf_map_lookup_elem(&ports, &slot);

	return port && READ_ONCE(port->flags) & PORT_BARE;
}

/* Out of the port that the entry names. */
static __always_inline void output(struct work *w, struct entry *c, int last)
{
	int verdict;

	w->s->sent = 1;
	if (w->s->state.no_ethernet && !takes_bare(c->arg)) {
		w->s->verdict = drop(w, DROP_ACTION);
		w->s->state.max_len = 0;
		return;
	}
	if (w->s->state.max_len) {
		changed(w);
		verdict = shorten(w->skb, &w->s->state, (u64)w->s->table << 32 | w->in->slot, last ? 0 : w->s->entry);
		w->s->state.max_len = 0;
		if (verdict < 0)
			w->s->verdict = drop(w, last ? DROP_TRUNCATE : DROP_COPY);
		if (verdict)
			return;
	}
	/* The upper half says what the node is to do with it. */
	tell(w, c->arg >> 32);
	verdict = deliver(w, c->arg, last);
	if (last)
		w->s->verdict = verdict;
	else
		tell(w, 0);
}

static long act(u32 i, struct work *w)
{
	struct entry *c = bpf_map_lookup_elem(&entries, &w->s->entry);
	struct port *port;
	int last, verdict;
	u32 slot, following, nested, op;

	if (!c)
		return 1;
	last = c->next == 0 || w->s->state.single;
	following = c->next;
	switch (c->op & 0xff) {
	case OP_OUTPUT:
		output(w, c, last);
		break;
	case OP_UPCALL:
		verdict = upcall(w, 1, c->arg, last);
		if (last)
			w->s->verdict = verdict;
		w->s->state.max_len = 0;
		w->s->sent = 1;
		break;
	case OP_TRUNCATE:
		w->s->state.max_len = c->arg;
		break;
	case OP_GOTO:
		w->s->table = c->arg;
		w->s->resume = c->arg >> 32;
		w->s->flow = FLOW_GOTO;
		return 1;
	case OP_ENTER:
		slot = c->arg;
		port = bpf_map_lookup_elem(&ports, &slot);
		if (!port || !(READ_ONCE(port->flags) & PORT_ENABLED) || !port->n_tables) {
			w->s->verdict = drop(w, DROP_OUT_PORT);
			w->s->sent = 1;
			return 1;
		}
		w->in = port;
		w->s->slot = slot;
		w->s->state.stage = 0;
		w->s->table = port->tables[0];
		w->s->resume = c->arg >> 32;
		w->s->flow = FLOW_GOTO;
		return 1;
	case OP_PASS:
		w->s->flow = FLOW_PASS;
		return 1;
	case OP_DROP:
		w->s->verdict = drop(w, DROP_RULE);
		w->s->sent = 1;
		return 1;
	case OP_CLONE:
	case OP_SAMPLE:
	case OP_CHECK_LENGTH:
	case OP_DEC_TTL:
	case OP_HASH:
	case OP_SET_META:
	case OP_PUSH_MPLS:
	case OP_POP_MPLS:
	case OP_PUSH_ETHERNET:
	case OP_POP_ETHERNET:
	case OP_PUSH_NSH:
	case OP_POP_NSH:
		op = c->op & 0xff;
		nested = c->arg;
		verdict = op == OP_CLONE ? BRANCH : rare(w->skb, &w->s->p.f, &w->s->state, c->op, c->arg);
		if (verdict < 0)
			goto failed;
		if (op != OP_CLONE && op != OP_SAMPLE && op != OP_CHECK_LENGTH)
			changed(w);
		if (verdict != BRANCH)
			break;
		if (op == OP_CLONE || (op == OP_SAMPLE && !last)) {
			if (copy(w->skb, &w->s->state, w->in->slot, w->s->table, nested))
				drop(w, DROP_COPY);
			w->s->sent = 1;
		} else {
			following = nested;
			last = following == 0;
		}
		break;
	default:
		verdict = transform(w->skb, &w->s->p.f, c->op, c->arg, w->in->flags);
		if (verdict < 0)
			goto failed;
		if ((c->op & 0xff) == OP_SET_TUNNEL)
			w->s->state.given_tunnel = c->arg;
		if (verdict & RELEASED) {
			w->s->state.released = 1;
			w->s->inner = UNKNOWN;
		}
		changed(w);
	}
	w->s->entry = following;
	return last;
failed:
	w->s->verdict = drop(w, DROP_ACTION);
	w->s->sent = 1;
	return 1;
}

/* Do the action list that begins at s->entry. */
__noinline int perform(struct __sk_buff *skb, struct way *s)
{
	struct work w = { .skb = skb, .s = s };
	u32 slot;

	if (!s)
		return 0;
	slot = s->slot;
	w.in = bpf_map_lookup_elem(&ports, &slot);
	s->flow = FLOW_DONE;
	s->sent = 0;
	s->verdict = TCX_DROP;
	if (s->entry && w.in)
		bpf_loop(ACTIONS, act, &w, 0);
	if (s->flow == FLOW_DONE && !s->sent)
		drop(&w, DROP_RULE);
	return 0;
}

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
	add(rule, packets, tc ? octets_arrived(w->s->state.arrived, packets) : octets(skb) - room);
}

static __always_inline int missed(struct work *w)
{
	struct port *in = w->in;

	switch (in->miss) {
	case MISS_REDIRECT:
		tell(w, w->s->resume);
		return deliver(w, in->miss_slot, 1);
	case MISS_UPCALL:
		w->s->state.max_len = 0;
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
	u32 rule = 0, stage, list = 0, chain = 0, slot;

	if (!w->s->plain) {
		if (w->s->state.lookups++ == LOOKUPS) {
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
	opaque(list);
	rule = lookup(w, list);
	if (!rule && list) {
		w->s->plain = 1;
		return 0;
	}
	w->s->plain = 0;
	if (!rule) {
		/* The next stage goes on where this one stopped: tc_skb_ext's chain, openvswitch's recirc_id. */
		chain = w->s->table & CHAIN_MASK;
		goto next_stage;
	}
	r = bpf_map_lookup_elem(&rules, &rule);
	if (!r)
		return 1;
	count(w, rule);
	if (constants.tracing)
		trace(w->skb, EVENT_MATCH, rule, w->s->table, 0);
	w->s->entry = READ_ONCE(r->actions);
	perform(w->skb, w->s);
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
	if (stage < in->n_tables && stage < TABLES) {
		opaque(stage);
		w->s->table = in->tables[stage & (TABLES - 1)] | chain;
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

	opaque(deep);
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
static __always_inline int enter_bare(struct __sk_buff *skb, struct state *state)
{
	u16 type = skb->protocol;

	if (!constants.tracing) {
		if (type == bpf_htons(ETH_P_TEB))
			return settle(skb);
		if (bpf_skb_change_head(skb, 14, 0) || bpf_skb_store_bytes(skb, 12, &type, 2, 0))
			return -1;
		state->arrived += 14;
	}
	state->no_ethernet = 1;
	return 0;
}

static __always_inline int follow(struct __sk_buff *skb, struct port *in, struct way *s)
{
	struct work w = { .skb = skb, .in = in, .s = s };
	u32 resume = skb->tc_index, chain = 0, slot;
	struct resume *found;

	/* An internal port is read at egress. Its taps and counters see a copy; the original takes the pipeline. */
	s->egress = !!(in->flags & PORT_INTERNAL);
	s->inner = UNKNOWN;
	s->state.arrived = skb->len;
	if (!skb->vlan_present && is_vlan((u16)skb->protocol) && skb->len >= 18)
		s->state.arrived -= 4;
	tell(&w, 0);
	if (in->flags & PORT_BARE && enter_bare(skb, &s->state))
		return drop(&w, DROP_ACTION);
	if (skb->len < 14)
		return drop(&w, DROP_SHORT);
	if (s->egress && !constants.tracing) {
		u32 mark = skb->mark;

		skb->mark = SELF_MARK;
		bpf_clone_redirect(skb, in->ifindex, 0);
		skb->mark = mark;
	}
	if (resume && in->flags & PORT_RESUME) {
		found = bpf_map_lookup_elem(&resumes, &resume);
		if (found && found->table == DELIVER)
			return deliver(&w, found->slot, 1);
		if (found) {
			chain = found->table;
			slot = found->slot;
			if (slot) {
				in = bpf_map_lookup_elem(&ports, &slot);
				if (!in || !(READ_ONCE(in->flags) & PORT_ENABLED))
					return drop(&w, DROP_IN_PORT);
				w.in = in;
				s->egress = !!(in->flags & PORT_INTERNAL);
			}
		}
	}
	if (!in->n_tables)
		return missed(&w);
	s->slot = in->slot;
	s->table = in->tables[0] | chain;
	bpf_loop(2 * LOOKUPS + 2, step, &w, 0);
	return s->verdict;
}

SEC("tc")
int eswitch(struct __sk_buff *skb)
{
	u32 ifindex = skb->ifindex, zero = 0;
	struct config *c;
	struct port *in;
	struct ways *all;
	struct way *s;
	int verdict;

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
	}
	in = port_of(ifindex);
	if (!in)
		return TCX_NEXT;
	if (!skb->tc_index && in->ifindex == ifindex && READ_ONCE(in->flags) & PORT_ENABLED && in->n_tables) {
		verdict = express(skb, in);
		if (verdict != LONG_WAY)
			return verdict;
	}
	if (in->flags & PORT_INTERNAL && skb->mark == SELF_MARK)
		return TCX_NEXT;
	if (in->ifindex != ifindex || !(READ_ONCE(in->flags) & PORT_ENABLED)) {
		struct work w = { .skb = skb };

		return drop(&w, DROP_IN_PORT);
	}
	all = bpf_map_lookup_elem(&ways, &zero);
	s = all ? take_way(all) : 0;
	if (!s)
		return TCX_DROP;
	verdict = follow(skb, in, s);
	all->deep--;
	return verdict;
}

/*
 * At the egress of the device that upcalls leave by: copies of packets, and packets that user space hands in, go on
 * here. Upcalls pass.
 */
SEC("tc")
int onward(struct __sk_buff *skb)
{
	u32 zero = 0, slot;
	struct continuation *e = bpf_map_lookup_elem(&copied, &zero);
	struct ways *all = bpf_map_lookup_elem(&ways, &zero);
	struct work w = { .skb = skb };
	struct way *s;
	int verdict;

	if (!e || !all)
		return TCX_NEXT;
	if (e->active) {
		e->active = 0;
	} else {
		if (skb->mark != CONTINUE_MARK)
			return TCX_NEXT;
		e = bpf_map_lookup_elem(&handed_in, &zero);
		if (!e)
			return TCX_DROP;
		skb->mark = e->mark;
		skb->priority = e->priority;
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
	perform(skb, s);
	s->state.single = 0;
	verdict = s->verdict;
	if (s->flow != FLOW_DONE) {
		slot = s->slot;
		w.s = s;
		w.in = bpf_map_lookup_elem(&ports, &slot);
		if (w.in && s->flow == FLOW_PASS) {
			verdict = pass(&w);
		} else if (w.in) {
			bpf_loop(2 * LOOKUPS + 2, step, &w, 0);
			verdict = s->verdict;
		}
	}
	all->deep--;
	return constants.tracing ? TCX_DROP : verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
