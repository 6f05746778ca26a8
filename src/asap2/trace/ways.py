# SPDX-License-Identifier: Apache-2.0
"""Putting events together to ways of packets.

Within one run of a program its number says which packet a record is of, and a copy says whose it is. From one program
to the next a packet is known by where it was sent and by its octets (:mod:`.identity`); to Open vSwitch and back by the
mark that it was given.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from asap2.nic import rule_data
from asap2.nic.rules import Rule
from asap2.nic.silicon import abi
from asap2.nic.silicon.events import DropReason, UpcallKind
from asap2.nic.silicon.watching import Record
from asap2.nic.watchers import NODE
from asap2.trace import steps
from asap2.trace.identity import holds, identity
from asap2.trace.known_rules import KnownRules
from asap2.trace.lab import Event, LabWatch, Place
from asap2.trace.model import Step, Way
from asap2.trace.node import NodeWatch, PortOf, Told, in_nic

_FORGOTTEN: Final = 5_000_000_000
"""Nanoseconds after which a packet that was sent somewhere is no longer expected there."""
_PATIENCE: Final = 1_000_000_000
"""Nanoseconds without an event after which a way is complete; a packet at Open vSwitch may take longer."""
_AT_SWITCH: Final = 10_000_000_000


@dataclass(slots=True)
class _Run:
    """One run of a program: the way that it belongs to, the port, and the packet as it came in."""

    way: Way
    port: PortOf
    frame: bytes
    began: int


@dataclass(slots=True)
class _Sent:
    """A packet that has left a program and is to come in at another place."""

    at: int
    way: Way
    frame: bytes
    identity: bytes


@dataclass(slots=True)
class _Upcall:
    """A packet that Open vSwitch has, or will have."""

    way: Way
    frame: bytes
    port: PortOf
    at: int
    given: bool = False
    done: bool = False


@dataclass(slots=True)
class _Seen:
    """A way, and when something last happened on it."""

    way: Way
    last: int
    waits: set[int] = field(default_factory=set)


class Ways:
    """Takes the events of *watch* in order; gives ways that are complete."""

    def __init__(self, watch: LabWatch, rules: KnownRules) -> None:
        self._watch, self._rules = watch, rules
        self._number = 0
        self._runs: dict[tuple[str, int], _Run] = {}
        self._sent: dict[Place, deque[_Sent]] = defaultdict(deque)
        self._loose: dict[str, deque[_Sent]] = defaultdict(deque)
        """What a node's own network stack has: it may go into a tunnel, or come out of one."""
        self._upcalls: dict[tuple[str, int], _Upcall] = {}
        self._handed_in: dict[str, tuple[int, int, Way]] = {}
        self._seen: dict[int, _Seen] = {}

    def take(self, event: Event) -> None:
        """Take one event."""
        _, node, what = event
        if isinstance(what, Told):
            self._hear(node, what)
        else:
            self._record(node, what)

    def complete(self, now: int | None) -> Iterator[Way]:
        """The ways on which nothing has happened lately; all, with None for the time in nanoseconds."""
        for number, seen in list(self._seen.items()):
            patience = _AT_SWITCH if seen.waits else _PATIENCE
            if now is None or now - seen.last > patience:
                del self._seen[number]
                seen.way.steps.sort(key=lambda step: step.at)
                yield seen.way
        if now is not None:
            self._forget(now - _FORGOTTEN)

    def _forget(self, before: int) -> None:
        for queue in (*self._sent.values(), *self._loose.values()):
            while queue and queue[0].at < before:
                queue.popleft()
        self._runs = {key: run for key, run in self._runs.items() if run.began >= before}
        self._upcalls = {key: one for key, one in self._upcalls.items() if one.at >= before - _AT_SWITCH}

    # ---- records of programs

    def _record(self, node: NodeWatch, record: Record) -> None:
        pipeline = node.pipelines[record.pipeline]
        key = node.name, record.way
        if record.event in (abi.EVENT_ENTER, abi.EVENT_ONWARD):
            port = node.port(pipeline, record.arg)
            if record.event == abi.EVENT_ENTER:
                way, new = self._came_in(node, port, record)
                self._add(way, steps.entered(self._watch, node.name, port, record, seen=not new))
            else:
                way = self._onward(node, port, record)
            self._runs[key] = _Run(way, port, record.frame, record.now)
            way.frames.append(record.frame)
            return
        run = self._runs.get(key)
        if run is None:  # the trace began in the middle of it
            return
        before = self._of_run(node, run, pipeline, record)
        if before is not None:
            self._add(run.way, before)

    def _of_run(self, node: NodeWatch, run: _Run, pipeline: str, record: Record) -> Step | None:
        match record.event:
            case abi.EVENT_MATCH:
                rule = self._rules.get(node, pipeline, record.arg)
                return steps.matched(self._watch, node.name, run.port, record, rule)
            case abi.EVENT_NO_MATCH:
                why = self._rules.why_not(node, run.port, record, run.frame)
                return steps.missed(self._watch, node.name, run.port, record, why)
            case abi.EVENT_TRACK:
                return steps.tracked(self._watch, node.name, run.port, record)
            case abi.EVENT_LEAVE:
                return steps.left(self._watch, node.name, run.port, record)
            case abi.EVENT_SEND:
                self._send(node, run, pipeline, record)
                return steps.sent(self._watch, node.name, run.port, node.port(pipeline, record.arg), record, run.frame)
            case abi.EVENT_PASS:
                if not record.arg:
                    self._loose[node.name].append(self._sending(run, record))
                return steps.passed(self._watch, node.name, run.port, record)
            case abi.EVENT_UPCALL:
                self._upcalls[node.name, record.arg] = _Upcall(run.way, record.frame, run.port, record.now)
                self._seen_of(run.way).waits.add(record.arg)
                return steps.upcalled(self._watch, node.name, run.port, record, UpcallKind(record.cookie))
            case abi.EVENT_DROP:
                reason = DropReason(record.arg) if record.arg in set(DropReason) else DropReason.RULE
                return steps.dropped(self._watch, node.name, run.port, record, reason)
            case _:
                return None

    def _came_in(self, node: NodeWatch, port: PortOf, record: Record) -> tuple[Way, bool]:
        """The way of a packet that has come in by a port, and whether it begins here."""
        wanted = identity(record.frame)
        queue = self._sent[node.name, port.pipeline, port.id]
        for sent in queue:
            if sent.identity == wanted:
                queue.remove(sent)
                return sent.way, False
        loose = self._loose[node.name]
        for sent in loose:
            if sent.identity == wanted or holds(record.frame, sent.frame) or holds(sent.frame, record.frame):
                loose.remove(sent)
                return sent.way, False
        self._number += 1
        way = Way(self._number, record.frame, record.length, self._watch.title(node.name, port))
        return way, True

    def _onward(self, node: NodeWatch, port: PortOf, record: Record) -> Way:
        """The way of a copy, or of a packet that Open vSwitch hands in."""
        if record.cookie:
            run = self._runs.get((node.name, record.cookie))
            if run is not None:
                return run.way
        began, ended, way = self._handed_in.get(node.name, (0, 0, None))
        if way is not None and began <= record.now <= ended:
            return way
        self._number += 1
        way = Way(self._number, record.frame, record.length, f"Open vSwitch of {node.name}")
        self._add(way, steps.handed_in(self._watch, node.name, port, record.now))
        return way

    @staticmethod
    def _sending(run: _Run, record: Record) -> _Sent:
        return _Sent(record.now, run.way, record.frame, identity(record.frame))

    def _send(self, node: NodeWatch, run: _Run, pipeline: str, record: Record) -> None:
        run.way.frames.append(record.frame)
        target = node.port(pipeline, record.arg)
        guest = self._watch.guest_of(node.name, target) if in_nic(pipeline) else None
        if guest is not None:
            run.way.targets.append(guest)
            return
        places = self._watch.next_of(node.name, target)
        for place in places:
            self._sent[place].append(self._sending(run, record))
        if not places and not in_nic(pipeline):
            self._loose[node.name].append(self._sending(run, record))
            if target.kind == "INTERNAL":
                run.way.targets.append(f"{target.name} of {node.name}")

    # ---- what daemons tell

    def _hear(self, node: NodeWatch, told: Told) -> None:
        data = told.data
        if told.what == "given":
            upcall = self._upcalls.get((node.name, data["mark"]))
            if upcall is not None:
                upcall.given = True
                self._add(upcall.way, steps.given(node.name, upcall.port, told.at))
        elif told.what == "executed":
            upcall = self._upcalls.get((node.name, data["mark"])) if data["mark"] is not None else None
            port = node.port(NODE, data["port"])
            if upcall is not None:
                upcall.done = True
                self._seen_of(upcall.way).waits.discard(data["mark"])
                self._handed_in[node.name] = data["began"], told.at, upcall.way
                self._add(upcall.way, steps.handed_in(self._watch, node.name, port, data["began"]))
        elif told.what in ("filter", "flow"):
            self._ruled(node, told)

    def _ruled(self, node: NodeWatch, told: Told) -> None:
        """Open vSwitch, or somebody else, has put rules: they belong to the packet that they match, if it waits."""
        found: list[tuple[str, Rule]] = []
        for one in told.data["rules"]:
            rule = rule_data.to_rule(one["rule"])
            self._rules.put(node, one["pipeline"], one["handle"], rule, told.at)
            found.append((one["pipeline"], rule))
        waiting = [one for (name, _), one in self._upcalls.items() if name == node.name and one.given and not one.done]
        for upcall in sorted(waiting, key=lambda one: one.at, reverse=True):
            if any(self._rules.covers(rule, upcall.frame) for _, rule in found):
                self._add(upcall.way, steps.ruled(self._watch, node, upcall.port, told, found))
                return

    # ---- ways

    def _seen_of(self, way: Way) -> _Seen:
        return self._seen.setdefault(way.number, _Seen(way, 0))

    def _add(self, way: Way, step: Step) -> None:
        seen = self._seen_of(way)
        seen.last = max(seen.last, step.at)
        way.steps.append(step)
