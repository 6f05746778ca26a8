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
 * a rule decides; a Bloom filter of all keys spares it the look under most masks where it has none. The cache of each
 * CPU remembers, for the packet under the union of masks, which rule (or none) that was, until the head's generation
 * changes.
 *
 * User space changes these lists while packets walk them. So a node's mask never changes while it can be reached, a
 * list is changed by one 32-bit store, and an index is used again only after an RCU grace period.
 *
 * Build: clang -O2 -g -target bpf -mcpu=v3 -I/usr/include/$(uname -m)-linux-gnu -c eswitch.bpf.c -o eswitch.bpf.o
 */
#include "express.h"
#include "rewrite.h"

/* ---- user space, and the network stack ---- */

/* A packet that user space should have got. */
static __always_inline int lost(struct work *w)
{
	__sync_fetch_and_add(&w->in->refused, 1);
	return drop(w, DROP_UPCALL);
}

/*
 * Whether a port has no more room for packets on their way to user space: the memory, and what user space manages, is
 * for all. Where such packets get lost unseen, room would never come back: so one may try now and then.
 */
static __always_inline int full(struct port *in, u32 limit, u64 now)
{
	if (!limit || (s64)(READ_ONCE(in->given) - READ_ONCE(in->taken)) < (s64)limit)
		return 0;
	return constants.tracing || now - READ_ONCE(in->since) < UPCALL_PATIENCE;
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
	if (!ifindex || full(w->in, READ_ONCE(c->upcall_limit), now))
		return lost(w);
	mark = UPCALL_MAGIC | (__sync_fetch_and_add(&c->upcalls, 1) & UPCALL_SEQ);
	at = mark & 8191;
	u = bpf_map_lookup_elem(&upcalls, &at);
	if (!u)
		return lost(w);
	if (w->in->flags & PORT_METADATA && !w->released && has_metadata(skb)) {
		w->inner = METADATA;
		parse_tunnel(w);
	} else {
		parse(w);
	}
	units = 1 + (skb->len + (skb->vlan_present ? 4 : 0)) / UPCALL_UNIT;
	w->in->since = now;
	u->mark = 0;
	u->kind = kind;
	u->in_port = w->in->id;
	u->table = w->table;
	u->cookie = cookie;
	u->hash = bpf_get_hash_recalc(skb);
	u->len = skb->len;
	u->max_len = w->max_len;
	u->units = units;
	u->at = __sync_fetch_and_add(&w->in->given, units) + units;
	__builtin_memcpy(&u->key, &w->p, sizeof(w->p));
	barrier();
	u->mark = mark;
	if (constants.tracing) {
		trace(skb, EVENT_UPCALL, mark, w->table, cookie);
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
		trace(skb, EVENT_PASS, 0, w->table, 0);
		return TCX_PASS;
	}
	if (w->egress)
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
	w->parsed = PARSED_NOT;
	if (w->inner != METADATA)
		w->inner = UNKNOWN;
}

static long act(u32 i, struct work *w)
{
	struct cell *c = bpf_map_lookup_elem(&cells, &w->cell);
	struct port *port;
	int last, verdict;
	u32 len, slot;

	if (!c)
		return 1;
	last = c->next == 0;
	switch (c->op & 0xff) {
	case OP_OUTPUT:
		/* The upper half says what the node is to do with it. */
		tell(w, c->arg >> 32);
		verdict = deliver(w, c->arg, last);
		if (last)
			w->verdict = verdict;
		else
			tell(w, 0);
		w->sent = 1;
		break;
	case OP_UPCALL:
		verdict = upcall(w, 1, c->arg, last);
		if (last)
			w->verdict = verdict;
		w->max_len = 0;
		w->sent = 1;
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
		changed(w);
		if (bpf_skb_change_tail(w->skb, len, 0)) {
			w->verdict = drop(w, DROP_TRUNCATE);
			w->sent = 1;
			return 1;
		}
		break;
	case OP_GOTO:
		w->table = c->arg;
		w->resume = c->arg >> 32;
		w->flow = FLOW_GOTO;
		return 1;
	case OP_ENTER:
		slot = c->arg;
		port = bpf_map_lookup_elem(&ports, &slot);
		if (!port || !(READ_ONCE(port->flags) & PORT_ENABLED) || !port->n_tables) {
			w->verdict = drop(w, DROP_OUT_PORT);
			w->sent = 1;
			return 1;
		}
		w->in = port;
		w->stage = 0;
		w->table = port->tables[0];
		w->resume = c->arg >> 32;
		w->flow = FLOW_GOTO;
		return 1;
	case OP_PASS:
		w->flow = FLOW_PASS;
		return 1;
	case OP_DROP:
		w->verdict = drop(w, DROP_RULE);
		w->sent = 1;
		return 1;
	default:
		verdict = transform(w->skb, &w->p.f, c->op, c->arg, w->in->flags);
		if (verdict < 0)
			goto failed;
		if (verdict & RELEASED) {
			w->released = 1;
			w->inner = UNKNOWN;
		}
		changed(w);
	}
	w->cell = c->next;
	return last;
failed:
	w->verdict = drop(w, DROP_ACTION);
	w->sent = 1;
	return 1;
}

/* Of a super-packet whose headers have changed (the kernel then forgets), from the Ethernet header at `from` on. */
__noinline int segments(struct __sk_buff *skb, u32 from)
{
	u32 size = skb->gso_size, l3 = 14, headers;
	u8 h[20], doff;
	u16 type;

	if (!size || from > TUNNEL_MAX || bpf_skb_load_bytes(skb, from + 12, &type, 2))
		return 1;
	for (int i = 0; i < 2; i++) {
		if (!is_vlan(type))
			break;
		l3 += 4;
		if (bpf_skb_load_bytes(skb, from + l3 - 2, &type, 2))
			return 1;
	}
	if (bpf_skb_load_bytes(skb, from + l3, h, sizeof(h)))
		return 1;
	headers = from + l3 + (type == bpf_htons(ETH_P_IP) ? (h[0] & 15) * 4 : 40);
	if ((type == bpf_htons(ETH_P_IP) ? h[9] : h[6]) != 6)
		headers += 8;
	else if (bpf_skb_load_bytes(skb, headers + 12, &doff, 1))
		return 1;
	else
		headers += (doff >> 4) * 4;
	return skb->len > headers ? (skb->len - headers + size - 1) / size : 1;
}

static __always_inline void count(struct work *w, u32 rule)
{
	struct __sk_buff *skb = w->skb;
	u32 packets = skb->gso_segs ?: 1, inner;

	if (!skb->gso_segs && skb->gso_size) {
		inner = w->parsed == PARSED_TUNNEL ? w->inner : tunnel_at(skb, &w->p.f);
		packets = segments(skb, inner > UNKNOWN ? inner : 0);
	}
	add(skb, rule, packets);
}

static __always_inline int missed(struct work *w)
{
	struct port *in = w->in;

	switch (in->miss) {
	case MISS_REDIRECT:
		tell(w, w->resume);
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
	u32 rule = 0, stage, list = 0, chain = 0;

	if (!w->plain) {
		if (w->lookups++ == LOOKUPS) {
			w->verdict = drop(w, DROP_LOOP);
			return 1;
		}
		if (in->flags & (PORT_WIRE | PORT_METADATA) && !(w->released && in->flags & PORT_METADATA)) {
			w->parsed = PARSED_PLAIN;
			w->inner = find_inner(w->skb, &w->p.f, in->flags);
			list = w->inner ? TUNNEL_LIST : 0;
		}
	}
	opaque(list);
	rule = lookup(w, list);
	if (!rule && list) {
		w->plain = 1;
		return 0;
	}
	w->plain = 0;
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
	chain = 0;
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

SEC("tc")
int eswitch(struct __sk_buff *skb)
{
	u32 ifindex = skb->ifindex, zero = 0, resume, chain = 0, *slot;
	struct resume *found;
	struct config *c;
	struct port *in;
	struct work w;
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
	__builtin_memset(&w, 0, sizeof(w));
	w.skb = skb;
	w.in = in;
	/* An internal port is read at egress. Its taps and counters see a copy; the original takes the pipeline. */
	w.egress = !!(w.in->flags & PORT_INTERNAL);
	if (w.egress && skb->mark == SELF_MARK)
		return TCX_NEXT;
	if (w.in->ifindex != ifindex || !(READ_ONCE(w.in->flags) & PORT_ENABLED))
		return drop(&w, DROP_IN_PORT);
	w.inner = UNKNOWN;
	resume = skb->tc_index;
	tell(&w, 0);
	if (skb->len < 14)
		return drop(&w, DROP_SHORT);
	if (w.egress && !constants.tracing) {
		u32 mark = skb->mark;

		skb->mark = SELF_MARK;
		bpf_clone_redirect(skb, ifindex, 0);
		skb->mark = mark;
	}
	if (resume && w.in->flags & PORT_RESUME) {
		found = bpf_map_lookup_elem(&resumes, &resume);
		if (found && found->table == DELIVER)
			return deliver(&w, found->slot, 1);
		if (found) {
			chain = found->table;
			slot = &found->slot;
			if (*slot) {
				w.in = bpf_map_lookup_elem(&ports, slot);
				if (!w.in || !(READ_ONCE(w.in->flags) & PORT_ENABLED))
					return drop(&w, DROP_IN_PORT);
				w.egress = !!(w.in->flags & PORT_INTERNAL);
			}
		}
	}
	if (!w.in->n_tables)
		return missed(&w);
	w.table = w.in->tables[0] | chain;
	bpf_loop(2 * LOOKUPS + 2, step, &w, 0);
	return w.verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
