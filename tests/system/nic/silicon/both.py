# SPDX-License-Identifier: Apache-2.0
"""The eBPF program and the reference eSwitch, side by side."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import replace

from asap2.nic.conntrack.helpers import Expected
from asap2.nic.conntrack.states import NAT_MASK, TCP, UDP, TcpState, Timeouts
from asap2.nic.conntrack.tuples import Tuple
from asap2.nic.conntrack.view import Change
from asap2.nic.conntrack.view import Tuple as Shown
from asap2.nic.rules import Action
from asap2.nic.silicon import packet
from asap2.nic.silicon.abi import TRACED_LOOKUPS
from asap2.nic.silicon.metering import Limit, Metered
from asap2.nic.silicon.meters import MeterUse
from asap2.nic.silicon.pipeline import Pipeline, Port
from asap2.nic.silicon.reference import ReferenceSwitch
from asap2.nic.silicon.timeouts import TimeoutPolicy
from tests.system.nic.silicon import tracked
from tests.system.nic.silicon.conversations import SHORT_TCP, SHORT_UDP, ZONES
from tests.system.nic.silicon.programs import METERS, PLACES
from tests.system.nic.silicon.steps import (
    Add,
    Expect,
    Forget,
    LimitZone,
    NewReceiver,
    Remove,
    Replace,
    Send,
    SetMark,
    SetMeter,
    SetPorts,
    Step,
    Verify,
)

_BEGIN = 10**12
"""When the first packet comes, in nanoseconds."""


_SHORT_TCP = dict(Timeouts().tcp) | {TcpState.SYN_SENT: 2, TcpState.ESTABLISHED: 20, TcpState.TIME_WAIT: 1}
_SHORT = Timeouts(tcp=_SHORT_TCP, tcp_retrans=3, tcp_unacknowledged=4), Timeouts(udp=1, udp_stream=12)
POLICIES = (
    (SHORT_TCP, _SHORT[0], TimeoutPolicy(SHORT_TCP, 0, TCP, (*_SHORT_TCP.values(), 3, 4))),
    (SHORT_UDP, _SHORT[1], TimeoutPolicy(SHORT_UDP, 0, UDP, (1, 12))),
)
"""Timeout policies that actions name: as the reference has them, and as the program."""


class DifferenceError(AssertionError):
    """They differ, and how."""


class Both:
    """An empty pipeline that traces, and a reference. Every method raises :class:`DifferenceError`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.reference = ReferenceSwitch()
        self.reference.most_lookups = TRACED_LOOKUPS
        self._resumes = [0, *(pipeline.resumes.at(*place) for place in PLACES)]
        for number, place in zip(self._resumes[1:], PLACES, strict=True):
            self.reference.set_resume(number, *place)
        self.reference.now = _BEGIN
        self._zones: dict[int, int] = {}
        for name, timeouts, policy in POLICIES:
            pipeline.timeouts.put(policy)
            self.reference.tracker.timeouts[name] = timeouts
        self._meters = {number: pipeline.meters.number(MeterUse.OVS, number) for number in METERS}
        if self._meters != {number: number for number in METERS}:
            raise ValueError(f"the pipeline has meters already: {self._meters}")
        for number in METERS:
            pipeline.meters.hold(number)
        self._limited: set[int] = set()
        self._ports: dict[int, Port] = {}
        self._handles: dict[int, int] = {}
        self._actions: dict[int, tuple[Action, ...]] = {}
        self._drops = pipeline.drops()
        self._lookups = [pipeline.lookups(ovs) for ovs in (False, True)]
        self._untracked = self._out_of_memory()

    def run(self, steps: Iterable[Step]) -> None:
        """Do *steps* on both; what is counted is compared at the end. What a step is about may not be there."""
        try:
            for step in steps:
                self.do(step)
            self.check_counts()
        finally:
            self.clear()

    def do(self, step: Step) -> None:
        """Do one."""
        match step:
            case Send():
                self.send(step)
            case Add(number, rule):
                if self.pipeline.supports(rule) is not None:
                    raise ValueError(f"{self.pipeline.supports(rule)}: {rule}")
                try:
                    handle = self.pipeline.add(rule)
                except FileExistsError:
                    handle = 0
                try:
                    self.reference.add(rule, handle or None)
                except FileExistsError:
                    _same("a new rule", handle, 0)
                    return
                if not handle:
                    raise DifferenceError(f"only the program has such a rule already: {rule}")
                _same("the rule", *(replace(each, actions=()) for each in (self.pipeline.rule(handle), rule)))
                self._handles[number], self._actions[number] = handle, rule.actions
            case Replace(number, actions) if number in self._handles:
                self.pipeline.replace(self._handles[number], actions)
                self.reference.replace(self._handles[number], actions)
                self._actions[number] = actions
            case Remove(number) if number in self._handles:
                handle = self._handles.pop(number)
                got, expected = self.pipeline.remove(handle), self.reference.remove(handle)
                _same("counters of a removed rule", (got.packets, got.bytes), (expected.packets, expected.bytes))
            case Forget(place) | SetMark(place) | Expect(place):
                self._change_connection(step, place)
            case Verify(on):
                self._verify(on)
            case LimitZone(zone, limit):
                self._zones[zone] = limit
                self.pipeline.connections.limit_zones(0, self._zones)
                self.reference.tracker.limits = dict(self._zones)
            case SetMeter(number, limit):
                self._set_meter(number, limit)
            case NewReceiver():
                self.pipeline.upcalls.restart()
                self.reference.upcalls.restart()
            case SetPorts(ports, tunnel_ports, upcall_limit, option_kinds):
                self.pipeline.upcalls.limit = self.reference.upcalls.limit = upcall_limit
                self.pipeline.set_tunnel_ports(tunnel_ports)
                self.reference.set_tunnel_ports(tunnel_ports)
                kinds = dict(enumerate(option_kinds, 1))
                self.pipeline.set_option_kinds(kinds)
                self.reference.set_option_kinds(kinds)
                for port in ports:
                    self._ports[port.id] = port
                    self.pipeline.set_port(port)
                    self.reference.set_port(port)

    def _change_connection(self, step: Forget | SetMark | Expect, place: float) -> None:
        """What user space does to a connection."""
        self.reference.tracker.now = now = self.reference.now
        known = list(self.reference.tracker.connections())
        if not known:
            return
        theirs = known[int(place * len(known))]
        record = tracked.record_of(self.pipeline, tracked.told(theirs), now)
        ours = self.pipeline.connections._at(record, now) if record else None
        if ours is None:
            raise DifferenceError(f"only the reference has this connection: {tracked.told(theirs)}")
        match step:
            case Forget():
                self.reference.tracker.remove(theirs)
                _same("a connection that there was", self.pipeline.connections.delete(ours), True)
            case SetMark(mark=mark):
                theirs.mark = mark
                self.pipeline.connections.change(ours, Change(mark=mark))
            case Expect(_, port, reply, seconds):
                this, other = theirs.tuples[reply], theirs.tuples[1 - reply]
                one = Tuple(this.family, this.proto, other.src, other.dst, 0, port)
                back = Tuple(this.family, this.proto, this.src, this.dst, port, 0)
                changed = back if theirs.status & NAT_MASK and back != one.inverse() else None
                self.reference.tracker.expectations.add(theirs, one, changed, seconds, now)
                expected = Expected(_shown(one), _shown(changed) if changed else None)
                self.pipeline.connections.expect(record, expected, seconds, now)

    def _verify(self, on: bool) -> None:
        self.pipeline.connections.set("checksum", int(on))
        self.reference.tracker.checksums = on

    def _set_meter(self, number: int, limit: Limit | None) -> None:
        at = self._meters[number]
        if limit is None:
            self.pipeline.meters.clear(MeterUse.OVS, number)
        else:
            self.pipeline.meters.set(MeterUse.OVS, number, limit, fresh=Metered(), now=self.reference.now)
        self.reference.set_meter(at, limit)
        self._limited = self._limited - {number} if limit is None else self._limited | {number}

    def send(self, step: Send) -> None:
        """A packet in; everything that happens to it must be the same."""
        self.reference.now += step.later
        number, done = step.within or (0, 0)
        if step.within is None or number not in self._handles or not self._actions[number][done:]:
            self._send(step, self._resumes[step.resume])
            return
        handle, rest = self._handles[number], self._actions[number][done:]
        resume = self.pipeline.resume_within(handle, rest)
        self.reference.set_resume_within(resume, handle, rest)
        try:
            self._send(step, resume)
        finally:
            self.reference.end_resume(resume)
            self.pipeline.end_resume(resume)

    def _send(self, step: Send, resume: int) -> None:
        port = self._ports[step.port]
        came_in = step.came_in if port.metadata else None
        tag, rest = split(step.frame) if step.in_metadata else (None, step.frame)
        expected = self.reference.process(
            step.frame,
            step.port,
            segments=step.segments,
            flow_hash=step.flow_hash,
            came_in=came_in,
            resume=resume,
            tracked=dict(step.tracked),
            carried=step.carried,
        )
        got = self.pipeline.trace(
            rest,
            port,
            tag=tag,
            segments=step.segments,
            flow_hash=step.flow_hash,
            tunnel=came_in,
            resume=resume,
            tracked=dict(step.tracked),
            carried=step.carried,
            now=self.reference.now,
        )
        if got != expected:
            self._check_memory()
            _same("what happens", got, expected)

    def _out_of_memory(self) -> int:
        """Packets that the program has dropped because there was no memory for their connection."""
        return sum(cpu.drop for cpu in self.pipeline.connections.statistics())

    def _check_memory(self) -> None:
        """The program has had memory for every connection, as the reference has."""
        _same("packets without memory for their connection", self._out_of_memory() - self._untracked, 0)

    def check_counts(self) -> None:
        """All that was counted agrees."""
        self._check_memory()
        handles = list(self._handles.values())
        for handle, counted in zip(handles, self.pipeline.counters(handles), strict=True):
            expected = self.reference.counters(handle)
            _same("counters", (counted.packets, counted.bytes), (expected.packets, expected.bytes))
            if expected.packets:  # one whose packets a NIC has left to the node was used, too
                _same("whether it was used", bool(counted.used_ns), True)
        for number in self._limited:
            metered = self.pipeline.meters.counted(self._meters[number])
            _same("meters", metered, self.reference.metered(self._meters[number]))
        self.check_connections()
        drops = self.pipeline.drops()
        _same("drops", {name: drops[name] - self._drops[name] for name in drops}, self.reference.drops())
        for port_id in self._ports:
            _same("lost upcalls", self.pipeline.upcalls.counts(port_id).lost, self.reference.upcalls.lost(port_id))
        for ovs in (False, True):
            now, before = self.pipeline.lookups(ovs), self._lookups[ovs]
            expected_lookups = self.reference.lookups(ovs)
            got = now.hit - before.hit, now.missed - before.missed
            _same("lookups", got, (expected_lookups.hit, expected_lookups.missed))

    def check_connections(self) -> None:
        """Both know the same of every connection."""
        got = tracked.of_program(self.pipeline, self.reference.now)
        expected = tracked.of_reference(self.reference.tracker)
        for ours, theirs in zip(got, expected, strict=False):
            _same("a connection", ours, theirs)
        _same("connections", got[len(expected) :], expected[len(got) :])

    def clear(self) -> None:
        """Leave the program empty."""
        for handle in self.pipeline.rules:
            self.pipeline.remove(handle)
        for port in self.pipeline.ports:
            self.pipeline.remove_port(port)
        for number in METERS:
            self.pipeline.meters.clear(MeterUse.OVS, number)
        self.pipeline.set_tunnel_ports(())
        self.pipeline.set_option_kinds({})
        self.pipeline.upcalls.limit = 0
        self.pipeline.connections.limit_zones(0, {})
        self._verify(True)
        tracked.forget(self.pipeline, ZONES)


def split(frame: bytes) -> tuple[tuple[int, int] | None, bytes]:
    """The frame as it is received: its outer tag in the metadata. What a host sends may have it in the frame."""
    if not packet.tagged(frame) or len(frame) < packet.HEADER + 5:
        return None, frame
    return (int.from_bytes(frame[12:14], "big"), int.from_bytes(frame[14:16], "big")), frame[:12] + frame[16:]


def _shown(one: Tuple) -> Shown:
    family = socket.AF_INET if one.family == 4 else socket.AF_INET6
    return Shown(family, one.proto, one.src, one.dst, one.sport, one.dport)


def _same(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise DifferenceError(f"{what}:\n  program:   {got}\n  reference: {expected}")
