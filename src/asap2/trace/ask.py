# SPDX-License-Identifier: Apache-2.0
"""What would happen to a packet: as `ovs-appctl ofproto/trace`, for NICs. Nothing is sent, and no counter moves.

The rules are those that the daemons have now. What they do is worked out by the reference eSwitch in plain Python, with
which the eBPF program is compared. It knows no connections, so a packet counts as the first of a new one; no meter is
over its limit; and where Open vSwitch would be asked, the way ends.
"""

from __future__ import annotations

from asap2.errors import UsageError
from asap2.nic import rule_data
from asap2.nic.rules import Goto, Rule
from asap2.nic.silicon import abi, packet
from asap2.nic.silicon.events import Dropped, Matched, Passed, Sent, Upcalled
from asap2.nic.silicon.reference import ReferenceSwitch
from asap2.nic.silicon.watching import Record
from asap2.trace import steps
from asap2.trace.known_rules import KnownRules
from asap2.trace.lab import LabWatch, Place
from asap2.trace.model import Way
from asap2.trace.node import NodeWatch, PortOf, in_nic

_MOST_PLACES = 64
"""Programs that one packet may pass: a lab has no longer way, but rules may lead in a circle."""


def frame_of(text: str) -> bytes:
    """The frame that *text* has in hexadecimal, with or without separators. UsageError."""
    digits = "".join(text.replace(":", " ").split()).removeprefix("0x")
    try:
        frame = bytes.fromhex(digits)
    except ValueError:
        raise UsageError("--packet wants a frame in hexadecimal, as `tcpdump -xx` prints it") from None
    if len(frame) < packet.HEADER:
        raise UsageError(f"an Ethernet frame has {packet.HEADER} octets at least, not {len(frame)}")
    return frame


def would_happen(watch: LabWatch, place: Place, frame: bytes) -> Way:
    """The way of *frame*, had it come in at a port. Times are numbers of steps. Asap2Error: a daemon is gone."""
    return _Asked(watch, frame).run(place)


_Next = tuple[Place, bytes, int]
"""Where a packet comes in next, how it is then, and where the NIC has said that it goes on."""


class _Asked:
    """One question."""

    def __init__(self, watch: LabWatch, frame: bytes) -> None:
        self._watch, self._frame = watch, frame
        self._rules = KnownRules()
        self._switches: dict[tuple[str, str], ReferenceSwitch] = {}
        self._now = 0

    def run(self, place: Place) -> Way:
        node, pipeline, number = place
        origin = self._watch.title(node, self._watch.nodes[node].port(pipeline, number))
        way = Way(1, self._frame, len(self._frame), origin)
        waiting: list[_Next] = [(place, self._frame, 0)]
        for _ in range(_MOST_PLACES):
            if not waiting:
                break
            at, frame, resume = waiting.pop(0)
            waiting += self._pass(way, at, frame, resume, first=at == place and not way.steps)
        return way

    def _switch(self, node: NodeWatch, pipeline: str) -> ReferenceSwitch:
        known = self._switches.get((node.name, pipeline))
        if known is not None:
            return known
        switch, settings = ReferenceSwitch(), node.settings(pipeline)
        for port in settings["ports"]:
            switch.set_port(rule_data.to_port(port))
        rules = node.rules(pipeline)
        for handle, rule in rules.items():
            switch.add(rule, handle)
        self._rules.know(node, pipeline, rules, whole=True)
        switch.set_tunnel_ports(tuple(settings["tunnel_ports"]))
        switch.set_option_kinds({int(kind): bytes.fromhex(head) for kind, head in settings["option_kinds"].items()})
        for number, (table, port_id) in settings["resumes"].items():
            switch.set_resume(int(number), table, port_id)
        for number, (handle, actions) in settings["within"].items():
            switch.set_resume_within(int(number), handle, rule_data.to_actions(actions))
        self._switches[node.name, pipeline] = switch
        return switch

    def _record(self, event: int, arg: int, frame: bytes = b"", table: int = 0) -> Record:
        self._now += 1
        return Record(self._now, 0, 0, event, arg, table, 0, len(frame), 0, 0, frame)

    def _pass(self, way: Way, place: Place, frame: bytes, resume: int, *, first: bool) -> list[_Next]:
        """Have one program handle the packet; where it comes in next."""
        node = self._watch.nodes[place[0]]
        port = node.port(*place[1:])
        switch = self._switch(node, port.pipeline)
        entered = self._record(abi.EVENT_ENTER, port.id, frame)
        way.steps.append(steps.entered(self._watch, node.name, port, entered, seen=not first))
        following: list[_Next] = []
        table: int | None = port.tables[0] if port.tables and not resume else None
        for event in switch.process(frame, port.id, resume=resume):
            if table is not None and isinstance(event, Sent | Upcalled | Passed):
                self._missed(way, node, port, frame, table)
                table = None
            match event:
                case Matched(handle, at):
                    rule = self._rules.get(node, port.pipeline, handle)
                    record = self._record(abi.EVENT_MATCH, handle, table=at)
                    way.steps.append(steps.matched(self._watch, node.name, port, record, rule))
                    table = _after(rule)
                case Sent(to, out, _, told):
                    target = node.port(port.pipeline, to)
                    record = self._record(abi.EVENT_SEND, to, out)
                    way.steps.append(steps.sent(self._watch, node.name, port, target, record, frame))
                    following += self._onward(way, node, target, out, told)
                case Upcalled(kind):
                    record = self._record(abi.EVENT_UPCALL, 0, frame)
                    way.steps.append(steps.upcalled(self._watch, node.name, port, record, kind))
                case Dropped(reason):
                    record = self._record(abi.EVENT_DROP, reason, frame)
                    way.steps.append(steps.dropped(self._watch, node.name, port, record, reason))
                case Passed():
                    way.steps.append(steps.passed(self._watch, node.name, port, self._record(abi.EVENT_PASS, 0, frame)))
                case _:
                    continue
        return following

    def _missed(self, way: Way, node: NodeWatch, port: PortOf, frame: bytes, table: int) -> None:
        """No rule of the tables from *table* on is for the packet."""
        tables = port.tables[port.tables.index(table) :] if table in port.tables else (table,)
        for each in tables:
            record = self._record(abi.EVENT_NO_MATCH, 0, table=each)
            why = self._rules.why_not(node, port, record, frame)
            way.steps.append(steps.missed(self._watch, node.name, port, record, why))

    def _onward(self, way: Way, node: NodeWatch, target: PortOf, frame: bytes, told: int) -> list[_Next]:
        guest = self._watch.guest_of(node.name, target) if in_nic(target.pipeline) else None
        if guest is not None:
            way.targets.append(guest)
            return []
        if not in_nic(target.pipeline) and target.kind == "INTERNAL":
            way.targets.append(f"{target.name} of {node.name}")
        return [
            (place, frame, told)
            for place in self._watch.next_of(node.name, target)
            if place[1:] in self._watch.nodes[place[0]].ports
        ]


def _after(rule: Rule | None) -> int | None:
    """The table that a rule sends packets on to; None: none."""
    last = rule.actions[-1] if rule is not None and rule.actions else None
    return last.table if isinstance(last, Goto) else None
