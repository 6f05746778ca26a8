# SPDX-License-Identifier: Apache-2.0
"""The flow table of TC's action ct: the connections that it has offered to hardware (tcf_ct_flow_table_lookup(),
net/sched/act_ct.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from asap2.nic.conntrack.connection import ORIGINAL, REPLY, Connection
from asap2.nic.conntrack.seen import Seen
from asap2.nic.conntrack.states import GRE, SECOND, TCP, UDP, Relation, Status, TcpState
from asap2.nic.conntrack.tuples import IPV4, Tuple, trimmed, tuple_of, word

IDLE: Final = 30 * SECOND
"""Nanoseconds without a packet after which a connection returns to software (nf_flowtable_tcp_timeout,
_udp_timeout)."""
_LEAST: Final = {TCP: 20, UDP: 8, GRE: 4}
"""Minimum length of the transport header, in octets, of each protocol that hardware carries."""
_FIN_OR_RST: Final = 5
_BACK: Final = Status.OFFLOAD | Status.HW_OFFLOAD

Find = Callable[[int, Tuple], tuple[Connection, int] | None]
"""Finds the connection of a tuple in a zone, and the direction."""


def tuple_in_flow(data: bytes, family: int) -> Tuple | None:
    """The tuple of a datagram; ``None`` if hardware cannot carry it: a fragment, IP options, or a TTL of at most 1
    (tcf_ct_flow_table_fill_tuple_ipv4(), _ipv6())."""
    data = trimmed(data, family)
    if family == IPV4:
        if len(data) < 20 or data[0] != 0x45 or word(data, 6) & 0x3FFF or data[8] <= 1:
            return None
        proto, at = data[9], 20
    else:
        if len(data) < 40 or data[7] <= 1:
            return None
        proto, at = data[6], 40
    if proto not in _LEAST or at + _LEAST[proto] > len(data):
        return None
    one = tuple_of(data, family)
    return None if one is None or (proto == GRE and (one.sport or one.dport)) else one


def in_hardware(find: Find, data: bytes, family: int, zone: int, now: int) -> tuple[Connection, int] | None:
    """The connection of a datagram, which hardware carries, and its direction. A FIN, a RST or :data:`IDLE` returns it
    to software. *now* is in nanoseconds."""
    one = tuple_in_flow(data, family)
    found = find(zone, one) if one else None
    if one is None or found is None or not found[0].status & Status.HW_OFFLOAD:
        return None
    connection, direction = found
    ends = one.proto == TCP and data[(20 if family == IPV4 else 40) + 13] & _FIN_OR_RST
    if ends or connection.carried + IDLE <= now:
        connection.status &= ~_BACK
        return None
    if direction != ORIGINAL and not connection.status & Status.ASSURED:
        return None
    return connection, direction


def in_software(find: Find, data: bytes, family: int, zone: int, now: int) -> Seen | None:
    """What software knows of a datagram by the flow table alone, and count it. Only once the connection is assured: the
    tracker makes it so."""
    found = in_hardware(find, data, family, zone, now)
    if found is None or not found[0].status & Status.ASSURED:
        return None
    keep_alive(*found, 1, len(trimmed(data, family)), now)
    return seen_in_flow(*found)


def keep_alive(connection: Connection, direction: int, packets: int, octets: int, now: int) -> None:
    """Count packets that the flow table has taken, and let the connection live on."""
    connection.packets[direction] += packets
    connection.bytes[direction] += octets
    if connection.carried != now:  # several packets at once do not write it several times
        connection.expires = max(connection.expires, now + _lives(connection) * SECOND)
        connection.carried = now


def seen_in_flow(connection: Connection, direction: int) -> Seen:
    """A packet's relation to its connection, as the flow table tells it."""
    replied = direction == REPLY or connection.status & Status.SEEN_REPLY
    return Seen(connection, Relation.ESTABLISHED if replied else Relation.NEW, direction)


def _lives(connection: Connection) -> int:
    """The connection's timeout in seconds, as if software had seen the packet."""
    timeouts, assured = connection.timeouts, connection.status & Status.ASSURED
    if connection.proto == TCP:
        return timeouts.tcp[TcpState.ESTABLISHED]
    if connection.proto == UDP:
        return timeouts.udp_stream if assured else timeouts.udp
    return timeouts.gre_stream if assured else timeouts.gre
