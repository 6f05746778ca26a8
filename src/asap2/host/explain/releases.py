# SPDX-License-Identifier: Apache-2.0
"""What the TC layers of Open vSwitch's releases differ in, as far as it decides whether a flow is offloaded.

Read from lib/netdev-offload-tc.c (since 3.7 lib/dpif-offload-tc-netdev.c) and lib/tc.c of each release from 2.15 to
4.0. A change that was also made to older branches has a release for each.
"""

from __future__ import annotations

from asap2.host.versions import numbers

Release = tuple[int, ...]

METERS: tuple[Release, ...] = ((3, 0),)
"""Meters and check_pkt_len become police actions."""
VXLAN_GBP: tuple[Release, ...] = ((3, 2),)
"""The group-based policy of VXLAN is matched and set, if the kernel has it."""
NO_TUNNEL_SOURCE: tuple[Release, ...] = ((2, 17, 9), (3, 0, 6), (3, 1, 4), (3, 2, 2), (3, 3))
"""A tunnel whose UDP source port is set is refused; before, the port was left out."""
OTHER_PROTOCOLS: tuple[Release, ...] = ((3, 3),)
"""IP headers of IGMP, SCTP, IP in IP, GRE and UDP-Lite are rewritten, too."""
CAREFUL_FRAGMENTS: tuple[Release, ...] = ((3, 3, 4), (3, 4, 2), (3, 5))
"""Of fragments nothing is rewritten that a checksum of layer 4 covers; an IP flow that does not match on fragments, and
one that does not match on the whole Ethernet type, are refused."""
ENCAP_FLAGS: tuple[Release, ...] = ((3, 5),)
"""The flags of tunnels (OAM, don't fragment, checksum) are matched, if the kernel has it."""
CHAINS_IN_USE: tuple[Release, ...] = ((3, 6),)
"""A flow behind a recirculation is refused while no flow in TC leads to it."""
CHAINS_BOUNDED: tuple[Release, ...] = ((3, 3, 8), (3, 4, 5), (3, 5, 3), (3, 6, 2), (3, 7))
"""A recirculation id that is no number of a TC chain is refused."""


def has(version: str, change: tuple[Release, ...]) -> bool:
    """Whether Open vSwitch *version* has a *change*: it is of a branch that got it, not before, or of a newer one."""
    have = numbers(version)
    return have[:2] > change[-1][:2] or any(have[:2] == one[:2] and have >= one for one in change)
