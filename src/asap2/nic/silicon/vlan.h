// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What the kernel has no helper for: a tag that changes in its place. */
#pragma once

#include "eswitch.h"

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
