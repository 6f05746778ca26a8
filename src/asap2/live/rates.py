# SPDX-License-Identifier: Apache-2.0
"""What passes now: the difference of two snapshots, per second."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from asap2.live.snapshot import Counters, Flow, Nic, Snapshot

_COUNTERS = tuple(one.name for one in dataclasses.fields(Counters))


@dataclass(frozen=True, slots=True)
class PortRate:
    """Packets and bytes per second, named as :class:`asap2.live.snapshot.Counters`."""

    hardware_in_packets: float = 0.0
    hardware_in_bytes: float = 0.0
    hardware_out_packets: float = 0.0
    hardware_out_bytes: float = 0.0
    software_in_packets: float = 0.0
    software_in_bytes: float = 0.0
    software_out_packets: float = 0.0
    software_out_bytes: float = 0.0
    dropped_packets: float = 0.0

    @property
    def packets(self) -> float:
        """Packets per second of both directions, in hardware and software."""
        ways = (self.hardware_in_packets, self.hardware_out_packets)
        return sum(ways) + self.software_in_packets + self.software_out_packets

    @property
    def bytes(self) -> float:
        """Bytes per second of both directions, in hardware and software."""
        ways = (self.hardware_in_bytes, self.hardware_out_bytes)
        return sum(ways) + self.software_in_bytes + self.software_out_bytes

    @property
    def hardware_share(self) -> float | None:
        """The part of the packets that is in hardware, 0 to 1; None when there are none."""
        total = self.packets
        return (self.hardware_in_packets + self.hardware_out_packets) / total if total else None


@dataclass(frozen=True, slots=True)
class FlowRate:
    """Packets and bytes per second of a flow."""

    packets: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates over ``seconds``. ``ports`` are by port id, ``flows`` by (node, ufid), ``drops`` by (node, NIC, reason) in
    packets per second. What only one of the two snapshots has is left out."""

    seconds: float
    ports: dict[str, PortRate] = field(default_factory=dict)
    flows: dict[tuple[str, str], FlowRate] = field(default_factory=dict)
    drops: dict[tuple[str, str, str], float] = field(default_factory=dict)


def rates(before: Snapshot, after: Snapshot) -> Rates:
    """The rates between two snapshots of the same source. A counter that has become smaller started again: its rate is
    0. Flows are read less often than ports, so their rates are over the time between their own readings.

    Raises:
        ValueError: *after* was not taken after *before*.
    """
    seconds = after.taken - before.taken
    if seconds <= 0:
        raise ValueError("the second snapshot must be later than the first")
    old = {port.id: port.counters for node in before.nodes for port in node.ports}
    ports = {
        port.id: _port_rate(old[port.id], port.counters, seconds)
        for node in after.nodes
        for port in node.ports
        if port.id in old
    }
    old_drops = _drops(before)
    drops = {
        key: max(0, packets - old_drops[key]) / seconds for key, packets in _drops(after).items() if key in old_drops
    }
    return Rates(seconds, ports, _flow_rates(before, after), drops)


def _port_rate(old: Counters, new: Counters, seconds: float) -> PortRate:
    if old == new:
        return _STILL
    return PortRate(*(max(0, getattr(new, name) - getattr(old, name)) / seconds for name in _COUNTERS))


_STILL = PortRate()


def _drops(snapshot: Snapshot) -> dict[tuple[str, str, str], int]:
    """Packets by node, NIC and reason; a reason that a NIC has not told of yet counts from 0."""
    nics: list[tuple[str, Nic]] = [(node.name, nic) for node in snapshot.nodes for nic in node.nics]
    return {(node, nic.name, one.reason): one.packets for node, nic in nics for one in nic.drops}


def _flow_rates(before: Snapshot, after: Snapshot) -> dict[tuple[str, str], FlowRate]:
    old = {node.name: node.detail for node in before.nodes if node.detail is not None}
    found: dict[tuple[str, str], FlowRate] = {}
    for node in after.nodes:
        detail, earlier = node.detail, old.get(node.name)
        if detail is None or earlier is None or detail.taken <= earlier.taken:
            continue
        seconds = detail.taken - earlier.taken
        known: dict[str, Flow] = {flow.ufid: flow for flow in earlier.flows}
        for flow in detail.flows:
            if (one := known.get(flow.ufid)) is not None:
                packets, octets = max(0, flow.packets - one.packets), max(0, flow.bytes - one.bytes)
                found[node.name, flow.ufid] = FlowRate(packets / seconds, octets / seconds)
    return found
