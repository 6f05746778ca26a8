// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Bob Jenkins' hash, as the kernel has it (include/linux/jhash.h). */
#pragma once

#include "eswitch.h"

#define JHASH_INITIAL 0xdeadbeef

static __always_inline u32 rotated(u32 word, u32 by)
{
	return word << by | word >> (32 - by);
}

/* __jhash_mix() */
static __always_inline void jhash_mix(u32 *a, u32 *b, u32 *c)
{
	*a -= *c;
	*a ^= rotated(*c, 4);
	*c += *b;
	*b -= *a;
	*b ^= rotated(*a, 6);
	*a += *c;
	*c -= *b;
	*c ^= rotated(*b, 8);
	*b += *a;
	*a -= *c;
	*a ^= rotated(*c, 16);
	*c += *b;
	*b -= *a;
	*b ^= rotated(*a, 19);
	*a += *c;
	*c -= *b;
	*c ^= rotated(*b, 4);
	*b += *a;
}

/* __jhash_final() */
static __always_inline u32 jhash_final(u32 a, u32 b, u32 c)
{
	c ^= b;
	c -= rotated(b, 14);
	a ^= c;
	a -= rotated(c, 11);
	b ^= a;
	b -= rotated(a, 25);
	c ^= b;
	c -= rotated(b, 16);
	a ^= c;
	a -= rotated(c, 4);
	b ^= a;
	b -= rotated(a, 14);
	c ^= b;
	c -= rotated(b, 24);
	return c;
}

/* The hash of three words and an initial value (__jhash_nwords()). */
static __always_inline u32 jhash(u32 a, u32 b, u32 c, u32 initial)
{
	return jhash_final(a + initial, b + initial, c + initial);
}

/* jhash2() of four words. */
static __always_inline u32 jhash2(const u32 *w, u32 initial)
{
	u32 start = JHASH_INITIAL + (4 << 2) + initial, a = start + w[0], b = start + w[1], c = start + w[2];

	jhash_mix(&a, &b, &c);
	return jhash_final(a + w[3], b, c);
}
