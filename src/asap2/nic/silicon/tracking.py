# SPDX-License-Identifier: Apache-2.0
"""Connection tracking in the reference eSwitch: the datagram in a packet, and the tracker."""

from __future__ import annotations

from asap2.nic.conntrack.tracker import DroppedError, Tracker
from asap2.nic.conntrack.tuples import IPV4, IPV6
from asap2.nic.rules import Ct
from asap2.nic.silicon import packet
from asap2.nic.silicon.journey import Journey

_FAMILIES = {0x0800: IPV4, 0x86DD: IPV6}
_HEADER = {IPV4: 20, IPV6: 40}
_ANY_FRAGMENT = 0x3FFF


def track(tracker: Tracker, action: Ct, what: Journey, *, ovs: bool) -> None:
    """Do *action* with a packet, in Open vSwitch's tables (*ovs*) or TC's.

    Raises :class:`.DroppedError`, also for what is neither IPv4 nor IPv6, and for a fragment of IPv4: those have to be
    put together before.
    """
    fields = packet.parse(what.frame)
    family = _FAMILIES.get(fields.get("eth_type", 0))
    if family is None:
        raise DroppedError
    at = packet.HEADER + 4 * (("vlan_tci" in fields) + ("cvlan_tci" in fields))
    data = what.frame[at:]
    if len(data) < _HEADER[family]:
        if not ovs:
            raise DroppedError
        what.tracked, what.seen = tracker.invalid(action), None
        return
    if family == IPV4 and int.from_bytes(data[6:8], "big") & _ANY_FRAGMENT:
        raise DroppedError
    entropy = what.flow_hash & 0xFFFF
    done = tracker.execute(action, data, family, what.tracked, what.seen, ovs=ovs, entropy=entropy)
    behind = data[len(done.data) :] if what.enveloped else b""
    what.frame, what.tracked, what.seen = what.frame[:at] + done.data + behind, done.fields, done.seen
