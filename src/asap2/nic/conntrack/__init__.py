# SPDX-License-Identifier: Apache-2.0
"""Connection tracking and NAT: the specification, in plain Python.

It says what Linux 6.12 does (net/netfilter/nf_conntrack_*.c, nf_nat_*.c), used as Open vSwitch's datapath
(net/openvswitch/conntrack.c) and TC's act_ct (net/sched/act_ct.c) use it; each rule names the function that it is from.
The eBPF program has a tracker of its own in maps, and the reference eSwitch this one: tests compare them.

A packet is here a *datagram*: its octets from the IP header on. What is left out or simpler than in the kernel:

* A packet carries its ``ct_`` fields and no pointer to its connection. So a second ``Ct`` in the zone of the first
  finds the connection again, and one of a connection that was not committed starts anew, as in the kernel after an
  upcall.
* Checksums are not verified (nf_conntrack_checksum is 0): hardware has done that. What NAT changes it accounts for.
* UDP-Lite is a protocol like any other, without ports. PPTP is not followed.
* A full table refuses new connections; it does not push others out, nor does NAT those in TIME_WAIT for their port.
* Fragments are put together before they come here; helpers (FTP, TFTP) are elsewhere.
"""
