# SPDX-License-Identifier: Apache-2.0
"""The tuple of a datagram, which identifies its connection (nf_ct_get_tuple(), nf_conntrack_core.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asap2.nic.conntrack.states import GRE, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE

IPV4, IPV6 = 4, 6
"""Families: the IP version."""

MAX_EXTENSIONS: Final = 8
"""IPv6 extension headers that are skipped; a datagram with more is invalid."""

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NO_NEXT, _DESTINATION = 0, 43, 44, 51, 59, 60
_EXTENSIONS = (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NO_NEXT, _DESTINATION)
_IPV4_HEADER, _IPV6_HEADER = 20, 40
_ICMP_HEADER = 8
_PPP = 0x880B

_ICMP_ANSWERS: Final = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17}
_ICMPV6_ANSWERS: Final = {128: 129, 129: 128, 139: 140, 140: 139}
"""The type of the reply to each type, and vice versa (invmap of nf_conntrack_proto_icmp{,v6}.c)."""
ICMP_REQUESTS: Final = (8, 13, 15, 17)
ICMPV6_REQUESTS: Final = (128, 139)
"""Types with which a connection may begin (valid_new)."""
ICMP_ERRORS: Final = (3, 4, 5, 11, 12)
"""icmp_is_err()."""
LAST_ICMP_TYPE: Final = 18
ICMPV6_FIRST_QUERY: Final = 128
REDIRECT: Final = 5
UNTRACKED_ICMPV6: Final = (130, 131, 132, 133, 134, 135, 136, 143, 151, 152)
"""Neighbour and multicast listener discovery, which are not tracked (noct_valid_new)."""


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a connection. *family* is the IP version (4 or 6); addresses are in network order.

    *sport* and *dport* are the ports of TCP, UDP and SCTP. For ICMP they are the identifier and ``type << 8 | code``;
    for PPTP's GRE *dport* is the call id; otherwise both are 0.
    """

    family: int
    proto: int
    src: bytes
    dst: bytes
    sport: int = 0
    dport: int = 0

    def inverse(self) -> Tuple | None:
        """The tuple of the other direction (nf_ct_invert_tuple()); ``None`` for an ICMP type without a reply."""
        if self.proto in (ICMP, ICMPV6):
            answer = (_ICMP_ANSWERS if self.proto == ICMP else _ICMPV6_ANSWERS).get(self.dport >> 8)
            if answer is None:
                return None
            return Tuple(self.family, self.proto, self.dst, self.src, self.sport, answer << 8 | self.dport & 0xFF)
        return Tuple(self.family, self.proto, self.dst, self.src, self.dport, self.sport)


@dataclass(frozen=True, slots=True)
class Transport:
    """The header after the IP headers: its protocol and the octet at which it begins."""

    proto: int
    at: int


def word(data: bytes | bytearray, at: int) -> int:
    """The big-endian 16-bit word at this octet."""
    return int.from_bytes(data[at : at + 2], "big")


def transport(data: bytes, family: int, at: int = 0) -> Transport | None:
    """The transport header of the datagram that begins *at*; ``None``: it has none, or is a later fragment.

    ipv4_get_l4proto(), ipv6_get_l4proto(); an IPv4 header of less than 20 octets has none here.
    """
    if family == IPV4:
        if len(data) < at + _IPV4_HEADER or (data[at] & 15) * 4 < _IPV4_HEADER or word(data, at + 6) & 0x1FFF:
            return None
        behind = at + (data[at] & 15) * 4
        return Transport(data[at + 9], behind) if behind <= len(data) else None
    if len(data) < at + _IPV6_HEADER:
        return None
    proto, behind = data[at + 6], at + _IPV6_HEADER
    for _ in range(MAX_EXTENSIONS):
        if proto not in _EXTENSIONS:
            break
        if proto == _NO_NEXT or len(data) < behind + (4 if proto == _FRAGMENT else 2):
            return None
        if proto == _FRAGMENT and word(data, behind + 2) & 0xFFF8:
            return None
        proto, behind = data[behind], behind + _extension_length(proto, data[behind + 1])
    return None if proto in _EXTENSIONS else Transport(proto, behind)


def extensions_are_cut(data: bytes) -> bool:
    """Whether *data*, an IPv6 datagram and what follows it in its frame, ends within its extension headers.

    ipv6_find_hdr(), without its look at fragments.
    """
    proto, behind = data[6], _IPV6_HEADER
    for _ in range(MAX_EXTENSIONS):
        if proto not in _EXTENSIONS or proto == _NO_NEXT:
            return False
        if len(data) < behind + (4 if proto in (_FRAGMENT, _ROUTING) else 2):
            return True
        if proto == _FRAGMENT and word(data, behind + 2) & 0xFFF8:
            return False
        proto, behind = data[behind], behind + _extension_length(proto, data[behind + 1])
    return False


def _extension_length(proto: int, length: int) -> int:
    """Octets of an IPv6 extension header with this *length* field."""
    return {_FRAGMENT: 8, _AUTHENTICATION: (length + 2) * 4}.get(proto, (length + 1) * 8)


def tuple_of(data: bytes, family: int, at: int = 0) -> Tuple | None:
    """The tuple of the datagram that begins *at*; ``None`` where it is cut short (nf_ct_get_tuplepr())."""
    found = transport(data, family, at)
    if found is None:
        return None
    start, size = (12, 4) if family == IPV4 else (8, 16)
    src, dst = data[at + start : at + start + size], data[at + start + size : at + start + 2 * size]
    header = data[found.at : found.at + _ICMP_HEADER]
    match found.proto:
        case 1 | 58:
            if len(header) < _ICMP_HEADER:
                return None
            return Tuple(family, found.proto, src, dst, word(header, 4), word(header, 0))
        case 6 | 17 | 132 | 136:
            if len(header) < 4:
                return None
            return Tuple(family, found.proto, src, dst, word(header, 0), word(header, 2))
        case 47 if len(header) == _ICMP_HEADER and word(header, 0) & 7 == 1:  # PPTP's
            return Tuple(family, GRE, src, dst, 0, word(header, 6)) if word(header, 2) == _PPP else None
    return Tuple(family, found.proto, src, dst)


WITH_PORTS: Final = (TCP, UDP, UDPLITE, SCTP)
"""Protocols whose tuples have ports."""


def length_of(data: bytes, family: int, at: int = 0) -> int:
    """The length that the header of the datagram that begins *at* gives it, in octets."""
    return word(data, at + 2) if family == IPV4 else _IPV6_HEADER + word(data, at + 4)


def trimmed(data: bytes, family: int) -> bytes:
    """A datagram without what follows it in its frame (nf_ct_skb_network_trim())."""
    header = _IPV4_HEADER if family == IPV4 else _IPV6_HEADER
    return data[: length_of(data, family)] if len(data) >= header else data
