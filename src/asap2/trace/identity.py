# SPDX-License-Identifier: Apache-2.0
"""What makes a packet the same packet at two places: its octets, but for checksums that devices complete later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from asap2.nic.ethertypes import ETH_P_IP, ETH_P_IPV6
from asap2.nic.silicon import packet

_CHECKSUMS: Final = {6: 16, 17: 6, 1: 2, 58: 2}
"""Where TCP, UDP, ICMP and ICMPv6 have theirs."""
_COMPARED: Final = 160
"""Octets of a packet that are compared."""


def transport_at(frame: bytes, fields: Mapping[str, int]) -> int | None:
    """Where the header behind IP's begins in *frame*, which has *fields*; None: there is no IP header."""
    at = packet.HEADER + 4 * (("vlan_tci" in fields) + ("cvlan_tci" in fields))
    if fields["eth_type"] == ETH_P_IP and len(frame) > at:
        return at + (frame[at] & 15) * 4
    return at + 40 if fields["eth_type"] == ETH_P_IPV6 else None


def identity(frame: bytes) -> bytes:
    """The part of *frame* that does not change between a sender and the next receiver."""
    start = frame[:_COMPARED]
    if len(start) < packet.HEADER:
        return start
    fields = packet.parse(start)
    at, where = transport_at(start, fields), _CHECKSUMS.get(fields.get("ip_proto", 0))
    if at is None or where is None or len(start) < at + where + 2:
        return start
    return start[: at + where] + b"\0\0" + start[at + where + 2 :]


def holds(outer: bytes, inner: bytes) -> bool:
    """Whether *outer* has *inner* within, in a tunnel: the beginning of it, without the checksum."""
    part = inner[: packet.HEADER + 20]
    return len(part) > packet.HEADER and outer.find(part) > 0
