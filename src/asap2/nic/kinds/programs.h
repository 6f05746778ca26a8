// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What the programs of every kind need: which device each runs for. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TCX_NEXT TC_ACT_UNSPEC

const volatile struct {
	__u32 self;
} constants;
