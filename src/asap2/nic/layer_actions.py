# SPDX-License-Identifier: Apache-2.0
"""The actions on the outer headers of a packet: they put MPLS, NSH and Ethernet headers around a packet, take them
away, or change them."""

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


@dataclass(frozen=True, slots=True)
class SwapEthernet:
    """Exchange the two addresses of the Ethernet header (TC ``skbmod swap mac``)."""


@dataclass(frozen=True, slots=True)
class SetEthertype:
    """Rewrite the type of the Ethernet header, behind the outer tag, whatever follows it (TC ``skbmod set etype``)."""

    ethertype: int


@dataclass(frozen=True, slots=True)
class Congest:
    """Mark an IPv4 or IPv6 packet whose transport can do with it as having met congestion (TC ``skbmod ecn``,
    INET_ECN_set_ce()): ECT(0) and ECT(1) become CE. Nothing behind a second tag."""


LayerChange = PushMpls | PopMpls | PushNsh | PopNsh | PushEthernet | PopEthernet | SwapEthernet | SetEthertype | Congest
"""Actions on the outer headers of a packet as a whole: they are put in front, taken away, or changed."""
