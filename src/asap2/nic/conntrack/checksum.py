# SPDX-License-Identifier: Apache-2.0
"""Whether a datagram's checksum is wrong, so that connection tracking finds it invalid (nf_checksum()).

A host leaves the checksum of what it sends to its NIC. Until that has filled it in, its field holds the sum of the
pseudo header; the kernel knows such packets (CHECKSUM_PARTIAL) and takes them as right. Here that sum tells them.
"""

from __future__ import annotations

from typing import Final

from asap2.nic.checksums import folded, sum_of
from asap2.nic.conntrack.states import ICMP, ICMPV6, TCP, UDP, UDPLITE
from asap2.nic.conntrack.tuples import IPV4, Transport, word

_PLACES: Final = {TCP: (16, 20), UDP: (6, 8), UDPLITE: (6, 8), ICMP: (2, 8), ICMPV6: (2, 8)}
"""Where the checksum is in the header of a protocol, and how long that is."""
_RIGHT: Final = 0xFFFF


def is_wrong(data: bytes, family: int, header: Transport) -> bool:
    """Whether the checksum in the transport *header* of a datagram is wrong.

    Not of a header that is cut short, and of UDP without a checksum. SCTP's is not looked at.
    """
    proto, at = header.proto, header.at
    if proto not in _PLACES or (proto == ICMP) != (proto in (ICMP, ICMPV6) and family == IPV4):
        return False
    place, size = _PLACES[proto]
    length, end = len(data) - at, len(data)
    if length < size or (proto == UDP and not word(data, at + place)):
        return False
    if proto == UDPLITE:
        covered = word(data, at + 4) or length
        if not size <= covered <= length:
            return False
        end = at + covered
    ends = data[12:20] if family == IPV4 else data[8:40]
    pseudo = 0 if proto == ICMP else sum_of(ends) + length + proto
    if proto in (TCP, UDP, UDPLITE) and word(data, at + place) == folded(pseudo):
        return False
    first = 0 if family == IPV4 else at  # the kernel sums an IPv4 header, too
    return folded(sum_of(data[first:end]) + pseudo) != _RIGHT
