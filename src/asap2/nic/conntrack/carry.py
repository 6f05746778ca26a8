# SPDX-License-Identifier: Apache-2.0
"""What a NIC does with a packet of a connection that it carries (net/sched/act_ct.c, mlx5's en/tc_ct.c)."""

from __future__ import annotations

from typing import Final

from asap2.nic.conntrack.connection import ORIGINAL, REPLY, Connection
from asap2.nic.conntrack.fields import NAT_STATE, Fields, fields_of
from asap2.nic.conntrack.seen import Seen
from asap2.nic.conntrack.states import GRE, NAT_MASK, SECOND, TCP, UDP, Relation, Status, TcpState
from asap2.nic.conntrack.tracker import Tracked, Tracker
from asap2.nic.conntrack.tuples import IPV4, Tuple, trimmed, tuple_of, word
from asap2.nic.nat import Nat
from asap2.nic.rules import CtHardware

IDLE: Final = 30 * SECOND
"""Nanoseconds without a packet after which a connection returns to software (nf_flowtable_tcp_timeout,
_udp_timeout)."""
_LEAST: Final = {TCP: 20, UDP: 8, GRE: 4}
"""Minimum length of the transport header, in octets, of each protocol that hardware carries."""
_FIN_OR_RST: Final = 5
_BACK: Final = Status.OFFLOAD | Status.HW_OFFLOAD


def carry(
    tracker: Tracker, action: CtHardware, data: bytes, family: int, fields: Fields, seen: Seen | None, segments: int
) -> Tracked | None:
    """Do *action* with a datagram; ``None`` if hardware does not carry its connection, so that software continues.

    *fields* and *seen* are what is known of the packet; a NIC knows only connections that were in the table when the
    packet was tracked, so *seen* is one of those. *segments* is the number of packets that it counts as.

    Raises:
        DroppedError: NAT cannot translate the datagram.
    """
    if is_known(action, fields, seen):
        return Tracked(data, fields, seen)
    found = _carried(tracker, data, family, action.zone)
    if found is None:
        return None
    connection, direction = found
    connection.packets[direction] += segments
    connection.bytes[direction] += len(trimmed(data, family))
    if connection.carried != tracker.now:  # several packets at once do not write it several times
        connection.expires = max(connection.expires, tracker.now + _lives(connection) * SECOND)
        connection.carried = tracker.now
    seen = _seen(connection, direction)
    fields = fields_of(seen, action.zone, family)
    if action.nat and connection.status & NAT_MASK:
        data = tracker.translated(Seen(connection, Relation.ESTABLISHED, direction), Nat(None), data, family, fields)
    return Tracked(data, fields, seen)


def restore(tracker: Tracker, data: bytes, family: int, zone: int, state: int) -> Tracked | None:
    """Restore what the NIC knew about a datagram, from its *zone* and its NAT bits (mlx5e_tc_ct_restore_flow()).

    ``None`` if the connection no longer exists.
    """
    one = _whole(data, family)
    if one and state & NAT_STATE:  # after NAT, a packet is the inverse of the tuple of replies
        one = one.inverse()
    found = tracker.find(zone, one) if one else None
    if found is None:
        return None
    connection, direction = found[0], 1 - found[1] if state & NAT_STATE else found[1]
    seen = _seen(connection, direction)
    fields = fields_of(seen, zone, family)
    fields["ct_state"] |= state & NAT_STATE
    return Tracked(data, fields, seen)


def is_known(action: CtHardware, fields: Fields, seen: Seen | None) -> bool:
    """Whether the packet has already been looked up in this zone and, where necessary, translated (pre_ct of mlx5)."""
    if seen is None or seen.connection.zone != action.zone or seen.connection.status & Status.DYING:
        return False
    translated = fields.get("ct_state", 0) & NAT_STATE or not seen.connection.status & NAT_MASK
    return not action.nat or bool(translated)


def _seen(connection: Connection, direction: int) -> Seen:
    """A packet's relation to its connection, as hardware tells it."""
    replied = direction == REPLY or connection.status & Status.SEEN_REPLY
    return Seen(connection, Relation.ESTABLISHED if replied else Relation.NEW, direction)


def _whole(data: bytes, family: int) -> Tuple | None:
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


def _carried(tracker: Tracker, data: bytes, family: int, zone: int) -> tuple[Connection, int] | None:
    """The carried connection of a datagram, and its direction. A FIN, a RST or :data:`IDLE` returns it to software."""
    one = _whole(data, family)
    found = tracker.find(zone, one) if one else None
    if one is None or found is None or not found[0].status & Status.HW_OFFLOAD:
        return None
    connection, direction = found
    ends = one.proto == TCP and data[(20 if family == IPV4 else 40) + 13] & _FIN_OR_RST
    if ends or connection.carried + IDLE <= tracker.now:
        connection.status &= ~_BACK
        return None
    if direction != ORIGINAL and not connection.status & Status.ASSURED:
        return None
    return connection, direction


def _lives(connection: Connection) -> int:
    """The connection's timeout in seconds, as if software had seen the packet."""
    timeouts, assured = connection.timeouts, connection.status & Status.ASSURED
    if connection.proto == TCP:
        return timeouts.tcp[TcpState.ESTABLISHED]
    if connection.proto == UDP:
        return timeouts.udp_stream if assured else timeouts.udp
    return timeouts.gre_stream if assured else timeouts.gre
