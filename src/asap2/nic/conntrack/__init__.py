# SPDX-License-Identifier: Apache-2.0
"""Connection tracking and NAT: the specification, in plain Python.

It says what Linux 6.12 does (net/netfilter/nf_conntrack_*.c, nf_nat_*.c), used as Open vSwitch's datapath
(net/openvswitch/conntrack.c) and TC's act_ct (net/sched/act_ct.c) use it; each rule names the function that it is from.
The eBPF program has a tracker of its own in maps, and the reference eSwitch this one: tests compare them.

A packet is here a *datagram*: its octets from the IP header on. What is left out or simpler than in the kernel:

* What a packet carries from one action to the next is a :class:`.tracker.Seen`, as the kernel's ``skb->_nfct``; an
  upcall loses it, and then its ``ct_`` fields say where it has been.
* Checksums are not verified (nf_conntrack_checksum is 0): hardware has done that. What NAT changes it accounts for.
* DCCP has no states and no ports, as since Linux 6.16. PPTP is not followed. Redirects of ICMPv6 are invalid.
* NAT does not look how other connections of the same source are translated.
* A full table refuses new connections; it does not push others out, nor does NAT those in TIME_WAIT for their port.
* Fragments are put together before they come here; helpers (FTP, TFTP) are elsewhere.
"""
