# SPDX-License-Identifier: Apache-2.0
"""How NAT changes a datagram (nf_nat_proto.c): addresses, ports and identifiers. A valid checksum stays valid.

The address and port of one end, source or destination, are replaced with those of a tuple.
"""

from __future__ import annotations

from asap2.nic.checksums import sum_of, updated, updated_sctp
from asap2.nic.conntrack.states import ICMP, ICMPV6, UDPLITE
from asap2.nic.conntrack.tuples import IPV4, Tuple, transport, word
from asap2.nic.nat import NatKind

_GRE_HEADER = 8
"""Octets that must be present, although a header without a key has only 4 (gre_manip_pkt())."""
_TCP_HEADER, _SCTP_HEADER, _ICMP_HEADER = 20, 12, 8
_PORTS = 8
"""Octets of a transport header that must be present."""
_TCP_CHECK, _UDP_CHECK, _ICMP_CHECK = 16, 6, 2
_QUERIES = (0, 8, 13, 14, 15, 16, 17, 18)
"""ICMP types that have an identifier."""
_ECHO = (128, 129)


class UntranslatableError(ValueError):
    """Raised for a datagram that is too short or of a kind that cannot be translated."""


def adjust(data: bytearray, check: int, old: int, new: int) -> None:
    """Update the checksum at *check* after words with the sum *old* became words with the sum *new*."""
    data[check : check + 2] = updated(word(data, check), old, new).to_bytes(2, "big")


def translate(data: bytearray, kind: NatKind, to: Tuple, at: int = 0) -> None:
    """Replace the source or destination of the datagram that begins *at* this octet with that of *to*
    (nf_nat_ipv4_manip_pkt(), nf_nat_ipv6_manip_pkt()). *to* also gives the transport protocol.

    Raises:
        UntranslatableError: it cannot be translated; *data* may be changed in part.
    """
    start, size = (12, 4) if to.family == IPV4 else (8, 16)
    place = at + start + (size if kind is NatKind.DST else 0)
    old, new = bytes(data[place : place + size]), to.src if kind is NatKind.SRC else to.dst
    found = transport(bytes(data), to.family, at)
    if found is not None:
        _transport(data, found.at, kind, to, sum_of(old), sum_of(new))
    if to.family == IPV4:
        adjust(data, at + 10, sum_of(old), sum_of(new))
    data[place : place + size] = new


def _transport(data: bytearray, at: int, kind: NatKind, to: Tuple, old: int, new: int) -> None:
    """Translate the transport header and update its checksum, which covers the address (l4proto_manip_pkt()).

    *old* and *new* are the sums of the address before and after.
    """
    whole = len(data) - at
    port = to.sport if kind is NatKind.SRC else to.dport
    place = at if kind is NatKind.SRC else at + 2
    match to.proto:
        case 6:
            _need(whole >= _PORTS)
            before = word(data, place)
            data[place : place + 2] = port.to_bytes(2, "big")
            if whole >= _TCP_HEADER:
                adjust(data, at + _TCP_CHECK, old + before, new + port)
        case 17 | 136:
            _need(whole >= _PORTS)
            before = word(data, place)
            data[place : place + 2] = port.to_bytes(2, "big")
            if word(data, at + _UDP_CHECK) or to.proto == UDPLITE:
                adjust(data, at + _UDP_CHECK, old + before, new + port)
                if not word(data, at + _UDP_CHECK):
                    data[at + _UDP_CHECK : at + _UDP_CHECK + 2] = b"\xff\xff"
        case 132:
            _need(whole >= _PORTS)
            was = bytes(data[at:])
            data[place : place + 2] = port.to_bytes(2, "big")
            if whole >= _SCTP_HEADER:
                data[at + 8 : at + 12] = updated_sctp(was, bytes(data[at:]))
        case 1:
            _need(whole >= _ICMP_HEADER)
            if data[at] in _QUERIES and word(data, at + 4) != to.sport:
                adjust(data, at + _ICMP_CHECK, word(data, at + 4), to.sport)
                data[at + 4 : at + 6] = to.sport.to_bytes(2, "big")
        case 58:
            _need(whole >= _ICMP_HEADER)
            if data[at] in _ECHO:
                old, new = old + word(data, at + 4), new + to.sport
                data[at + 4 : at + 6] = to.sport.to_bytes(2, "big")
            adjust(data, at + _ICMP_CHECK, old, new)
        case 47:
            _need(whole >= _GRE_HEADER)


def _need(condition: bool) -> None:
    if not condition:
        raise UntranslatableError


def translate_error(data: bytearray, at: int, kind: NatKind, inner: Tuple, outer: Tuple) -> None:
    """Translate an ICMP error whose ICMP header is *at* this octet (nf_nat_icmp_reply_translation(),
    nf_nat_icmpv6_reply_translation()).

    The quoted datagram is translated at its other end with *inner*, a tuple in that datagram's direction, the error's
    own address with *outer*.

    Raises:
        UntranslatableError: it cannot be translated.
    """
    inside, header = at + _ICMP_HEADER, 20 if inner.family == IPV4 else 40
    _need(len(data) >= inside + header)
    before = sum_of(data[at:]) - word(data, at + _ICMP_CHECK)
    translate(data, NatKind.DST if kind is NatKind.SRC else NatKind.SRC, inner, inside)
    adjust(data, at + _ICMP_CHECK, before, sum_of(data[at:]) - word(data, at + _ICMP_CHECK))
    proto = ICMP if inner.family == IPV4 else ICMPV6
    translate(data, kind, Tuple(outer.family, proto, outer.src, outer.dst, outer.sport, outer.dport))
