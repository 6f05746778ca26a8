# SPDX-License-Identifier: Apache-2.0
"""The reference eSwitch: what the eBPF program must do, in plain Python. It defines what is right.

A packet comes in by a port and is looked up in the port's tables in turn (the *stages*):

* No rule matches: the next stage. It starts in the chain where this one stopped: after a ``Goto(5)`` that found
  nothing in TC, Open vSwitch goes on with recirculation id 5, as the kernel does with tc_skb_ext. After the last
  stage the port's ``miss`` decides. The packet is then as the actions so far have left it.
* A rule matches: it counts the packet, with its tags, and its actions are done in order. :class:`Goto` looks up again
  in the same stage; :class:`Pass` ends the stage, and the next starts in its own table; after the last, the packet
  goes on to the network stack.
* The action list ends: so does the packet. If it was never sent anywhere, that is a drop by the rule.

A packet has at most :data:`LOOKUPS` lookups. One that would need more is dropped.

Which rule: the smallest priority number; within it, the rule whose mask is older among the masks of that table, port
and priority. A mask is as old as the oldest time since which there has always been a rule with it.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from asap2.nic.rules import (
    OVS_TABLE,
    Action,
    Counters,
    Drop,
    Goto,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    PushVlan,
    Rule,
    Truncate,
    Upcall,
)
from asap2.nic.silicon import packet
from asap2.nic.silicon.events import (
    Dropped,
    DropReason,
    Event,
    LookupStats,
    Matched,
    Passed,
    Sent,
    Upcalled,
    UpcallKind,
)
from asap2.nic.silicon.ports import Miss, Port

LOOKUPS = 8
"""Lookups that one packet may have, in all stages together."""

_Mask = frozenset[tuple[str, int]]


@dataclass(eq=False)
class _Entry:
    handle: int
    rule: Rule
    packets: int = 0
    bytes: int = 0

    @property
    def mask(self) -> _Mask:
        return frozenset((name, masked.mask) for name, masked in self.rule.match.used().items())

    def matches(self, fields: dict[str, int]) -> bool:
        return all(masked.covers(fields.get(name, 0)) for name, masked in self.rule.match.used().items())


class ReferenceSwitch:
    """Ports, rules, and what they do to a frame. The interface is that of the eBPF pipeline."""

    def __init__(self, *, upcall: bool = True) -> None:
        self.upcall = upcall
        self._ports: dict[int, Port] = {}
        self._entries: dict[int, _Entry] = {}
        self._masks: dict[tuple[int, int, int], list[_Mask]] = {}
        self._next = 1
        self._drops = dict.fromkeys(DropReason, 0)
        self._lookups = {True: [0, 0], False: [0, 0]}

    # ---- ports and rules ----

    def set_port(self, port: Port) -> None:
        """Make *port* exist, or change it."""
        self._ports[port.id] = port

    def remove_port(self, port_id: int) -> None:
        """Make it not exist."""
        del self._ports[port_id]

    def add(self, rule: Rule, handle: int | None = None) -> int:
        """Add *rule*, under *handle* if given. OSError EEXIST when table, port, priority, mask and value are taken."""
        entry = _Entry(handle or self._next, rule)
        for other in self._entries.values():
            if _place(other.rule) == _place(rule) and other.rule.match.used() == rule.match.used():
                raise OSError(errno.EEXIST, "there is such a rule already")
        masks = self._masks.setdefault(_place(rule), [])
        if entry.mask not in masks:
            masks.append(entry.mask)
        self._entries[entry.handle] = entry
        self._next = max(self._next, entry.handle) + 1
        return entry.handle

    def replace(self, handle: int, actions: tuple[Action, ...]) -> None:
        """Give a rule other actions; its counters go on."""
        entry = self._entries[handle]
        rule = entry.rule
        entry.rule = Rule(rule.table, rule.in_port, rule.priority, rule.match, actions)

    def remove(self, handle: int) -> Counters:
        """Remove a rule; what it has counted."""
        entry = self._entries.pop(handle)
        place = _place(entry.rule)
        if not any(_place(e.rule) == place and e.mask == entry.mask for e in self._entries.values()):
            self._masks[place].remove(entry.mask)
        return Counters(entry.packets, entry.bytes)

    def counters(self, handle: int) -> Counters:
        """What a rule has counted; no time of use."""
        entry = self._entries[handle]
        return Counters(entry.packets, entry.bytes)

    def drops(self) -> dict[str, int]:
        """Packets dropped, by reason."""
        return {reason.name.lower(): count for reason, count in self._drops.items()}

    def lookups(self, ovs: bool) -> LookupStats:
        """Lookups in Open vSwitch tables or in TC chains that found a rule, and that did not."""
        return LookupStats(*self._lookups[ovs])

    # ---- packets ----

    def process(self, frame: bytes, port_id: int, *, segments: int = 1) -> list[Event]:
        """All that happens to *frame*, which came in by a port. A super-packet stands for several *segments*."""
        events: list[Event] = []
        for event in self._run(frame, self._ports[port_id], segments):
            if isinstance(event, Dropped):
                self._drops[event.reason] += 1
            events.append(event)
        return events

    def _run(self, frame: bytes, port: Port, segments: int) -> Iterator[Event]:
        if not port.enabled:
            yield Dropped(DropReason.IN_PORT)
            return
        if len(frame) < packet.HEADER:
            yield Dropped(DropReason.SHORT)
            return
        if not port.tables:
            yield from self._miss(frame, port, 0)
            return
        stage, table = 0, port.tables[0]
        for _ in range(LOOKUPS):
            entry = self._lookup(table, port.id, frame)
            if entry is None:
                chain = table & ~OVS_TABLE
                passed = False
            else:
                entry.packets += segments
                entry.bytes += len(frame)
                yield Matched(entry.handle, table)
                done = yield from self._act(entry.rule.actions, frame, port, table)
                if done is None:
                    return
                frame, following = done
                if following is not None:
                    table = following
                    continue
                chain = 0
                passed = True
            stage += 1
            if stage < len(port.tables):
                table = port.tables[stage] | chain
                continue
            if passed:
                yield Passed(frame)
            else:
                yield from self._miss(frame, port, table)
            return
        yield Dropped(DropReason.LOOP)

    def _lookup(self, table: int, in_port: int, frame: bytes) -> _Entry | None:
        fields = packet.parse(frame)
        found = [
            entry
            for entry in self._entries.values()
            if (entry.rule.table, entry.rule.in_port) == (table, in_port) and entry.matches(fields)
        ]
        self._lookups[bool(table & OVS_TABLE)][0 if found else 1] += 1
        return min(found, key=self._rank, default=None)

    def _rank(self, entry: _Entry) -> tuple[int, int]:
        return entry.rule.priority, self._masks[_place(entry.rule)].index(entry.mask)

    def _act(
        self, actions: tuple[Action, ...], frame: bytes, port: Port, table: int
    ) -> Generator[Event, None, tuple[bytes, int | None] | None]:
        """Do *actions*. ``None``: the packet ends here. Else the frame, and the table to go to (``None`` for Pass)."""
        sent = False
        cut: int | None = None
        for action in actions:
            match action:
                case Output(to):
                    yield self._send(_shortened(frame, cut), to)
                    sent, cut = True, None
                case Upcall(cookie):
                    yield self._give(UpcallKind.ACTION, frame, port, table, cookie, cut or 0)
                    sent, cut = True, None
                case PushVlan(vid, pcp, tpid):
                    frame = packet.push_vlan(frame, tpid, pcp << 13 | vid)
                case PopVlan() | ModifyVlan():
                    try:
                        frame = _retagged(frame, action)
                    except packet.CutTagError:
                        yield Dropped(DropReason.ACTION)
                        return None
                case Truncate(length):
                    cut = length
                case Goto(following):
                    return frame, following
                case Pass():
                    return frame, None
                case Drop():
                    yield Dropped(DropReason.RULE)
                    return None
                case _:
                    raise ValueError(f"no such action in the eSwitch: {action}")
        if not sent:
            yield Dropped(DropReason.RULE)
        return None

    def _send(self, frame: bytes, to: int) -> Event:
        port = self._ports.get(to)
        if port is None or not port.enabled or not port.ifindex:
            return Dropped(DropReason.OUT_PORT)
        return Sent(to, frame)

    def _give(self, kind: UpcallKind, frame: bytes, port: Port, table: int, cookie: int, max_length: int) -> Event:
        """User space itself cuts a packet that is to be cut: it gets the length."""
        if not self.upcall:
            return Dropped(DropReason.UPCALL)
        return Upcalled(kind, port.id, table, cookie, max_length, frame)

    def _miss(self, frame: bytes, port: Port, table: int) -> Iterator[Event]:
        match port.miss:
            case Miss.REDIRECT:
                yield self._send(frame, port.miss_port)
            case Miss.UPCALL:
                yield self._give(UpcallKind.MISS, frame, port, table, 0, 0)
            case Miss.PASS:
                yield Passed(frame)
            case Miss.DROP:
                yield Dropped(DropReason.MISS)


def _place(rule: Rule) -> tuple[int, int, int]:
    return rule.table, rule.in_port, rule.priority


def _shortened(frame: bytes, length: int | None) -> bytes:
    """The outer tag does not count: it is in the packet's metadata. (The kernel refuses to cut inside its headers.)"""
    if length is None:
        return frame
    return frame[: length + 4 if packet.tagged(frame) else length]


def _retagged(frame: bytes, action: PopVlan | ModifyVlan) -> bytes:
    if isinstance(action, PopVlan):
        return packet.pop_vlan(frame)
    return packet.modify_vlan(frame, action.tpid, action.pcp << 13 | action.vid)
