// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The packet paths of link kinds that the kernel lacks.
 *
 * A device of such a kind is one end of a veth pair, the near end; the far end, which nobody sees, is in the network
 * namespace of the device below. What is sent on the device comes in at the far end, where a program gives it to the
 * device below; a program at the ingress of the device below gives what is for the device to the far end.
 *
 * Each program is loaded once for each device that it runs at, and `self` says which entry of the maps is that
 * device's: an ifindex means something in one network namespace alone. The programs of the NIC and of the node's
 * software pipeline come before these (BPF_F_BEFORE), as TC comes before VLAN devices in the kernel.
 */
#include "programs.h"

/* The far end of a device that sends nowhere. */
SEC("tc")
int discard(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

#include "vlan.h"
#include "bond.h"
#include "macvlan.h"
#include "vrf.h"

char _license[] SEC("license") = "Dual BSD/GPL";
