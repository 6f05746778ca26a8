// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Network address translation: choose the addresses and ports of a new connection, and translate packets. Modelled on
 * nf_nat_core.c and nf_nat_proto.c of Linux 6.12.
 */
#pragma once

#include "ct_sctp.h"
#include "jhash.h"

enum manip { MANIP_SRC, MANIP_DST };

#define NAT_ATTEMPTS 128 /* ports tried in one round (NF_NAT_MAX_ATTEMPTS) */
#define FEWEST_ATTEMPTS 16
#define HARDER \
	32 /* the last ports of a round, of which one may be taken from an ended connection (NF_NAT_HARDER_THRESH) */

/* Whether NAT can change a port, or ICMP's id. */
static __always_inline int has_port_or_id(u32 proto, u32 family)
{
	return has_ports(proto) || proto == icmp_of(family);
}

/* The offset of a transport checksum that covers addresses or ports; 0: there is none, or it is truncated. */
static __always_inline u32 check_at(u32 proto, u32 family, u32 l4, u32 end)
{
	u32 at = proto == IPPROTO_TCP                             ? TCP_CHECKSUM :
		 proto == IPPROTO_UDP || proto == IPPROTO_UDPLITE ? UDP_CHECKSUM :
		 proto == icmp_of(family)                         ? ICMP_CHECKSUM :
								    0;
	u32 header = proto == IPPROTO_TCP ? TCP_LEN : UDP_LEN;

	return at && l4 + header <= end ? l4 + at : 0;
}

/*
 * Replace the source or destination of the header at `l3` with that of `to`, with its port or id. The transport header
 * begins at `l4` (0: NAT does not know it), and the packet ends at `end`. -1: failed.
 */
__noinline int manipulate(struct __sk_buff *skb, struct tuple *to, u64 place, u32 l4, u32 manip)
{
	u32 l3 = place, end = place >> 32, family, proto, port_at, check, octets, at;
	u16 port, old_port = 0;
	u64 flags;
	u8 old[16], new[16];
	int changes_port;

	if (!to)
		return -1;
	family = to->family;
	proto = to->proto;
	octets = family == 4 ? 4 : 16;
	at = l3 + (family == 4 ? IPV4_SRC : IPV6_SRC) + (manip == MANIP_DST ? octets : 0);
	__builtin_memcpy(new, manip == MANIP_DST ? to->dst : to->src, 16);
	if (proto == icmp_of(family)) {
		port_at = l4 + 4;
		port = to->src_port;
		/* An ICMP error has no id. */
		changes_port = l4 && !bpf_skb_load_bytes(skb, l4, old, 1) && icmp_answer(old[0], family) != 0xff &&
			       (family == 4 || old[0] < 130);
	} else {
		port_at = l4 + (manip == MANIP_DST ? 2 : 0);
		port = manip == MANIP_DST ? to->dst_port : to->src_port;
		changes_port = has_ports(proto);
	}
	/* A transport header that NAT knows must have this many octets. */
	if (l4 && (has_port_or_id(proto, family) || proto == IPPROTO_GRE) && l4 + 8 > end)
		return -1;
	if (!l4 || (changes_port && bpf_skb_load_bytes(skb, port_at, &old_port, 2)))
		changes_port = 0;
	check = l4 ? check_at(proto, family, l4, end) : 0;
	flags = proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	if (family == 4) {
		if (bpf_skb_load_bytes(skb, at, old, 4) || bpf_skb_store_bytes(skb, at, new + 12, 4, 0) ||
		    bpf_l3_csum_replace(skb, l3 + IPV4_CHECKSUM, *(u32 *)old, *(u32 *)(new + 12), 4))
			return -1;
		if (check && proto != IPPROTO_ICMP &&
		    bpf_l4_csum_replace(skb, check, *(u32 *)old, *(u32 *)(new + 12), flags | BPF_F_PSEUDO_HDR | 4))
			return -1;
	} else {
		s64 difference;

		if (bpf_skb_load_bytes(skb, at, old, 16) || bpf_skb_store_bytes(skb, at, new, 16, 0))
			return -1;
		difference = bpf_csum_diff((void *)old, 16, (void *)new, 16, 0);
		if (check && bpf_l4_csum_replace(skb, check, 0, difference, flags | BPF_F_PSEUDO_HDR))
			return -1;
	}
	if (!changes_port || port == old_port)
		return 0;
	if (proto == IPPROTO_SCTP && l4 + SCTP_LEN <= end) {
		union {
			u16 port[2];
			u32 both;
		} ports;
		u32 old_ports;

		if (bpf_skb_load_bytes(skb, l4, &old_ports, 4))
			return -1;
		ports.both = old_ports;
		if (manip == MANIP_DST)
			ports.port[1] = port;
		else
			ports.port[0] = port;
		return replace_sctp_ports(skb, l4, end, old_ports, ports.both);
	}
	if (bpf_skb_store_bytes(skb, port_at, &port, 2, 0))
		return -1;
	if (check && bpf_l4_csum_replace(skb, check, old_port, port, flags | 2))
		return -1;
	return 0;
}

/* Whether another connection has the inverse of this tuple (nf_nat_used_tuple()). */
static __always_inline int is_used(struct flight *p, struct tuple *t)
{
	return invert(t, &p->tuple) && tuple_taken(p);
}

__noinline int tuple_used(struct flight *p, struct tuple *t)
{
	return p && t ? is_used(p, t) : 1;
}

static __always_inline int compare_addresses(const u8 *a, const u8 *b)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		u32 x, y;

		__builtin_memcpy(&x, a + 4 * i, 4);
		__builtin_memcpy(&y, b + 4 * i, 4);
		x = bpf_ntohl(x);
		y = bpf_ntohl(y);
		if (x != y)
			return x < y ? -1 : 1;
	}
	return 0;
}

static __always_inline u16 *port_of_tuple(struct tuple *t, u32 manip)
{
	u32 icmp = t->proto == icmp_of(t->family);

	return manip == MANIP_SRC || icmp ? &t->src_port : &t->dst_port;
}

static __always_inline int port_in_range(struct tuple *t, struct tracking *r, u32 manip)
{
	u32 port = bpf_ntohs(*port_of_tuple(t, manip));

	return !(has_port_or_id(t->proto, t->family) || t->proto == IPPROTO_GRE) ||
	       (port >= r->port_min && port <= r->port_max);
}

/* The kernel's jhash2 of an address. */
static __always_inline u32 address_hash(const u8 *address, u32 initial)
{
	u32 w[4];

	__builtin_memcpy(w, address, 16);
	return jhash2(w, initial);
}

/* The kernel has IPv4 addresses in the first word. */
static __always_inline void as_kernel(u8 *out, const u8 *address, u32 family)
{
	__builtin_memset(out, 0, 16);
	if (family == 4)
		__builtin_memcpy(out, address + 12, 4);
	else
		__builtin_memcpy(out, address, 16);
}

/* Choose the address of a range for this pair of addresses (find_best_ips_proto()). */
__noinline int choose_address(struct flight *p, struct tuple *t, struct tracking *r, u32 manip)
{
	u8 src[16], dst[16], low[16], high[16], *to;
	u32 hash, full = 0, last = 0;

	if (!p || !t || !r || !(r->flags & CT_NAT_ADDRESSES))
		return 0;
	to = manip == MANIP_SRC ? t->src : t->dst;
	if (!compare_addresses(r->ip_min, r->ip_max)) {
		__builtin_memcpy(to, r->ip_min, 16);
		return 0;
	}
	as_kernel(src, t->src, t->family);
	as_kernel(dst, t->dst, t->family);
	as_kernel(low, r->ip_min, t->family);
	as_kernel(high, r->ip_max, t->family);
	if (!(r->flags & CT_NAT_PERSISTENT)) {
		__builtin_memcpy(&last, dst + (t->family == 4 ? 0 : 12), 4);
		last ^= r->zone;
	}
	hash = address_hash(src, last);
#pragma unroll
	for (u32 i = 0; i < 4; i++) {
		u32 from, upto, distance, chosen, word;

		__builtin_memcpy(&from, low + 4 * i, 4);
		__builtin_memcpy(&upto, high + 4 * i, 4);
		distance = full ? ~0u : bpf_ntohl(upto) - bpf_ntohl(from) + 1;
		chosen = bpf_htonl((full ? 0 : bpf_ntohl(from)) + (u32)((u64)hash * distance >> 32));
		if (chosen != upto)
			full = 1;
		__builtin_memcpy(&word, dst + 4 * i, 4);
		/* The hash uses the destination chosen so far. */
		if (!(r->flags & CT_NAT_PERSISTENT))
			hash ^= manip == MANIP_DST ? chosen : word;
		if (t->family == 4) {
			__builtin_memcpy(to + 12, &chosen, 4);
			break;
		}
		__builtin_memcpy(to + 4 * i, &chosen, 4);
	}
	return 0;
}

static __always_inline u16 random_port(void)
{
	u32 zero = 0;
	struct config *c = bpf_map_lookup_elem(&config, &zero);

	return constants.tracing && c ? c->test_hash : bpf_get_prandom_u32();
}

/* Whether NAT may give the port of `old`, which only waits to expire, to p->fresh (nf_nat_may_kill()). */
static __always_inline int may_replace(struct flight *p, struct connection *old)
{
	u32 status = READ_ONCE(old->status);

	return old->tcp.state >= TCP_TIME_WAIT && status & IPS_SRC_NAT &&
	       !(status & (IPS_FIXED_TIMEOUT | IPS_DYING | IPS_OFFLOAD)) &&
	       (s32)(p->fresh.tcp.seen[0].end - old->tcp.seen[0].end) > 0;
}

/*
 * Whether the only connection that has p->tuple may be replaced (nf_nat_used_tuple_harder()): its record; 0: no. Follows
 * tuple_taken(), so p->key is the exact one, which every connection with NAT has.
 */
static __always_inline u32 replaceable(struct flight *p)
{
	u32 stale, found;
	struct connection *c;

	if (p->fresh.original.proto != IPPROTO_TCP || p->fresh.tcp.state != TCP_SYN_SENT)
		return 0;
	exact_key_of(&p->key, &p->tuple);
	found = peek(p, &stale);
	c = connection_at(found >> 1);
	return found & 1 && c && may_replace(p, c) ? found >> 1 : 0;
}

/* In map memory, whose values the verifier does not track from one attempt to the next. */
static long try_port(u32 i, struct flight **of)
{
	struct flight *p = *of;
	struct port_search *s = &p->ports;
	struct tuple *t = &p->chosen;

	if (!s->left) {
		/* Continue from another port with fewer attempts. */
		if (s->attempts >= s->size || s->attempts < FEWEST_ATTEMPTS)
			return 1;
		s->left = s->attempts /= 2;
		s->offset = random_port();
	}
	s->left--;
	*port_of_tuple(t, s->manip) = bpf_htons(s->least + s->offset % s->size);
	s->offset = (s->offset + 1) & 0xffff;
	if (!is_used(p, t))
		return 1;
	if (s->left < HARDER)
		s->vacate = replaceable(p);
	return s->vacate != 0;
}

/* Search for a port that makes p->chosen unique. There may be none (nf_nat_l4proto_unique_tuple()). */
__noinline int choose_port(struct flight *p, struct tracking *r, u32 manip)
{
	struct port_search *s;
	u32 port, least, most, icmp;

	if (!p || !r || !has_port_or_id(p->chosen.proto, p->chosen.family))
		return 0;
	s = &p->ports;
	icmp = p->chosen.proto == icmp_of(p->chosen.family);
	port = bpf_ntohs(*port_of_tuple(&p->chosen, manip));
	if (r->flags & CT_NAT_PORTS) {
		least = r->port_min;
		most = r->port_max;
		if (most < least && !icmp) {
			least = r->port_max;
			most = r->port_min;
		}
	} else if (icmp) {
		least = 0;
		most = 65535;
	} else if (manip == MANIP_DST) {
		return 0;
	} else {
		/* Privileged ports stay privileged. */
		least = port < 512 ? 1 : port < 1024 ? 600 : 1024;
		most = port < 512 ? 511 : port < 1024 ? 1023 : 65535;
	}
	s->manip = manip;
	s->offset = s->vacate = 0;
	s->least = least;
	s->size = most - least + 1;
	if (!s->size || s->size > 65536)
		return 0;
	if (manip == MANIP_SRC || r->flags & (CT_NAT_HASH | CT_NAT_RANDOM))
		s->offset = random_port();
	s->left = s->attempts = s->size > NAT_ATTEMPTS ? NAT_ATTEMPTS : s->size;
	bpf_loop(2 * NAT_ATTEMPTS, try_port, &p, 0);
	return 0;
}

static __always_inline int in_nat_range(struct tuple *t, struct tracking *r)
{
	if (r->flags & CT_NAT_ADDRESSES &&
	    (compare_addresses(t->src, r->ip_min) < 0 || compare_addresses(t->src, r->ip_max) > 0))
		return 0;
	return !(r->flags & CT_NAT_PORTS) || port_in_range(t, r, MANIP_SRC);
}

/* Have p->chosen be p->present by the first mapping of its source that is in the range. 0: there is none. */
__noinline int mapped_before(struct flight *p, struct tracking *r)
{
	struct source *s;
	int found = 0;
	u32 tag;

	if (!p || !r)
		return 0;
	tag = tag_of_source(&p->present);
	key_of_source(&p->key, &p->present);
	s = source_named();
	if (!s)
		return 0;
	bpf_spin_lock(&s->lock);
	if (s->tag == tag) {
		p->mappings[0] = s->mappings[0];
		p->mappings[1] = s->mappings[1];
		found = 1;
	}
	bpf_spin_unlock(&s->lock);
	if (!found)
		return 0;
#pragma unroll
	for (u32 i = 0; i < MAPPINGS; i++) {
		struct mapping *m = &p->mappings[i];

		if (!m->connections)
			continue;
		__builtin_memcpy(p->chosen.src, m->w, 16);
		p->chosen.src_port = m->port;
		if (in_nat_range(&p->chosen, r))
			return 1;
	}
	return 0;
}

/*
 * Choose source or destination of p->fresh, a new connection; without a range (`null`), its own, if it is free
 * (nf_nat_setup_info()).
 */
__noinline int set_up_nat(struct flight *p, struct tracking *r, u32 manip, u32 null)
{
	struct connection *c;
	struct tracking *range;
	u32 done;

	if (!p || !r)
		return -1;
	c = &p->fresh;
	invert(&c->reply, &p->present);
	range = r;
	if (null) {
		range = &p->null;
		__builtin_memset(range, 0, sizeof(*range));
		range->flags = CT_NAT_ADDRESSES;
		range->zone = r->zone;
		__builtin_memcpy(range->ip_min, manip == MANIP_SRC ? p->present.src : p->present.dst, 16);
		__builtin_memcpy(range->ip_max, range->ip_min, 16);
	}
	p->chosen = p->present;
	done = 0;
	if (manip == MANIP_SRC && !(range->flags & (CT_NAT_HASH | CT_NAT_RANDOM)) &&
	    (in_nat_range(&p->present, range) || mapped_before(p, range)) && !tuple_used(p, &p->chosen))
		done = 1;
	if (!done) {
		p->chosen = p->present;
		choose_address(p, &p->chosen, range, manip);
		if (!(range->flags & (CT_NAT_HASH | CT_NAT_RANDOM))) {
			if (range->flags & CT_NAT_PORTS)
				done = port_in_range(&p->chosen, range, manip) &&
				       (range->port_min == range->port_max || !tuple_used(p, &p->chosen));
			else
				done = !tuple_used(p, &p->chosen);
		}
	}
	p->ports.vacate = 0;
	if (!done)
		choose_port(p, range, manip);
	if (p->ports.vacate)
		forget(p, p->ports.vacate);
	if (!same_tuple(&p->chosen, &p->present)) {
		invert(&p->chosen, &c->reply);
		c->status |= manip == MANIP_SRC ? IPS_SRC_NAT : IPS_DST_NAT;
	}
	c->status |= manip == MANIP_SRC ? IPS_SRC_NAT_DONE : IPS_DST_NAT_DONE;
	return 0;
}

/* The status bit for a manipulation in a direction. */
static __always_inline u32 nat_bit(u32 manip, u32 reply)
{
	return (manip == MANIP_SRC) != reply ? IPS_SRC_NAT : IPS_DST_NAT;
}

static __always_inline u64 place_of(u32 l3, u32 end)
{
	return (u64)end << 32 | l3;
}

/*
 * Translate an ICMP error to p->target. The packet quoted in it goes in the other direction, so its other end is
 * translated. -1: failed (nf_nat_icmp_reply_translation()).
 */
__noinline int manipulate_inside(struct __sk_buff *skb, struct flight *p, u32 manip)
{
	u32 inner, family, length;
	int inner_l4;
	s64 difference;

	if (!p)
		return -1;
	family = p->target.family;
	inner = p->l4 + 8;
	if (inner >= p->end)
		return -1;
	length = p->end - inner;
	if (length > INSIDE)
		length = INSIDE;
	if (!is_length(length, INSIDE))
		return -1;
	__builtin_memset(p->inside, 0, sizeof(p->inside));
	if (bpf_skb_load_bytes(skb, inner, p->inside[0], length))
		return -1;
	inner_l4 = tuple_at(skb, &p->wanted, family, inner, p->end);
	invert(&p->target, &p->wanted);
	p->wanted.proto = p->inner_proto;
	if (manipulate(skb, &p->wanted, place_of(inner, p->end), inner_l4 < 0 ? 0 : inner_l4, !manip))
		return -1;
	if (bpf_skb_load_bytes(skb, inner, p->inside[1], length))
		return -1;
	difference = bpf_csum_diff((void *)p->inside[0], INSIDE, (void *)p->inside[1], INSIDE, 0);
	return bpf_l4_csum_replace(skb, p->l4 + ICMP_CHECKSUM, 0, difference, 0) ? -1 : 0;
}
