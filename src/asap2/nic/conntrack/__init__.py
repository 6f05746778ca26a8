# SPDX-License-Identifier: Apache-2.0
"""Connection tracking and NAT: the specification, in plain Python.

It describes what Linux 6.12 does (net/netfilter/nf_conntrack_*.c, nf_nat_*.c) as Open vSwitch's datapath
(net/openvswitch/conntrack.c) and TC's act_ct (net/sched/act_ct.c) use it; each rule names the function that it comes
from. The eBPF program has its own tracker in maps, and the reference eSwitch uses this one; tests compare the two.

Here a packet is a *datagram*: its octets from the IP header on. What is left out or simpler than in the kernel:

* From one action to the next, a packet carries a :class:`.seen.Seen`, the kernel's ``skb->_nfct``. An upcall loses it;
  the packet's ``ct_`` fields then say what has been done.
* Checksums are not verified (nf_conntrack_checksum is 0): hardware has done that. NAT updates them for its changes.
* DCCP has neither states nor ports, as in Linux 6.16 and newer. PPTP is not followed. ICMPv6 redirects are invalid.
* SCTP packets with more than 16 chunks are invalid.
* NAT does not consider how other connections of the same source are translated.
* A full table refuses new connections. (The eBPF program evicts one, as Linux does, except while it is compared.) NAT
  does not evict connections in TIME_WAIT for their port.
* If two UDP packets race to create one connection and NAT translates them differently, the second is dropped.
* Fragments are reassembled before they come here. Helpers are in :mod:`.helpers`, which the daemon calls.
"""
