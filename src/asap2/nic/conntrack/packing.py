# SPDX-License-Identifier: Apache-2.0
"""Tuples as the maps have them (``struct tuple`` in silicon/connection_records.h)."""

from __future__ import annotations

import socket
import struct
from typing import Final

from asap2.nic.conntrack.tuples import IPV4, IPV6
from asap2.nic.conntrack.tuples import Tuple as Datagram
from asap2.nic.conntrack.view import Tuple

FAMILIES: Final = {IPV4: socket.AF_INET, IPV6: socket.AF_INET6}
"""The address family of each IP version."""
_VERSIONS: Final = {family: version for version, family in FAMILIES.items()}
SIZES: Final = {IPV4: 4, IPV6: 16}
"""The octets of an address of each IP version; it is at the end of 16."""
_TUPLE = struct.Struct(">16s16sHH")
_TUPLE_END = struct.Struct("=HBB")


def packed(zone: int, tuple: Tuple) -> bytes:
    """``struct tuple``."""
    addresses = (address.rjust(16, b"\0") for address in (tuple.src, tuple.dst))
    version = _VERSIONS.get(socket.AddressFamily(tuple.family), 0)
    ports = _TUPLE.pack(*addresses, tuple.src_port, tuple.dst_port)
    return ports + _TUPLE_END.pack(zone, tuple.protocol, version)


def unpacked(raw: bytes) -> tuple[int, Tuple]:
    """The zone and the tuple in ``struct tuple``."""
    src, dst, src_port, dst_port = _TUPLE.unpack_from(raw)
    zone, protocol, version = _TUPLE_END.unpack_from(raw, _TUPLE.size)
    first = 16 - SIZES.get(version, 16)
    family = FAMILIES.get(version, socket.AF_INET6)
    return zone, Tuple(family, protocol, src[first:], dst[first:], src_port, dst_port)


def inverse(tuple: Tuple) -> Tuple | None:
    """The tuple of the other direction without NAT; None for an ICMP type without a reply."""
    family, protocol, src, dst, src_port, dst_port = tuple
    found = Datagram(IPV4, protocol, src, dst, src_port, dst_port).inverse()  # the same for both families
    return None if found is None else Tuple(family, protocol, found.src, found.dst, found.sport, found.dport)
