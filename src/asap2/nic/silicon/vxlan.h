// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* VXLAN's header (RFC 7348), which follows UDP's. The specification is tunnel.py. */
#pragma once

#include "eswitch.h"

/* Whether packets to a UDP port may be VXLAN: its own, or one that the driver has named. */
static __always_inline int is_vxlan_port(u16 port)
{
	struct config *c;
	u32 zero = 0;

	if (port == bpf_htons(VXLAN_PORT))
		return 1;
	c = bpf_map_lookup_elem(&config, &zero);
	if (!c || !c->tunnels || !port)
		return 0;
#pragma unroll
	for (int i = 0; i < TUNNEL_PORTS; i++)
		if (READ_ONCE(c->tunnel_ports[i]) == port)
			return 1;
	return 0;
}

/* Whether a header says that there is a network identifier; one without is not looked into. */
static __always_inline int is_vxlan(const u8 *h)
{
	return h[0] & VXLAN_ID_VALID;
}

/* The network identifier of the header at `at`, and a reserved octet. */
static __always_inline long load_vxlan_id(struct __sk_buff *skb, u32 at, u8 id[4])
{
	return bpf_skb_load_bytes(skb, at + VXLAN_ID_AT, id, 4);
}

/* The same as rules match on it. */
static __always_inline void put_vxlan_id(u8 tun_id[4], const u8 id[4])
{
	tun_id[0] = 0;
	__builtin_memcpy(tun_id + 1, id, 3);
}
