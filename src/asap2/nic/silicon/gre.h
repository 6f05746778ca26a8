// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* GRE's header (RFC 2784, 2890), which follows IP's. The specification is tunnel.py. */
#pragma once

#include "geneve.h"

#define GRE_MAX (GRE_LEN + 12)

/* The length of a header in front of an Ethernet frame; 0: it is none. Nobody verifies a checksum. */
static __always_inline u32 gre_length(const u8 *h)
{
	u16 flags = bpf_ntohs(*(u16 *)h);

	if (flags & ~(GRE_CHECKSUM | GRE_KEY | GRE_SEQUENCE) || *(u16 *)(h + 2) != bpf_htons(ETH_P_TEB))
		return 0;
	return GRE_LEN + (flags & GRE_CHECKSUM ? 4 : 0) + (flags & GRE_KEY ? 4 : 0) + (flags & GRE_SEQUENCE ? 4 : 0);
}
