# SPDX-License-Identifier: Apache-2.0
"""Headers that come and go in front of one frame: MPLS labels (RFC 3032) and network service headers (RFC 8300).

The specification of layers.h. A packet without an Ethernet header keeps one as room, with the right type: so every
packet here is a frame, and the caller knows which begin with their network header. None of this works behind a tag,
as in Linux's Open vSwitch datapath, whose checks leave no other use.
"""

from __future__ import annotations

import struct

from asap2.nic.rules import Masked, SetField
from asap2.nic.silicon import packet
from asap2.nic.silicon.rewrite import rewrite

ETHERNET = 0x6558
"""The ethertype that says that an Ethernet header follows."""
_HEADER = packet.HEADER
_MPLS = (0x8847, 0x8848)
_NSH = 0x894F
_NEXT = {1: 0x0800, 2: 0x86DD, 3: ETHERNET, 4: _NSH, 5: 0x8847}
"""Ethertype of each next protocol of RFC 8300."""


class LayerError(ValueError):
    """The packet is not one that this can be done to."""


def push_mpls(frame: bytes, entry: int, ethertype: int) -> bytes:
    """*frame* with the label stack *entry* behind its Ethernet header."""
    _type(frame)
    return frame[:12] + struct.pack("!HI", ethertype, entry) + frame[14:]


def push_mpls_outside(frame: bytes, entry: int, ethertype: int) -> bytes:
    """*frame* behind the label stack *entry*, without an Ethernet header before that."""
    _type(frame)
    return frame[:12] + struct.pack("!HI", ethertype, entry) + frame


def pop_mpls(frame: bytes, ethertype: int) -> bytes:
    """*frame* without its outer label, as it is when it has none; *ethertype* is what follows."""
    if _type(frame) not in _MPLS:
        return frame
    if len(frame) < _HEADER + 4:
        raise LayerError
    made = frame[:12] + ethertype.to_bytes(2, "big") + frame[_HEADER + 4 :]
    if packet.tagged(made) and len(made) < _HEADER + 4:
        raise LayerError
    return made


def push_nsh(frame: bytes, header: bytes, *, ethernet: bool) -> bytes:
    """*frame* behind a network service *header*, whose next protocol becomes what *frame* begins with: its *ethernet*
    header, or without one what its type says."""
    kind = _type(frame)
    following = 3 if ethernet else next((number for number, value in _NEXT.items() if value == kind), 0)
    if not following:
        raise LayerError
    room = bytes(12) + _NSH.to_bytes(2, "big")
    return room + header[:3] + bytes((following,)) + header[4:] + (frame if ethernet else frame[_HEADER:])


def pop_nsh(frame: bytes) -> tuple[bytes, bool]:
    """What is in the network service header of *frame*, and whether it has an Ethernet header."""
    if _type(frame) != _NSH or len(frame) < _HEADER + 8:
        raise LayerError
    length, following = (frame[_HEADER + 1] & 0x3F) * 4, frame[_HEADER + 3]
    if length < 8 or len(frame) < _HEADER + length or following not in _NEXT:
        raise LayerError
    inside = frame[_HEADER + length :]
    if _NEXT[following] == ETHERNET:
        return without_room(bytes(_HEADER) + inside), True
    return frame[:12] + _NEXT[following].to_bytes(2, "big") + inside, False


def without_room(frame: bytes) -> bytes:
    """The Ethernet frame behind the room in front."""
    if len(frame) < 2 * _HEADER:
        raise LayerError
    return frame[_HEADER:]


def pop_ethernet(frame: bytes) -> bytes:
    """*frame*, whose Ethernet header is room from now on."""
    _type(frame)
    return frame


def push_ethernet(frame: bytes, dst: bytes, src: bytes) -> bytes:
    """*frame*, whose room is an Ethernet header from now on."""
    return dst + src + frame[12:]


def swap_ethernet(frame: bytes) -> bytes:
    """*frame* with source and destination exchanged."""
    return frame[6:12] + frame[:6] + frame[12:]


def set_ethertype(frame: bytes, ethertype: int) -> bytes:
    """*frame* with this type behind its outer tag."""
    at = 16 if packet.tagged(frame) and len(frame) >= _HEADER + 4 else 12
    return frame[:at] + ethertype.to_bytes(2, "big") + frame[at + 2 :]


def congest(frame: bytes) -> bytes:
    """*frame*, marked as having met congestion if it is of IP and its transport can do with that."""
    fields = packet.parse(frame)
    least = {0x0800: 20, 0x86DD: 40}.get(fields["eth_type"])
    if least is None or "cvlan_tci" in fields:
        return frame
    l3 = _HEADER + (4 if "vlan_tci" in fields else 0)
    if len(frame) < l3 + least:
        raise LayerError
    tos = frame[l3 + 1] if least == 20 else frame[l3 + 1] >> 4
    return rewrite(frame, SetField("ip_tos", Masked(3, 3))) if tos & 3 in (1, 2) else frame


def _type(frame: bytes) -> int:
    if packet.tagged(frame):
        raise LayerError
    return int.from_bytes(frame[12:14], "big")
