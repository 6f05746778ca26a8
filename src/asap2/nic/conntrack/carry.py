# SPDX-License-Identifier: Apache-2.0
"""What a NIC does with a packet of a connection that it carries (net/sched/act_ct.c, mlx5's en/tc_ct.c)."""

from __future__ import annotations

from asap2.nic.conntrack.fields import NAT_STATE, Fields, fields_of
from asap2.nic.conntrack.flow_table import in_hardware, keep_alive, seen_in_flow, tuple_in_flow
from asap2.nic.conntrack.seen import Seen
from asap2.nic.conntrack.states import NAT_MASK, Relation, Status
from asap2.nic.conntrack.tracker import Tracked, Tracker
from asap2.nic.conntrack.tuples import trimmed
from asap2.nic.nat import Nat
from asap2.nic.rules import CtHardware


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
    found = in_hardware(tracker.find, data, family, action.zone, tracker.now)
    if found is None:
        return None
    connection, direction = found
    keep_alive(connection, direction, segments, len(trimmed(data, family)), tracker.now)
    seen = seen_in_flow(connection, direction)
    fields = fields_of(seen, action.zone, family)
    if action.nat and connection.status & NAT_MASK:
        data = tracker.translated(Seen(connection, Relation.ESTABLISHED, direction), Nat(None), data, family, fields)
    return Tracked(data, fields, seen)


def restore(tracker: Tracker, data: bytes, family: int, zone: int, state: int) -> Tracked | None:
    """Restore what the NIC knew about a datagram, from its *zone* and its NAT bits (mlx5e_tc_ct_restore_flow()).

    ``None`` if the connection no longer exists.
    """
    one = tuple_in_flow(data, family)
    if one and state & NAT_STATE:  # after NAT, a packet is the inverse of the tuple of replies
        one = one.inverse()
    found = tracker.find(zone, one) if one else None
    if found is None:
        return None
    connection, direction = found[0], 1 - found[1] if state & NAT_STATE else found[1]
    seen = seen_in_flow(connection, direction)
    fields = fields_of(seen, zone, family)
    fields["ct_state"] |= state & NAT_STATE
    return Tracked(data, fields, seen)


def is_known(action: CtHardware, fields: Fields, seen: Seen | None) -> bool:
    """Whether the packet has already been looked up in this zone and, where necessary, translated (pre_ct of mlx5)."""
    if seen is None or seen.connection.zone != action.zone or seen.connection.status & Status.DYING:
        return False
    translated = fields.get("ct_state", 0) & NAT_STATE or not seen.connection.status & NAT_MASK
    return not action.nat or bool(translated)
