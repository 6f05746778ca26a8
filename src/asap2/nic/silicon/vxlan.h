// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* VXLAN's header (RFC 7348), which follows UDP's. The specification is tunnel.py. */
#pragma once

#include "eswitch.h"

_Static_assert(VXLAN_ID_AT == GENEVE_ID_AT && VXLAN_LEN == GENEVE_LEN, "put_network_id() is for both");

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

/* The network identifier of a header, as rules match on it. VXLAN's and Geneve's are in the same place. */
static __always_inline void put_network_id(u8 tun_id[4], const u8 *h)
{
	tun_id[0] = 0;
	__builtin_memcpy(tun_id + 1, h + VXLAN_ID_AT, 3);
}
