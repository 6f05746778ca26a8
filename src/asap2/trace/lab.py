# SPDX-License-Identifier: Apache-2.0
"""Watching a lab: which nodes there are, what is at the other end of each port, and how guests call theirs."""

from __future__ import annotations

import selectors
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asap2.errors import Asap2Error, UsageError
from asap2.lab.description import describe
from asap2.lab.layout import layout
from asap2.nic.silicon.watching import Record
from asap2.nic.watchers import NODE
from asap2.trace.node import NodeWatch, PortOf, Told, in_nic

Place = tuple[str, str, int]
"""A node, a pipeline of it, and a port of that."""
Event = tuple[int, NodeWatch, Record | Told]
"""What has happened at a node, and when, in nanoseconds of CLOCK_MONOTONIC."""


class LabWatch:
    """The packets of all nodes of the lab; a context manager."""

    def __init__(self) -> None:
        """Asap2Error when there is no such lab."""
        self.layout = layout()
        about = describe(self.layout)
        known = [node["name"] for node in about["nodes"]]
        if not known:
            raise Asap2Error("no lab is up; `asap2 lab up TOPOLOGY` makes one")
        self._guests = {(guest["node"], guest["vf"]): guest["name"] for guest in about["guests"]}
        self._ends = _ends(about)
        self.nodes: dict[str, NodeWatch] = {}
        try:
            for name in known:
                self.nodes[name] = NodeWatch(name, self.layout.node(name))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LabWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more."""
        for node in self.nodes.values():
            node.close()

    def begin(self, most: int) -> None:
        """Watch; records have *most* octets of a packet. Asap2Error: somebody watches already."""
        nodes = list(self.nodes.values())
        with ThreadPoolExecutor() as pool:
            programs = list(pool.map(lambda node: node.load(most), nodes))
        for node, loaded in zip(nodes, programs, strict=True):
            node.begin(loaded)

    @property
    def lost(self) -> int:
        """Records and messages that were lost."""
        return sum(node.lost for node in self.nodes.values())

    def read(self) -> list[Event]:
        """What has come, in no particular order."""
        found: list[Event] = []
        for node in self.nodes.values():
            for event in node.read():
                at = event.now if isinstance(event, Record) else event.data.get("began", event.at)
                found.append((at, node, event))
        return found

    def wait(self, seconds: float) -> None:
        """Wait for something to read, at most so long."""
        with selectors.DefaultSelector() as selector:
            for node in self.nodes.values():
                for descriptor in node.fileno():
                    selector.register(descriptor, selectors.EVENT_READ)
            selector.select(seconds)

    # ---- what is where

    def guest_of(self, node: str, port: PortOf) -> str | None:
        """The guest that has the VF of *port*; None: none has, or the VF is still in the node."""
        if port.kind != "VF" or port.node_port:
            return None
        return self._guests.get((node, port.netdev or ""), None)

    def guest_port(self, guest: str) -> Place:
        """The NIC's port of a guest. UsageError."""
        for (node, netdev), name in self._guests.items():
            if name == guest and node in self.nodes:
                for port in self.nodes[node].ports.values():
                    if port.kind == "VF" and port.netdev == netdev:
                        return node, port.pipeline, port.id
        names = ", ".join(sorted(self._guests.values())) or "none"
        raise UsageError(f"the lab has no guest {guest} with a VF that is in use; it has {names}")

    def title(self, node: str, port: PortOf) -> str:
        """What people call a port: the guest, the representor, the uplink, or the device."""
        if not in_nic(port.pipeline):
            return port.name
        guest = self.guest_of(node, port)
        if guest is not None:
            return guest
        if port.node_port and port.kind != "VF":
            return self.nodes[node].port(NODE, port.node_port).name
        return {"UPLINK": f"wire {port.name}", "BONDED": f"wire {port.name}"}.get(port.kind, port.netdev or port.name)

    def next_of(self, node: str, port: PortOf) -> list[Place]:
        """The ports that what is sent out of a port comes in by next; none: nobody watches there."""
        if in_nic(port.pipeline):
            if port.kind in ("UPLINK", "BONDED"):
                return self._wires(node, port)
            return [(node, NODE, port.node_port)] if port.node_port else []
        return [
            (node, one.pipeline, one.id)
            for one in self.nodes[node].ports.values()
            if in_nic(one.pipeline) and one.node_port == port.id
        ]

    def _wires(self, node: str, port: PortOf) -> list[Place]:
        found = []
        for other, nic, name in self._ends[node, port.pipeline, port.name]:
            if other in self.nodes:
                found += [
                    (other, nic, one.id)
                    for one in self.nodes[other].ports.values()
                    if one.pipeline == nic and one.name == name and one.kind == "UPLINK"
                ]
        return found


def _ends(about: dict[str, Any]) -> dict[tuple[str, str, str], list[tuple[str, str, str]]]:
    """The NICs' ports that a frame may come out of which goes into one: the cable's other end, or all at a switch."""
    switches: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    ends: dict[tuple[str, str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for cable in about["cables"]:
        one, other = (_end(text) for text in cable["ends"])
        if one is not None and other is not None:
            ends[one].append(other)
            ends[other].append(one)
        elif one is not None:
            switches[cable["ends"][1]].append(one)
    for members in switches.values():
        for end in members:
            ends[end] += [each for each in members if each != end]
    return ends


def _end(text: str) -> tuple[str, str, str] | None:
    node, _, rest = text.partition("/")
    nic, slash, port = rest.partition("/")
    return (node, nic, port) if slash else None


def in_order(watch: LabWatch, ended: Callable[[], bool], settle: float) -> Iterator[Event | None]:
    """Events of all nodes in the order of their times, until *settle* seconds after *ended* is true.

    An event is given *settle* seconds after it came, as those of other nodes come later. None: nothing came for a
    while.
    """
    waiting: list[Event] = []
    last: float | None = None
    while True:
        watch.wait(settle / 4)
        waiting += watch.read()
        waiting.sort(key=lambda event: event[0])
        if last is None and ended():
            last = time.monotonic() + settle
        over = last is not None and time.monotonic() >= last
        horizon = time.monotonic_ns() - (0 if over else round(settle * 1e9))
        ripe = [event for event in waiting if event[0] <= horizon]
        waiting = waiting[len(ripe) :]
        yield from ripe
        if over:
            return
        yield None
