// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Geneve's header (RFC 8926), which follows UDP's. The specification is tunnel.py. */
#pragma once

#include "eswitch.h"

#define GENEVE_OPTION_LEN 4 /* of an option without its data */
#define GENEVE_OPTIONS_LOOK 8 /* options that are looked at */
#define ETH_P_TEB 0x6558

/* Octets of options in a header, which is one of a frame in Geneve and no control packet; -1: it is not. */
static __always_inline int geneve_options(const u8 *h)
{
	if (h[0] >> 6 || h[1] & GENEVE_OAM || *(u16 *)(h + 2) != bpf_htons(ETH_P_TEB))
		return -1;
	return (h[0] & 0x3f) * 4;
}

/* Whether the option that begins with the words `h` is one that rules match on; then it is what `f` has. */
static __always_inline int known_option(struct fields *f, const u32 *h, struct config *c)
{
	u32 header = h[0] & bpf_htonl(0xffffff1f);

#pragma unroll
	for (u32 i = 0; i < OPTION_KINDS; i++) {
		if (header && READ_ONCE(c->option_kinds[i]) == header) {
			f->tun_option_kind = i + 1;
			__builtin_memcpy(f->tun_option, &h[1], 4);
			return 1;
		}
	}
	return 0;
}

/* Among the options from `at` to `end`, the first that rules match on. */
static __always_inline void find_option(struct __sk_buff *skb, struct fields *f, u32 at, u32 end)
{
	u32 zero = 0, h[2];
	struct config *c = bpf_map_lookup_elem(&config, &zero);

	if (!c)
		return;
	for (int i = 0; i < GENEVE_OPTIONS_LOOK; i++) {
		if (at + sizeof(h) > end || bpf_skb_load_bytes(skb, at, h, sizeof(h)) || known_option(f, h, c))
			return;
		at += GENEVE_OPTION_LEN + (bpf_ntohl(h[0]) & 0x1f) * 4;
	}
}
