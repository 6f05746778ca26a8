// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Tunnel devices that the kernel lacks: Geneve, GRE and ERSPAN with a frame inside, and IP in IP without one.
 *
 * A device is one end of a veth pair. What is sent on it is put into its tunnel at its egress, and goes on to where the
 * routes lead; the veth itself sees only a copy, for taps and counters. Packets in tunnels are taken out at the ingress
 * of the devices that they come in by, and come in by the tunnel's device. What the kernel keeps beside a packet of its
 * tunnel (the metadata) it forgets on that way, so that it waits in `arrivals` until the packet is there.
 */
#include "tunnel_in.h"
#include "tunnel_out.h"

char _license[] SEC("license") = "Dual BSD/GPL";
