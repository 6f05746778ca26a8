# SPDX-License-Identifier: Apache-2.0
"""VXLAN (RFC 7348)."""

from __future__ import annotations

import struct
from typing import Final

from asap2.nic.tunnels.protocol import Header, LinkKind, TunnelId, TunnelProtocol, Udp

PORT: Final = 4789
"""The UDP port that IANA gave to VXLAN."""
HEADER_LENGTH: Final = 8
ID_VALID: Final = 0x08
"""The flag I, in the header's first octet: there is a network identifier."""
ID_AT: Final = 4
"""Octet of the header at which the network identifier begins."""
_ID_BITS: Final = 24
_IFLA_VXLAN_LINK, _IFLA_VXLAN_PORT = 3, 15
_OVS_VPORT_TYPE_VXLAN: Final = 4
_ETHTOOL_UDP_TUNNEL_TYPE_VXLAN: Final = 0
_HEADER: Final = struct.Struct("!B3xI")
"""Flags, and the network identifier with a reserved octet behind it."""


def _build(header: Header) -> bytes:
    return _HEADER.pack(ID_VALID, (header.tun_id or 0) << 32 - _ID_BITS)


def _parse(data: bytes) -> tuple[Header, int] | None:
    if len(data) < HEADER_LENGTH or not data[0] & ID_VALID:
        return None
    _, word = _HEADER.unpack_from(data)
    return Header(word >> 32 - _ID_BITS), HEADER_LENGTH


VXLAN: Final = TunnelProtocol(
    name="vxlan",
    number=0,
    over=Udp(
        port=PORT,
        unknown_port="vxlan udp dport was not registered with the HW",
        ethtool_type=_ETHTOOL_UDP_TUNNEL_TYPE_VXLAN,
    ),
    links=(LinkKind("vxlan", lower=_IFLA_VXLAN_LINK, port=_IFLA_VXLAN_PORT),),
    id=TunnelId("VXLAN network identifier", _ID_BITS),
    build=_build,
    parse=_parse,
    vport_type=_OVS_VPORT_TYPE_VXLAN,
)
