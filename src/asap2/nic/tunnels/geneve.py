# SPDX-License-Identifier: Apache-2.0
"""Geneve (RFC 8926), with an Ethernet frame inside."""

from __future__ import annotations

import struct
from typing import Final

from asap2.nic.ethertypes import ETH_P_TEB
from asap2.nic.tunnels.protocol import Header, LinkKind, Options, TunnelId, TunnelProtocol, Udp

PORT: Final = 6081
"""The UDP port that IANA gave to Geneve."""
HEADER_LENGTH: Final = 8
"""Octets in front of the options."""
ID_AT: Final = 4
"""Octet of the header at which the network identifier begins."""
OPTIONS_MAX: Final = 0x3F * 4
"""Octets of options at most."""
OAM: Final = 0x80
"""The flag O, in the header's second octet: a control packet."""
OPTION_HEADER: Final = struct.Struct("!HBB")
"""An option's header: class, type, and length of its data in words of 32 bits (five bits)."""
_VERSION, _LENGTH = 0xC0, 0x3F
_ID_BITS: Final = 24
_IFLA_GENEVE_PORT: Final = 5
_OVS_VPORT_TYPE_GENEVE: Final = 5
_OFFLOADED_OPTIONS: Final = 8
_HEADER: Final = struct.Struct("!BBHI")
"""Version and length of the options in words, flags, ethertype, and the network identifier with a reserved octet."""


def _build(header: Header) -> bytes:
    start = _HEADER.pack(len(header.options) // 4, 0, ETH_P_TEB, (header.tun_id or 0) << 32 - _ID_BITS)
    return start + header.options


def _parse(data: bytes) -> tuple[Header, int] | None:
    if len(data) < HEADER_LENGTH:
        return None
    first, flags, ethertype, word = _HEADER.unpack_from(data)
    length = HEADER_LENGTH + 4 * (first & _LENGTH)
    if first & _VERSION or flags & OAM or ethertype != ETH_P_TEB or len(data) < length:
        return None
    return Header(word >> 32 - _ID_BITS, data[HEADER_LENGTH:length]), length


GENEVE: Final = TunnelProtocol(
    name="geneve",
    number=1,
    over=Udp(port=PORT),
    links=(LinkKind("geneve", lower=None, port=_IFLA_GENEVE_PORT),),
    id=TunnelId("Geneve network identifier", _ID_BITS),
    build=_build,
    parse=_parse,
    vport_type=_OVS_VPORT_TYPE_GENEVE,
    options=Options(tc="geneve", ovs="geneve_opts", octets=_OFFLOADED_OPTIONS),
)
