# SPDX-License-Identifier: Apache-2.0
"""A running lab, all of its nodes, sampled many times a second."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from asap2.errors import UsageError
from asap2.lab.layout import Layout
from asap2.live import switch
from asap2.live.agent import Agent
from asap2.live.node import LOOK_AGAIN, NodeWatch
from asap2.live.snapshot import Cable, Guest, Node, Port, PortKind, Snapshot, Tunnel

_AGAIN = 2.0
"""Seconds until a node that was not there is looked for again."""


class LabCollector:
    """Samples the lab at *layout*. Not for use by two threads at once.

    Raises:
        UsageError: no lab is up there.
    """

    def __init__(self, layout: Layout, *, flows_every: float) -> None:
        self._layout = layout
        self._flows_every = flows_every
        self._record = _record(layout)
        self._identity = _identity(layout.record)
        self._guests: dict[str, int] = {}
        self._watches: dict[str, NodeWatch] = {}
        self._missing: dict[str, float] = {}
        self._agents: dict[str, Agent] = {}
        self._generations: dict[str, int] = {}
        self.generation = 0
        """Grows whenever anything but counters has changed."""
        self._join_due = 0.0
        self._guest_rows: tuple[Guest, ...] = ()
        self._cables: tuple[Cable, ...] = ()
        self._tunnels: tuple[Tunnel, ...] = ()
        self._open()

    def close(self) -> None:
        """Close everything that is open, and end the agents."""
        self.want_flows(())
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()
        for descriptor in self._guests.values():
            os.close(descriptor)
        self._guests.clear()

    def __enter__(self) -> LabCollector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(node["name"] for node in self._record["nodes"])

    @property
    def agents(self) -> tuple[int, ...]:
        """The process ids of what reads flows."""
        return tuple(agent.pid for agent in self._agents.values() if agent.pid is not None)

    def want_flows(self, nodes: Iterable[str]) -> None:
        """Read flows, connections and reasons of these nodes from now on, and of no other; LookupError."""
        wanted = set(nodes)
        if unknown := wanted - set(self.nodes):
            raise LookupError(f"the lab has no node {min(unknown)!r}; it has {', '.join(self.nodes)}")
        for name in set(self._agents) - wanted:
            self._agents.pop(name).close()
        for name in wanted - set(self._agents):
            self._agents[name] = Agent(self._layout, name, self._flows_every)

    def want_connections(self, wanted: Mapping[str, frozenset[str]]) -> None:
        """Of nodes whose flows are wanted, list those connections that have all words of one of the texts."""
        for name, agent in self._agents.items():
            agent.list_connections(wanted.get(name, frozenset()))

    def sample(self) -> Snapshot:
        """The lab now. A node whose programs or namespaces are gone has another state than "up".

        Raises:
            UsageError: the lab was taken down.
        """
        if _identity(self._layout.record) != self._identity:
            self._renew()
        taken = time.time()
        nodes = tuple(self._node(name) for name in self.nodes)
        generations = {name: watch.generation for name, watch in self._watches.items()}
        if generations != self._generations or time.monotonic() >= self._join_due:
            self._join(nodes)
            self.generation += generations != self._generations
            self._generations = generations
        return Snapshot(taken, "lab", self._layout.name, nodes, self._guest_rows, self._cables, self._tunnels)

    def _open(self) -> None:
        for guest in self._record["guests"]:
            with contextlib.suppress(OSError):
                path = self._layout.guest(guest["name"]) / "ns" / "net"
                self._guests[guest["name"]] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _renew(self) -> None:
        """Another lab has come up in the place of the one that was."""
        record = _record(self._layout)
        self.close()
        self._identity = _identity(self._layout.record)
        self._record = record
        self._missing.clear()
        self._generations.clear()
        self.generation += 1
        self._open()

    def _node(self, name: str) -> Node:
        watch = self._watches.get(name)
        if watch is None:
            if time.monotonic() < self._missing.get(name, 0.0):
                return Node(name, "not there")
            record = next(node for node in self._record["nodes"] if node["name"] == name)
            try:
                watch = self._watches[name] = NodeWatch(self._layout, record, self._guests)
            except (OSError, UsageError):
                self._missing[name] = time.monotonic() + _AGAIN
                return Node(name, "not there")
        try:
            node = watch.sample()
        except OSError:
            watch.close()
            del self._watches[name]
            self._missing[name] = time.monotonic() + _AGAIN
            return Node(name, "not there")
        agent = self._agents.get(name)
        return replace(node, detail=agent.latest()) if agent is not None else node

    # ---- what joins nodes

    def _join(self, nodes: tuple[Node, ...]) -> None:
        self._join_due = time.monotonic() + LOOK_AGAIN
        ports = {port.id: port for node in nodes for port in node.ports}
        vfs = {port.guest: port for port in ports.values() if port.kind is PortKind.VF and port.guest is not None}
        self._guest_rows = tuple(self._guest(row, vfs) for row in self._record["guests"])
        self._cables = tuple(self._cable(row, number) for number, row in enumerate(self._record["cables"]))
        named = {address: name for name, watch in self._watches.items() for address in watch.structure.addresses}
        self._tunnels = tuple(
            tunnel
            for name, watch in self._watches.items()
            for tunnel in switch.tunnels(name, watch.structure.bridges, named)
        )

    @staticmethod
    def _guest(row: dict[str, Any], vfs: dict[str, Port]) -> Guest:
        port = vfs.get(row["name"])
        addresses = (row["address"],) if row["address"] else ()
        device = port.name if port is not None else row["device"]
        return Guest(row["name"], row["node"], port.id if port is not None else None, device, addresses)

    def _cable(self, row: dict[str, Any], number: int) -> Cable:
        first, second = (self._end(end) for end in row["ends"])
        return Cable((first, second), (self._layout.cables / f"{number}.json").exists())

    def _end(self, end: str) -> str:
        """The id of the uplink at NODE/NIC/pPORT; a switch is named as it is."""
        if "/" not in end:
            return end
        node, nic, port = end.split("/")
        for row in self._record["nodes"]:
            for one in row["nics"] if row["name"] == node else ():
                if one["name"] == nic:
                    return f"{node}/{one['ports'][int(port[1:])]['netdev']}"
        return end


def _record(layout: Layout) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(layout.record.read_text())
        for node in found["nodes"]:
            _ = node["name"], [nic["ports"] for nic in node["nics"]]
        _ = found["guests"], found["cables"]
    except FileNotFoundError:
        where = "" if layout.name == "default" else f" as {layout.name}"
        raise UsageError(f"no lab is up{where}; `asap2 lab up TOPOLOGY` makes one") from None
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"the lab {layout.name} is of another version; `asap2 lab down` takes it down") from None
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    """What a lab's record has in common with itself alone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
