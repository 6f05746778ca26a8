// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Sampled packets: a copy, as long as its listeners want it, goes to user space through a ring buffer. */
#pragma once

#include "eswitch.h"

struct sample {
	u64 now;
	u32 original, length; /* octets of the packet without its outer tag, and of the copy that follows */
	u16 protocol; /* host byte order */
	u16 tunnel, tunnel_port; /* tunnel: octets of a tunnel address; 0: the packet is not in a tunnel */
	u16 options_len; /* octets of the tunnel's options */
	struct bpf_tunnel_key key;
	struct sampling how;
	u8 options[OPTIONS_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} samples SEC(".maps");

#define ADDRESSES_LEN 12 /* of an Ethernet header: the outer tag follows */

/* The protocol as eth_type_trans() finds it: a frame with a length in place of a type has one of two. */
static __always_inline u16 type_at(struct __sk_buff *skb, u32 at)
{
	u16 type = 0, first = 0;

	bpf_skb_load_bytes(skb, at, &type, 2);
	type = bpf_ntohs(type);
	if (type >= 0x600)
		return type;
	bpf_skb_load_bytes(skb, at + 2, &first, 2);
	return first == 0xffff ? 1 : ETH_P_802_2;
}

/*
 * Write the record, with room for so many octets. `start`: where the packet begins; `skip`: octets of its outer tag,
 * after the addresses.
 */
static __always_inline int put_sample(struct __sk_buff *skb, struct state *state, struct encap *e, struct port *in,
				      u32 start, u32 skip, u32 len, u16 protocol, const u32 room)
{
	struct sample *s = bpf_ringbuf_reserve(&samples, sizeof(struct sample) + room, 0);
	u32 first = len < ADDRESSES_LEN ? len : ADDRESSES_LEN, rest = len - first;
	s32 options;
	u8 *data;

	if (!s)
		return 0;
	s->now = bpf_ktime_get_ns();
	s->original = skb->len - start - skip;
	s->length = len;
	s->protocol = protocol;
	s->tunnel = 0;
	s->tunnel_port = state->given_tunnel ? 0 : TUNNEL_PORT(in->flags);
	s->how = e->sampling;
	if (s->how.ifindex == IN_PORT)
		s->how.ifindex = in->id;
	s->options_len = 0;
	if (state->given_tunnel || !state->released) {
		if (!bpf_skb_get_tunnel_key(skb, &s->key, sizeof(s->key), BPF_F_TUNINFO_FLAGS))
			s->tunnel = 4;
		else if (!bpf_skb_get_tunnel_key(skb, &s->key, sizeof(s->key),
						 BPF_F_TUNINFO_FLAGS | BPF_F_TUNINFO_IPV6))
			s->tunnel = 16;
		options = s->tunnel ? bpf_skb_get_tunnel_opt(skb, s->options, sizeof(s->options)) : 0;
		if (options > 0)
			s->options_len = options;
	}
	data = (u8 *)(s + 1);
	if (is_length(first, ADDRESSES_LEN) && bpf_skb_load_bytes(skb, start, data, first))
		goto failed;
	if (is_length(rest, room - ADDRESSES_LEN) &&
	    bpf_skb_load_bytes(skb, start + ADDRESSES_LEN + skip, data + ADDRESSES_LEN, rest))
		goto failed;
	bpf_ringbuf_submit(s, 0);
	return 1;
failed:
	bpf_ringbuf_discard(s, 0);
	return 0;
}

/* Sample the packet, received on `port`, with the probability of a slot's action. 1: it was sampled. */
__noinline int sample(struct __sk_buff *skb, struct state *state, u32 slot, u32 port)
{
	struct encap *e = bpf_map_lookup_elem(&encaps, &slot);
	u32 zero = 0, start, skip, len, done;
	u16 protocol;
	struct config *c = bpf_map_lookup_elem(&config, &zero);

	struct port *in = bpf_map_lookup_elem(&ports, &port);

	if (!state || !e || !c || !in)
		return 0;
	if (e->sampling.every > 1 && (constants.tracing ? c->test_hash : bpf_get_prandom_u32()) % e->sampling.every)
		return 0;
	if (!READ_ONCE(c->sampled))
		return 1;
	skip = !skb->vlan_present && is_vlan((u16)skb->protocol) && skb->len >= ETH_LEN + TAG_LEN ? TAG_LEN : 0;
	protocol = type_at(skb, ADDRESSES_LEN + skip);
	start = 0;
	if (state->no_ethernet) {
		start = ETH_LEN + skip;
		skip = 0;
	}
	len = skb->len - start - skip;
	if (e->sampling.flags & SAMPLE_CUT && len > e->sampling.length)
		len = e->sampling.length;
	if (state->max_len && len > state->max_len)
		len = state->max_len;
	if (len > SAMPLE_BYTES)
		len = SAMPLE_BYTES;
	if (len <= 192)
		done = put_sample(skb, state, e, in, start, skip, len, protocol, 192);
	else if (len <= 2048)
		done = put_sample(skb, state, e, in, start, skip, len, protocol, 2048);
	else
		done = put_sample(skb, state, e, in, start, skip, len, protocol, SAMPLE_BYTES + 1);
	WATCH(skb, EVENT_SAMPLE, slot, 0, done);
	if (constants.tracing && done)
		trace(skb, EVENT_SAMPLE, slot, 0, 0);
	return 1;
}
