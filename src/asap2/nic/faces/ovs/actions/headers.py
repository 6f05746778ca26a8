# SPDX-License-Identifier: Apache-2.0
"""Actions that push and pop headers: what packets need for them, and what packets then are."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from asap2.nic.ethertypes import ARP_TYPES, ETH_P_IP, ETH_P_IPV6, ETH_P_MPLS, ETH_P_NSH, ETH_P_TEB, VLAN_TYPES
from asap2.nic.faces.ovs.actions.numbers import (
    ADD_MPLS,
    POP_ETH,
    POP_MPLS,
    POP_NSH,
    POP_VLAN,
    PUSH_ETH,
    PUSH_MPLS,
    PUSH_NSH,
    PUSH_VLAN,
)
from asap2.nic.faces.ovs.actions.steps import Step
from asap2.nic.faces.ovs.key import Fields, invalid, walk
from asap2.nic.faces.ovs.key.numbers import NSH, NSH_BASE, NSH_MD1, NSH_MD2
from asap2.nic.layer_actions import PopEthernet, PopMpls, PopNsh, PushEthernet, PushMpls, PushNsh
from asap2.nic.rules import VLAN_PRESENT, PopVlan, PushVlan

_MPLS_L3: Final = 1
"""OVS_MPLS_L3_TUNNEL_FLAG_MASK: the label goes behind the Ethernet header."""
_MPLS_PUSHABLE: Final = (ETH_P_IP, ETH_P_IPV6, *ARP_TYPES, *ETH_P_MPLS)
_NSH_NEXT: Final = {1: ETH_P_IP, 2: ETH_P_IPV6, 3: ETH_P_TEB, 4: ETH_P_NSH, 5: ETH_P_MPLS[0]}
_NSH_LONGEST: Final = 248
"""Bytes of metadata in a network service header at most (NSH_CTX_HDRS_MAX_LEN)."""


@dataclass(slots=True)
class Packets:
    """What is known of the packets of a flow before an action: the masked *key* that they came with, and what the
    actions up to there have made of them."""

    key: Fields
    eth_type: int
    vlan_tci: int
    labels: int
    ethernet: bool


def _push_vlan(value: bytes, packets: Packets) -> Step:
    tpid, tci = struct.unpack("!HH", value)
    if not packets.ethernet or tpid not in VLAN_TYPES or not tci & VLAN_PRESENT:
        raise invalid()
    packets.vlan_tci = tci
    return PushVlan(tci & 0xFFF, tci >> 13, tpid)


def _pop_vlan(_value: bytes, packets: Packets) -> Step:
    if not packets.ethernet:
        raise invalid()
    packets.vlan_tci = 0
    return PopVlan()


def _push_mpls(value: bytes, packets: Packets) -> Step:
    entry, ethertype = struct.unpack_from("!IH", value)
    if ethertype not in ETH_P_MPLS or packets.vlan_tci & VLAN_PRESENT or packets.eth_type not in _MPLS_PUSHABLE:
        raise invalid()
    packets.eth_type, packets.labels = ethertype, packets.labels + 1
    return PushMpls(entry, ethertype)


def _add_mpls(value: bytes, packets: Packets) -> Step:
    entry, ethertype = struct.unpack_from("!IH", value)
    if int.from_bytes(value[6:8], sys.byteorder) & _MPLS_L3:
        return _push_mpls(value, packets)
    if ethertype not in ETH_P_MPLS:
        raise invalid()
    step = PushMpls(entry, ethertype, outside=packets.ethernet)
    packets.eth_type, packets.labels = ethertype, 1 if packets.ethernet else packets.labels + 1
    packets.ethernet = False
    return step


def _pop_mpls(value: bytes, packets: Packets) -> Step:
    ethertype = int.from_bytes(value, "big")
    inside = ethertype == ETH_P_TEB and packets.ethernet
    if packets.vlan_tci & VLAN_PRESENT or packets.eth_type not in ETH_P_MPLS or inside:
        raise invalid()
    packets.labels -= 1
    packets.eth_type = ethertype if ethertype in ETH_P_MPLS and packets.labels else 0
    return PopMpls(ethertype)


def _push_eth(value: bytes, packets: Packets) -> Step:
    if packets.ethernet:
        raise invalid()
    packets.ethernet = True
    return PushEthernet(value[6:], value[:6])


def _pop_eth(_value: bytes, packets: Packets) -> Step:
    if not packets.ethernet or packets.vlan_tci & VLAN_PRESENT:
        raise invalid()
    packets.ethernet = False
    return PopEthernet()


def _push_nsh(value: bytes, packets: Packets) -> Step:
    if not packets.ethernet and packets.eth_type not in _NSH_NEXT.values():
        raise invalid()
    step = PushNsh(_service_header(value))
    packets.ethernet = False
    return step


def _pop_nsh(_value: bytes, packets: Packets) -> Step:
    following = packets.key.get("nsh_np", 0)
    if packets.eth_type != ETH_P_NSH or following not in _NSH_NEXT:
        raise invalid()
    packets.ethernet = _NSH_NEXT[following] == ETH_P_TEB
    return PopNsh()


def _service_header(value: bytes) -> bytes:
    """The header that push_nsh pushes (RFC 8300); its next protocol is the packet's."""
    found = walk(value)
    if [number for number, _ in found] != [NSH]:
        raise invalid()
    inner = dict(walk(found[0][1], padded=False))
    if len(inner) != 2 or NSH_BASE not in inner or len(inner[NSH_BASE]) != 8:
        raise invalid()
    flags, ttl, kind, following, path = struct.unpack("!BBBBI", inner[NSH_BASE])
    number = NSH_MD1 if NSH_MD1 in inner else NSH_MD2
    context = inner.get(number, b"")
    fits = len(context) == 16 if number == NSH_MD1 else 0 < len(context) <= _NSH_LONGEST
    if not fits or kind != (1 if number == NSH_MD1 else 2):
        raise invalid()
    head = (flags & 3) << 12 | (ttl & 0x3F) << 6 | (8 + len(context) >> 2) & 0x3F
    return struct.pack("!HBBI", head, kind, following, path) + context


HEADERS: Final[dict[int, Callable[[bytes, Packets], Step]]] = {
    PUSH_VLAN: _push_vlan,
    POP_VLAN: _pop_vlan,
    PUSH_MPLS: _push_mpls,
    ADD_MPLS: _add_mpls,
    POP_MPLS: _pop_mpls,
    PUSH_ETH: _push_eth,
    POP_ETH: _pop_eth,
    PUSH_NSH: _push_nsh,
    POP_NSH: _pop_nsh,
}
"""Each one's reader, which says also what the packets are after it. EINVAL for what they cannot have done to them."""
