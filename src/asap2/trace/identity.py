# SPDX-License-Identifier: Apache-2.0
"""What makes a packet the same packet at two places: its octets, but for checksums that devices complete later."""

from __future__ import annotations

from typing import Final

from asap2.nic.silicon import packet

_CHECKSUMS: Final = {6: 16, 17: 6, 1: 2, 58: 2}
"""Where TCP, UDP, ICMP and ICMPv6 have theirs."""
_COMPARED: Final = 160
"""Octets of a packet that are compared."""


def identity(frame: bytes) -> bytes:
    """The part of *frame* that does not change between a sender and the next receiver."""
    start = frame[:_COMPARED]
    if len(start) < packet.HEADER:
        return start
    fields = packet.parse(start)
    at = packet.HEADER + 4 * (("vlan_tci" in fields) + ("cvlan_tci" in fields))
    if fields["eth_type"] == 0x0800 and len(start) > at:
        at += (start[at] & 15) * 4
    elif fields["eth_type"] == 0x86DD:
        at += 40
    else:
        return start
    where = _CHECKSUMS.get(fields.get("ip_proto", 0))
    if where is None or len(start) < at + where + 2:
        return start
    return start[: at + where] + b"\0\0" + start[at + where + 2 :]


def holds(outer: bytes, inner: bytes) -> bool:
    """Whether *outer* has *inner* within, in a tunnel: the beginning of it, without the checksum."""
    part = inner[: packet.HEADER + 20]
    return len(part) > packet.HEADER and outer.find(part) > 0
