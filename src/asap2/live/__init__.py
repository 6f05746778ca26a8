# SPDX-License-Identifier: Apache-2.0
"""What passes now: one interface to a running lab, a real host and a capture, for whatever shows traffic as it goes.

A collector gives snapshots (:mod:`asap2.live.snapshot`), frozen data of one moment; two of them give rates::

    with lab_collector(layout()) as collector:          # or host_collector(), for this host
        before = collector.sample()
        time.sleep(0.5)
        after = collector.sample()
        for port, rate in rates(before, after).ports.items():
            print(port, rate.packets, rate.hardware_share)

* ``sample()`` reads all counters and may be called many times a second: 0.2 ms a node. No program is started for it.
* ``generation`` is another number when anything but counters has changed since: a device, a bridge, a tunnel, a guest.
* ``want_flows(names)`` has flows, connections and reasons of those nodes read, once a second, from then on; they are in
  ``Node.detail``, with single connections if ``want_connections`` says which. Without it they are None and cost
  nothing. Rates of flows need two snapshots whose details differ.
* ``nodes`` are the names that ``want_flows`` takes.
* ``close()`` (or ``with``) ends all that belongs to a collector. A collector is for one thread.

:func:`capture_snapshot` gives the one moment that a file of ``asap2 host capture`` has. :func:`as_data` is a snapshot
as what JSON carries, in the form of docs/schemas/live.json.

A lab's counters come from the kernel, by a socket in each namespace, and from the maps of its pipelines: no daemon is
asked, so watching disturbs no upcall, and it goes on while a daemon is dead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from asap2.answers import marked
from asap2.host.records import to_data
from asap2.live.rates import FlowRate, PortRate, Rates, rates
from asap2.live.snapshot import (
    Bridge,
    Cable,
    Connections,
    Counters,
    Detail,
    Drops,
    Flow,
    Guest,
    Nic,
    Node,
    Port,
    PortKind,
    Snapshot,
    Tracked,
    Tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asap2.lab.layout import Layout
    from asap2.live.host import HostCollector
    from asap2.live.lab import LabCollector

__all__ = [
    "Bridge",
    "Cable",
    "Collector",
    "Connections",
    "Counters",
    "Detail",
    "Drops",
    "Flow",
    "FlowRate",
    "Guest",
    "Nic",
    "Node",
    "Port",
    "PortKind",
    "PortRate",
    "Rates",
    "Snapshot",
    "Tracked",
    "Tunnel",
    "as_data",
    "capture_snapshot",
    "host_collector",
    "lab_collector",
    "rates",
]


FLOWS_EVERY = 1.0
"""Seconds between two readings of a node's flows, unless told otherwise."""


class Collector(Protocol):
    """What all collectors can do; see above."""

    generation: int

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes."""

    def sample(self) -> Snapshot:
        """The state now; Asap2Error when there is nothing to sample any more."""

    def want_flows(self, nodes: Iterable[str]) -> None:
        """Read flows, connections and reasons of these nodes, and of no other; LookupError."""

    def want_connections(self, wanted: Mapping[str, frozenset[str]]) -> None:
        """Of nodes whose flows are wanted, list those connections that have all words of one of the texts."""

    def close(self) -> None:
        """End all that belongs to the collector."""


def lab_collector(layout: Layout, *, flows_every: float = FLOWS_EVERY) -> LabCollector:
    """A collector of the lab at *layout*, which reads flows every so many seconds; UsageError when no lab is up
    there."""
    from asap2.live.lab import LabCollector

    return LabCollector(layout, flows_every=flows_every)


def host_collector(*, flows_every: float = FLOWS_EVERY) -> HostCollector:
    """A collector of this host, which reads flows every so many seconds."""
    from asap2.live.host import HostCollector

    return HostCollector(flows_every=flows_every)


def capture_snapshot(path: Path) -> Snapshot:
    """The host in the capture at *path*; UsageError when it is no capture."""
    from asap2.host.capture import read
    from asap2.live.host import captured

    return captured(read(path))


def as_data(snapshot: Snapshot) -> dict[str, Any]:
    """*snapshot* as what JSON carries."""
    return marked("live", to_data(snapshot))
