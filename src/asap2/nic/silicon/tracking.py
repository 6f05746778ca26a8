# SPDX-License-Identifier: Apache-2.0
"""Connection tracking in the reference eSwitch: pass a packet's datagram to the tracker."""

from __future__ import annotations

from collections.abc import Collection

from asap2.nic.conntrack.carry import carry, is_known, restore
from asap2.nic.conntrack.states import NAT_MASK
from asap2.nic.conntrack.tracker import DroppedError, Tracker
from asap2.nic.conntrack.tuples import IPV4, IPV6, extensions_are_cut
from asap2.nic.rules import Ct, CtHardware
from asap2.nic.silicon import packet, tunnel
from asap2.nic.silicon.journey import Journey

_FAMILIES = {0x0800: IPV4, 0x86DD: IPV6}
_HEADER = {IPV4: 20, IPV6: 40}
_ANY_FRAGMENT = 0x3FFF


def track(tracker: Tracker, action: Ct, what: Journey, *, ovs: bool) -> bool:
    """Do *action* with a packet, in Open vSwitch's tables (*ovs*) or TC's; whether a helper has to see it then.

    Raises :class:`.DroppedError`, also for what is neither IPv4 nor IPv6. It is no fragment: user space puts those
    together before.
    """
    found = _datagram(what.frame)
    if found is None:
        raise DroppedError
    at, family = found
    data = what.frame[at:]
    if len(data) < _HEADER[family]:
        if not ovs:
            raise DroppedError
        what.tracked, what.seen = tracker.invalid(action), None
        return False
    if family == IPV4 and int.from_bytes(data[6:8], "big") & _ANY_FRAGMENT:
        raise DroppedError
    if not ovs and family == IPV6 and what.seen is None and extensions_are_cut(data):
        raise DroppedError  # tcf_ct_ipv6_is_fragment()
    entropy = what.flow_hash & 0xFFFF
    done = tracker.execute(action, data, family, what.tracked, what.seen, ovs=ovs, entropy=entropy)
    behind = data[len(done.data) :] if what.enveloped else b""
    what.frame, what.tracked, what.seen = what.frame[:at] + done.data + behind, done.fields, done.seen
    what.in_table = done.seen is not None and done.seen.connection.confirmed
    return done.helper


def _datagram(frame: bytes) -> tuple[int, int] | None:
    """Where a packet's datagram begins, and its family."""
    fields = packet.parse(frame)
    family = _FAMILIES.get(fields.get("eth_type", 0))
    if family is None:
        return None
    return packet.HEADER + 4 * (("vlan_tci" in fields) + ("cvlan_tci" in fields)), family


def track_in_hardware(tracker: Tracker, action: CtHardware, what: Journey, tunnel_ports: Collection[int]) -> bool:
    """Do *action* with a packet; return whether hardware carries its connection. Raises :class:`.DroppedError`."""
    begin = 0
    if action.inside:
        inside = tunnel.look_into(what.frame, tunnel_ports)
        if inside is None:
            return False
        begin = inside.at
    known = what.seen if what.in_table else None
    if is_known(action, what.tracked, known):
        return True
    found = _datagram(what.frame[begin:])
    if found is None:
        return False
    at, family = begin + found[0], found[1]
    done = carry(tracker, action, what.frame[at:], family, what.tracked, known, what.segments)
    if done is None:
        return False
    if action.nat and done.seen is not None and done.seen.connection.status & NAT_MASK:
        what.untranslated = what.as_it_came if action.inside else None
    what.frame, what.tracked, what.seen = what.frame[:at] + done.data, done.fields, done.seen
    what.in_table = True
    return True


def restore_tracked(tracker: Tracker, what: Journey, zone: int, state: int) -> bool:
    """Restore what a NIC knew about a packet: its connection in *zone*, and its NAT bits (a ``ct_state``).

    False: there is no such connection any more.
    """
    found = _datagram(what.frame)
    if found is None:
        return False
    at, family = found
    done = restore(tracker, what.frame[at:], family, zone, state)
    if done is None:
        return False
    what.tracked, what.seen, what.in_table = done.fields, done.seen, True
    return True
