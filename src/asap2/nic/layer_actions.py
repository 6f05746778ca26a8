# SPDX-License-Identifier: Apache-2.0
"""The actions that put layers around a packet, and take them away: MPLS, NSH and Ethernet headers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PushMpls:
    """Put the label stack entry *lse* behind the Ethernet header, whose type becomes *ethertype*; or, *outside*, in
    front of the Ethernet header. A packet with a tag is dropped, here and in the following actions."""

    lse: int
    ethertype: int
    outside: bool = False


@dataclass(frozen=True, slots=True)
class PopMpls:
    """Take the outer label stack entry away; *ethertype* is what follows. Nothing when the packet has none."""

    ethertype: int


@dataclass(frozen=True, slots=True)
class PushNsh:
    """Put a network service header (RFC 8300) in front of the packet, which then has no Ethernet header."""

    header: bytes


@dataclass(frozen=True, slots=True)
class PopNsh:
    """Take the network service header away from a packet that begins with it."""


@dataclass(frozen=True, slots=True)
class PushEthernet:
    """Give a packet that has none an Ethernet header."""

    dst: bytes
    src: bytes


@dataclass(frozen=True, slots=True)
class PopEthernet:
    """Take the Ethernet header away: such a packet can go to user space, or be looked up (:data:`BARE`)."""


LayerChange = PushMpls | PopMpls | PushNsh | PopNsh | PushEthernet | PopEthernet
"""Actions that put headers in front of a packet, or take them away."""
