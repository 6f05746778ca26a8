# SPDX-License-Identifier: Apache-2.0
"""GRE (RFC 2784, 2890) with an Ethernet frame inside, as gretap's."""

from __future__ import annotations

import struct
from typing import Final

from asap2.nic.ethertypes import ETH_P_TEB
from asap2.nic.tunnels.protocol import Header, Ip, LinkKind, TunnelId, TunnelProtocol

IPPROTO_GRE: Final = 47
CHECKSUM, KEY, SEQUENCE = 0x8000, 0x2000, 0x1000
"""Flags in the first two octets: each says that 32 bits follow (GRE_CSUM, GRE_KEY, GRE_SEQ)."""
HEADER_LENGTH: Final = 4
"""Octets of a header without any of them."""
_OTHERS: Final = ~(CHECKSUM | KEY | SEQUENCE) & 0xFFFF
"""Version, routing, recursion: 0 in all that is looked into."""
_ID_BITS: Final = 32
_IFLA_GRE_LINK: Final = 1
_OVS_VPORT_TYPE_GRE: Final = 3
_HEADER: Final = struct.Struct("!HH")


def _build(header: Header) -> bytes:
    if header.tun_id is None:
        return _HEADER.pack(0, ETH_P_TEB)
    return _HEADER.pack(KEY, ETH_P_TEB) + header.tun_id.to_bytes(_ID_BITS // 8, "big")


def _parse(data: bytes) -> tuple[Header, int] | None:
    if len(data) < HEADER_LENGTH:
        return None
    flags, ethertype = _HEADER.unpack_from(data)
    length = HEADER_LENGTH + sum(4 for flag in (CHECKSUM, KEY, SEQUENCE) if flags & flag)
    if flags & _OTHERS or ethertype != ETH_P_TEB or len(data) < length:
        return None
    at = HEADER_LENGTH + (4 if flags & CHECKSUM else 0)
    return Header(int.from_bytes(data[at : at + 4], "big") if flags & KEY else None), length


GRE: Final = TunnelProtocol(
    name="gre",
    number=2,
    over=Ip(IPPROTO_GRE),
    links=(
        LinkKind("gretap", lower=_IFLA_GRE_LINK, port=None),
        LinkKind("ip6gretap", lower=_IFLA_GRE_LINK, port=None),
    ),
    id=TunnelId("GRE key", _ID_BITS, optional=True),
    build=_build,
    parse=_parse,
    vport_type=_OVS_VPORT_TYPE_GRE,
)
