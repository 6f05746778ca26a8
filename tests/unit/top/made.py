# SPDX-License-Identifier: Apache-2.0
"""Snapshots as a collector gives them, made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from asap2.errors import UsageError
from asap2.live import Counters, Detail, Drops, Flow, Guest, Nic, Node, Port, PortKind, Snapshot

BEGUN = 1_000_000.0


def counters(hardware: int, software: int = 0, dropped: int = 0) -> Counters:
    """So many packets of 100 octets in, and as many out."""
    ways = (hardware, 100 * hardware, hardware, 100 * hardware, software, 100 * software, software, 100 * software)
    return Counters(*ways, dropped)


def flow(number: int, packets: int, *, offloaded: bool = True) -> Flow:
    """A flow from eth0 to the wire, or one that is in software."""
    code, why, fix = (
        ("offloaded", "it is in the NIC", "") if offloaded else ("nic.match", "no such match", "leave it out")
    )
    match = f"recirc_id(0),in_port(eth0),eth_type(0x0800),ipv4(dst=10.0.0.{number})"
    state = "yes" if offloaded else "no"
    return Flow(f"ufid-{number}", "eth0", ("p0",), match, "p0", packets, 100 * packets, state, code, why, "dst", fix)


def node(name: str, seconds: float, *, rate: int = 1000, software: int = 0, detail: bool = False) -> Node:
    """A node that has been up for *seconds*, whose guest sends *rate* packets a second, and *software* more in
    software."""
    passed = counters(int(rate * seconds), int(software * seconds), int(seconds))
    vf, representor = f"{name}/nic0/pf0vf0", f"{name}/eth0"
    ports = (
        Port(f"{name}/p0", "p0", PortKind.UPLINK, "nic0", 0, bridge="br-int", up=True, counters=passed),
        Port(vf, "eth0", PortKind.VF, "nic0", 0, 0, f"vm-{name}", None, representor, True, "02::1", passed),
        Port(representor, "eth0", PortKind.REPRESENTOR, "nic0", 0, 0, None, "br-int", vf, True, "02::2", passed),
        Port(f"{name}/br-int", "br-int", PortKind.INTERNAL, bridge="br-int", up=True),
        Port(f"{name}/patch", "patch", PortKind.PATCH, bridge="br-int"),
    )
    nic = Nic("nic0", "ConnectX-5", "0000:03:00.0", "switchdev", ("p0",), (Drops("rule", int(5 * seconds)),))
    flows = (flow(1, int(rate * seconds)), flow(2, int(software * seconds), offloaded=False))
    return Node(name, "up", (nic,), ports, (), Detail(BEGUN + seconds, flows) if detail else None)


class Collector:
    """Gives made snapshots, one a call, each a second after the one before."""

    def __init__(self, *rates: tuple[str, int, int]) -> None:
        """*rates* are a node's name, its packets in hardware and those in software."""
        self.rates = rates
        self.generation = 0
        self.seconds = 0.0
        self.wanted: frozenset[str] = frozenset()
        self.down = False
        self.closed = 0
        self.stale = False
        """Whether flows are as they were at the last look, as between two readings of them."""
        self._last: tuple[Node, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(name for name, _, _ in self.rates)

    def sample(self) -> Snapshot:
        """The next one."""
        if self.down:
            raise UsageError("no lab is up; `asap2 lab up TOPOLOGY` makes one")
        self.seconds += 1
        made = tuple(
            node(name, self.seconds, rate=rate, software=software, detail=name in self.wanted)
            for name, rate, software in self.rates
        )
        if self.stale:
            made = tuple(replace(one, detail=old.detail) for one, old in zip(made, self._last, strict=True))
        self._last = made
        guests = tuple(Guest(f"vm-{name}", name, f"{name}/nic0/pf0vf0", "eth0") for name in self.nodes)
        return Snapshot(BEGUN + self.seconds, "lab", "made", made, guests)

    def want_flows(self, nodes: Iterable[str]) -> None:
        """As the real ones."""
        self.wanted = frozenset(nodes)

    def want_connections(self, wanted: Mapping[str, frozenset[str]]) -> None:
        """As the real ones: none are listed."""

    def close(self) -> None:
        """As the real ones."""
        self.closed += 1
