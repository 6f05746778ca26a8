# SPDX-License-Identifier: Apache-2.0
"""Connections of protocols without connections: UDP, GRE, ICMP's queries, and all others.

nf_conntrack_proto_udp.c, _gre.c, _icmp.c, _icmpv6.c; generic_packet() of nf_conntrack_core.c.
"""

from __future__ import annotations

from typing import Final

from asap2.nic.conntrack.connection import ORIGINAL, Connection
from asap2.nic.conntrack.states import ICMP, SECOND, Status
from asap2.nic.conntrack.tuples import ICMP_REQUESTS, ICMPV6_REQUESTS, IPV4, IPV6, word
from asap2.nic.conntrack.verdict import Verdict

_UDP_HEADER = 8
STREAM_AFTER: Final = 2 * SECOND
"""Nanoseconds after which UDP with traffic in both directions is a stream."""


def udp(connection: Connection, data: bytes, at: int, direction: int, now: int) -> Verdict:
    """Handle a UDP packet (nf_conntrack_udp_packet())."""
    octets = len(data) - at
    if octets < _UDP_HEADER or not _UDP_HEADER <= word(data, at + 4) <= octets:
        return Verdict.INVALID
    if not connection.confirmed:
        connection.stream_from = now + STREAM_AFTER
    seconds = connection.timeouts.udp
    if connection.status & Status.SEEN_REPLY and now > connection.stream_from:
        seconds = connection.timeouts.udp_stream
        connection.status |= Status.ASSURED
    connection.refresh(direction, len(data), seconds, now)
    return Verdict.ACCEPT


def udplite(connection: Connection, data: bytes, at: int, direction: int, now: int) -> Verdict:
    """Handle a UDP-Lite packet: its checksum is mandatory, and the header gives its coverage (udplite_error())."""
    octets = len(data) - at
    if octets < _UDP_HEADER or not word(data, at + 6) or not _UDP_HEADER <= (word(data, at + 4) or octets) <= octets:
        return Verdict.INVALID
    timeouts = connection.timeouts
    return _two_way(connection, data, direction, timeouts.udplite, timeouts.udplite_stream, now)


def gre(connection: Connection, data: bytes, direction: int, now: int) -> Verdict:
    """Handle a GRE packet (nf_conntrack_gre_packet())."""
    return _two_way(connection, data, direction, connection.timeouts.gre, connection.timeouts.gre_stream, now)


def _two_way(connection: Connection, data: bytes, direction: int, timeout: int, replied: int, now: int) -> Verdict:
    """Handle a packet of a connection that is assured, and lives *replied* seconds, once there has been a reply."""
    seconds = timeout
    if connection.status & Status.SEEN_REPLY:
        seconds = replied
        connection.status |= Status.ASSURED
    connection.refresh(direction, len(data), seconds, now)
    return Verdict.ACCEPT


def icmp(connection: Connection, data: bytes, direction: int, now: int) -> Verdict:
    """Handle a query or its reply (nf_conntrack_icmp_packet(), nf_conntrack_icmpv6_packet())."""
    first = connection.tuples[ORIGINAL]
    kind = first.dport >> 8
    if connection.proto == ICMP:
        if first.family != IPV4 or kind not in ICMP_REQUESTS:
            return Verdict.INVALID
        connection.refresh(direction, len(data), connection.timeouts.icmp, now)
        return Verdict.ACCEPT
    if first.family != IPV6 or (not connection.confirmed and kind not in ICMPV6_REQUESTS):
        return Verdict.INVALID
    connection.refresh(direction, len(data), connection.timeouts.icmpv6, now)
    return Verdict.ACCEPT


def generic(connection: Connection, data: bytes, direction: int, now: int) -> Verdict:
    """Handle a packet of any other protocol."""
    connection.refresh(direction, len(data), connection.timeouts.generic, now)
    return Verdict.ACCEPT
