# SPDX-License-Identifier: Apache-2.0
"""Capturing packets at ports of several nodes, the inside of the eSwitch included.

A port is where a frame goes between a NIC's eSwitch and what is outside of it: a guest's VF, a representor, the wire;
or a device of a node that only its own pipeline knows, as an internal port of Open vSwitch. A frame between two VFs
that the NIC carries is seen at both, though no socket of the host ever sees it. At a representor it is seen as a
program in the node would see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from asap2.errors import UsageError
from asap2.nic.silicon import abi
from asap2.nic.silicon.events import DropReason
from asap2.nic.silicon.watching import Record
from asap2.trace import steps, words
from asap2.trace.known_rules import KnownRules, table_title
from asap2.trace.lab import Event, LabWatch
from asap2.trace.node import NodeWatch, PortOf, Told, in_nic
from asap2.trace.pcapng import INBOUND, OUTBOUND

Key = tuple[str, str, int]
"""Node, pipeline and id of a port."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A port that is captured: *name* is ``NODE/PORT`` or a guest's, *about* what it is."""

    key: Key
    name: str
    about: str


@dataclass(frozen=True, slots=True)
class Captured:
    """A packet at a port: *at* in nanoseconds of CLOCK_MONOTONIC; *comment* begins with "eSwitch" or "slow path"."""

    at: int
    key: Key
    frame: bytes
    length: int
    direction: int
    comment: str


@dataclass(slots=True)
class _Run:
    """One run of a program, until it is over."""

    node: NodeWatch
    port: PortOf
    began: int
    seen: list[tuple[Record, PortOf]] = field(default_factory=list)
    rules: list[Record] = field(default_factory=list)
    missed: Record | None = None
    left: bool = False
    dropped: DropReason | None = None


def interfaces(watch: LabWatch) -> list[Interface]:
    """Every port of the lab that there is something to capture at."""
    found = []
    for node in watch.nodes.values():
        ends = {port.node_port for port in node.ports.values() if in_nic(port.pipeline)}
        for port in sorted(node.ports.values(), key=lambda one: (one.pipeline, one.id)):
            if in_nic(port.pipeline) or (port.tables and port.id not in ends):
                found.append(_interface(watch, node, port))
    return found


def _interface(watch: LabWatch, node: NodeWatch, port: PortOf) -> Interface:
    key = node.name, port.pipeline, port.id
    guest = watch.guest_of(node.name, port)
    if guest is not None:
        return Interface(key, guest, f"{guest} by VF {port.netdev} of {node.name}")
    if port.kind in ("UPLINK", "BONDED"):
        return Interface(key, f"{node.name}/{port.pipeline}/{port.name}", f"the wire of {port.pipeline} of {node.name}")
    title = watch.title(node.name, port)
    what = {"REP": f"the representor of VF {port.netdev}", "UPLINK_REP": "the uplink's representor"}
    about = what.get(port.kind, "internal port" if port.kind == "INTERNAL" else "device")
    return Interface(key, f"{node.name}/{title}", f"{about} in {node.name}")


def chosen(every: Sequence[Interface], names: Sequence[str]) -> list[Interface]:
    """The interfaces that *names* ask for: of a guest, a node, or one by its name; without names, all. UsageError."""
    if not names:
        return list(every)
    found: list[Interface] = []
    for name in names:
        some = [one for one in every if one.name == name or one.name.startswith(f"{name}/")]
        if not some:
            known = ", ".join(one.name for one in every)
            raise UsageError(f"there is no port {name}; there are {known}")
        found += [one for one in some if one not in found]
    return found


class Capture:
    """Takes the events of *watch* in order; gives packets at the ports *wanted*."""

    def __init__(self, watch: LabWatch, rules: KnownRules, wanted: Sequence[Interface]) -> None:
        self._watch, self._rules = watch, rules
        self._wanted = {one.key for one in wanted}
        self._runs: dict[tuple[str, int], _Run] = {}

    def take(self, event: Event) -> None:
        """Take one event."""
        _, node, what = event
        if isinstance(what, Told):
            return
        pipeline = node.pipelines[what.pipeline]
        key = node.name, what.way
        if what.event in (abi.EVENT_ENTER, abi.EVENT_ONWARD):
            port = node.port(pipeline, what.arg)
            self._runs[key] = run = _Run(node, port, what.now)
            if what.event == abi.EVENT_ENTER:
                run.seen.append((what, port))
            return
        found = self._runs.get(key)
        if found is None:
            return
        match what.event:
            case abi.EVENT_SEND:
                found.seen.append((what, node.port(pipeline, what.arg)))
            case abi.EVENT_MATCH:
                found.rules.append(what)
            case abi.EVENT_NO_MATCH:
                found.missed = what
            case abi.EVENT_LEAVE:
                found.left = True
            case abi.EVENT_DROP:
                found.dropped = DropReason(what.arg)

    def over(self, before: int | None) -> Iterator[Captured]:
        """The packets of runs that began *before* a time, in nanoseconds, in their order; all with None."""
        done = [key for key, run in self._runs.items() if before is None or run.began < before]
        packets = [packet for key in done for packet in self._packets(self._runs.pop(key))]
        yield from sorted(packets, key=lambda packet: packet.at)

    def _packets(self, run: _Run) -> Iterator[Captured]:
        comment = self._comment(run)
        for record, port in run.seen:
            key = run.node.name, port.pipeline, port.id
            if key in self._wanted:
                entered = record.event == abi.EVENT_ENTER
                direction = INBOUND if entered == _from_outside(port) else OUTBOUND
                yield Captured(record.now, key, record.frame, record.length, direction, comment)

    def _comment(self, run: _Run) -> str:
        """Whether the eSwitch carries the packet, or it is on the slow path; and the rule."""
        nic = in_nic(run.port.pipeline)
        from_node = nic and run.port.kind in ("REP", "UPLINK_REP", "PF")
        carried = nic and not from_node and bool(run.rules) and not run.left and run.missed is None
        where = "eSwitch" if carried else "slow path"
        parts = [self._rule(run, record) for record in run.rules]
        if run.missed is not None:
            parts.append(f"no rule in {table_title(run.port.pipeline, run.missed.table)} is for it")
        if run.left:
            parts.append("the node goes on with it")
        if from_node:
            parts.append("sent by the node")
        if run.dropped is not None:
            parts.append(f"dropped: {steps.DROPS[run.dropped]}")
        return f"{where}: {'; '.join(parts)}" if parts else where

    def _rule(self, run: _Run, record: Record) -> str:
        node, pipeline = run.node, run.port.pipeline
        rule = self._rules.get(node, pipeline, record.arg)
        if rule is None:
            return f"rule {record.arg}, which is no more"

        def named(number: int) -> str:
            return self._watch.title(node.name, node.port(pipeline, number))

        wants = ", ".join(words.match(rule)) or "anything"
        does = ", ".join(words.actions(rule, named))
        return f"rule {record.arg} in {table_title(pipeline, rule.table)}, {wants}: {does}"


def _from_outside(port: PortOf) -> bool:
    """Whether what comes into a program by a port is what its device receives; else it is what the device sends."""
    return port.kind in ("UPLINK", "BONDED") if in_nic(port.pipeline) else port.kind != "INTERNAL"
