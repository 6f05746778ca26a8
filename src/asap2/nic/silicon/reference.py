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

Tunnels: a packet is in one when it came in by an uplink and its headers say so (:func:`.tunnel.look_into`), or when it
came in by a tunnel device of the kernel's with the metadata of a tunnel. Such a packet is looked up twice, which counts
once: among the rules that match on a tunnel, by the fields of what is inside and of the tunnel; then, when none
matches, among the others, by the packet's own headers. Rules that match on a tunnel match no other packet.

A NIC that does not finish a packet leaves a number with it that says what the node is to do (``resume``): the number of
an output's, or where no rule matches, of the last Goto or Enter. What it means, the node's pipeline was told
(:meth:`ReferenceSwitch.set_resume`): a packet that comes in with it by a port that ``resumes`` starts at another chain
of its first table, perhaps as if it came in by another port, or goes to a port at once.

User space gets a packet only where its port has less than ``upcall_limit`` units on their way there: those of packets
that user space is not done with. A packet is one unit, and one more for each :data:`UPCALL_UNIT` bytes of it.

Each output gets the packet as it is by then. What the kernel's flow hash decides, the source port of a tunnel, the
caller decides by giving that hash.
"""

from __future__ import annotations

import errno
from bisect import insort
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

from asap2.nic.rules import (
    OVS_TABLE,
    Action,
    AddTtl,
    Counters,
    Decap,
    Drop,
    Encap,
    Enter,
    Goto,
    Match,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    PushVlan,
    Rule,
    SetField,
    SetTunnel,
    Truncate,
    Upcall,
)
from asap2.nic.silicon import packet, tunnel
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
from asap2.nic.silicon.packet import Fields
from asap2.nic.silicon.ports import Miss, Port, PortKind
from asap2.nic.silicon.resumes import DELIVER
from asap2.nic.silicon.rewrite import rewrite

LOOKUPS = 8
"""Lookups that one packet may have, in all stages together."""

UPCALL_UNIT = 2048
"""Bytes of a packet that make another unit of what its port has on its way to user space."""

_Place = tuple[int, int, int]
_Mask = frozenset[tuple[str, int]]


class _Entry:
    """A rule. *order* says which of several that match decides: by priority, then by age of the mask."""

    def __init__(self, handle: int, rule: Rule, age: int) -> None:
        self.handle = handle
        self.rule = rule
        self.age = age
        self.order = (rule.priority, age)
        self.packets = self.bytes = 0
        self._tests = [(name, masked.mask, masked.value) for name, masked in rule.match.used().items()]

    def matches(self, fields: Fields) -> bool:
        return all(fields.get(name, 0) & mask == value for name, mask, value in self._tests)


class _Masks:
    """The masks of the rules of one place, and how old each is."""

    def __init__(self) -> None:
        self._ages: dict[_Mask, int] = {}
        self._rules: dict[_Mask, int] = {}
        self._next = 0

    def hold(self, mask: _Mask) -> int:
        """One more rule has *mask*; its age, a smaller number for an older mask."""
        if mask not in self._ages:
            self._ages[mask], self._rules[mask] = self._next, 0
            self._next += 1
        self._rules[mask] += 1
        return self._ages[mask]

    def drop(self, mask: _Mask) -> None:
        """One rule less has it."""
        self._rules[mask] -= 1
        if not self._rules[mask]:
            del self._ages[mask], self._rules[mask]


@dataclass
class _Packet:
    """A packet on its way. *came_in* is the metadata of the tunnel that the kernel took it out of, *goes_into* that of
    the tunnel that the kernel is to put it into."""

    frame: bytes
    segments: int
    flow_hash: int
    came_in: SetTunnel | None
    goes_into: SetTunnel | None = None
    resume: int = 0
    """What the node is told when no rule matches."""


class ReferenceSwitch:
    """Ports, rules, and what they do to a frame. The interface is that of the eBPF pipeline."""

    def __init__(self, *, upcall: bool = True) -> None:
        self.upcall = upcall
        self.upcall_limit = 0
        """Units that each port may have on their way to user space; 0: any number."""
        self._on_their_way: dict[int, int] = {}
        self._lost: dict[int, int] = {}
        self._ports: dict[int, Port] = {}
        self._entries: dict[int, _Entry] = {}
        self._lists: dict[tuple[int, int, bool], list[_Entry]] = {}
        self._masks: dict[_Place, _Masks] = {}
        self._resumes: dict[int, tuple[int, int]] = {}
        self._tunnel_ports: tuple[int, ...] = ()
        self._taken: set[tuple[_Place, Match]] = set()
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
        self._on_their_way.pop(port_id, None)
        self._lost.pop(port_id, None)

    def new_receiver(self) -> None:
        """Another process takes user space's part: what was on its way is lost."""
        for port_id, units in self._on_their_way.items():
            self._lost[port_id] = self.lost(port_id) + units
        self._on_their_way.clear()

    def lost(self, port_id: int) -> int:
        """Packets of a port that user space should have got, and did not."""
        return self._lost.get(port_id, 0)

    def set_tunnel_ports(self, ports: tuple[int, ...]) -> None:
        """VXLAN comes to these UDP ports, besides 4789; 0 is none."""
        self._tunnel_ports = ports

    def set_resume(self, number: int, table: int, port: int = 0) -> None:
        """Say what *number* with a packet means; *table* and *port* as in :meth:`.resumes.Resumes.at`."""
        self._resumes[number] = table, port

    def add(self, rule: Rule, handle: int | None = None) -> int:
        """Add *rule*, under *handle* if given. OSError EEXIST when table, port, priority, mask and value are taken."""
        place = _place(rule)
        if (place, rule.match) in self._taken:
            raise OSError(errno.EEXIST, "there is such a rule already")
        self._taken.add((place, rule.match))
        age = self._masks.setdefault(place, _Masks()).hold(_mask(rule.match))
        entry = _Entry(handle or self._next, rule, age)
        insort(self._lists.setdefault(_list(rule), []), entry, key=lambda e: e.order)
        self._entries[entry.handle] = entry
        self._next = max(self._next, entry.handle) + 1
        return entry.handle

    def replace(self, handle: int, actions: tuple[Action, ...]) -> None:
        """Give a rule other actions; its counters go on."""
        entry = self._entries[handle]
        entry.rule = replace(entry.rule, actions=actions)

    def remove(self, handle: int) -> Counters:
        """Remove a rule; what it has counted."""
        entry = self._entries.pop(handle)
        rule = entry.rule
        self._taken.remove((_place(rule), rule.match))
        self._masks[_place(rule)].drop(_mask(rule.match))
        self._lists[_list(rule)].remove(entry)
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

    def process(
        self,
        frame: bytes,
        port_id: int,
        *,
        segments: int = 1,
        flow_hash: int = 0,
        came_in: SetTunnel | None = None,
        resume: int = 0,
    ) -> list[Event]:
        """All that happens to *frame*, which came in by a port. A super-packet stands for several *segments*.

        *flow_hash* is the kernel's hash of its flow, *came_in* the metadata with which it came from a tunnel device,
        *resume* the number that a NIC has left with it.
        """
        events: list[Event] = []
        for event in self._run(_Packet(frame, segments, flow_hash, came_in), self._ports[port_id], resume):
            if isinstance(event, Dropped):
                self._drops[event.reason] += 1
            events.append(event)
        return events

    def look(self, frame: bytes) -> Fields:
        """What rules see of a packet by its own headers."""
        return packet.parse(frame)

    def retag(self, frame: bytes, action: PushVlan | PopVlan | ModifyVlan) -> bytes:
        """*frame* with its tags changed. Raises :class:`.packet.CutTagError`."""
        match action:
            case PushVlan(vid, pcp, tpid):
                return packet.push_vlan(frame, tpid, pcp << 13 | vid)
            case PopVlan():
                return packet.pop_vlan(frame)
            case ModifyVlan(vid, pcp, tpid):
                return packet.modify_vlan(frame, tpid, vid, pcp)

    def _run(self, what: _Packet, port: Port, resume: int) -> Iterator[Event]:
        if not port.enabled:
            yield Dropped(DropReason.IN_PORT)
            return
        if len(what.frame) < packet.HEADER:
            yield Dropped(DropReason.SHORT)
            return
        chain = 0
        if resume in self._resumes and port.resumes:
            chain, other = self._resumes[resume]
            if chain == DELIVER:
                yield self._send(what.frame, other, what.goes_into)
                return
            if other:
                if other not in self._ports or not self._ports[other].enabled:
                    yield Dropped(DropReason.IN_PORT)
                    return
                port = self._ports[other]
        yield from self._search(what, port, chain)

    def _search(self, what: _Packet, port: Port, chain: int) -> Iterator[Event]:
        if not port.tables:
            yield from self._miss(what, port, 0)
            return
        stage, table = 0, port.tables[0] | chain
        for _ in range(LOOKUPS):
            entry = self._lookup(table, port, what)
            if entry is None:
                chain = table & ~OVS_TABLE
                passed = False
            else:
                entry.packets += what.segments
                entry.bytes += len(what.frame)
                yield Matched(entry.handle, table)
                following = yield from self._act(entry.rule.actions, what, port, table)
                if following is None:
                    return
                if isinstance(following, Goto):
                    table, what.resume = following.table, following.resume
                    continue
                if isinstance(following, Enter):
                    port, what.resume = self._ports[following.port], following.resume
                    stage, table = 0, port.tables[0]
                    continue
                chain = 0
                passed = True
            stage += 1
            if stage < len(port.tables):
                table = port.tables[stage] | chain
                continue
            if passed:
                yield Passed(what.frame)
            else:
                yield from self._miss(what, port, table)
            return
        yield Dropped(DropReason.LOOP)

    def _lookup(self, table: int, port: Port, what: _Packet) -> _Entry | None:
        found = None
        for_tunnels = self._lists.get((table, port.id, True))
        if for_tunnels:
            inside = self._inside(what, port)
            if inside is not None:
                found = _first(for_tunnels, inside)
        others = self._lists.get((table, port.id, False))
        if found is None and others:
            found = _first(others, self.look(what.frame))
        self._lookups[bool(table & OVS_TABLE)][found is None] += 1
        return found

    def _act(
        self, actions: tuple[Action, ...], what: _Packet, port: Port, table: int
    ) -> Generator[Event, None, Goto | Enter | Pass | None]:
        """Do *actions*, changing the packet; what comes then, ``None``: nothing."""
        sent = False
        cut: int | None = None
        for action in actions:
            match action:
                case Output(to, resume):
                    yield self._send(_shortened(what.frame, cut), to, what.goes_into, resume)
                    sent, cut = True, None
                case Upcall(cookie):
                    yield self._give(UpcallKind.ACTION, what, port, table, cookie, cut or 0)
                    sent, cut = True, None
                case PushVlan() | PopVlan() | ModifyVlan():
                    try:
                        what.frame = self.retag(what.frame, action)
                    except packet.CutTagError:
                        yield Dropped(DropReason.ACTION)
                        return None
                case SetField() | AddTtl():
                    what.frame = rewrite(what.frame, action)
                case Encap():
                    what.frame = tunnel.encapsulate(what.frame, action, what.flow_hash)
                case Decap() if port.metadata:  # the kernel has done it; as TC's "tunnel_key unset"
                    what.came_in = None
                case Decap():
                    what.frame = tunnel.decapsulate(what.frame, self._tunnel_ports)
                case SetTunnel():
                    what.came_in, what.goes_into = None, replace(action, tp_dst=0)
                case Truncate(length):
                    cut = length
                case Enter(entered) if not self._can_enter(entered):
                    yield Dropped(DropReason.OUT_PORT)
                    return None
                case Goto() | Enter() | Pass():
                    return action
                case Drop():
                    yield Dropped(DropReason.RULE)
                    return None
        if not sent:
            yield Dropped(DropReason.RULE)
        return None

    def _can_enter(self, port_id: int) -> bool:
        port = self._ports.get(port_id)
        return port is not None and port.enabled and bool(port.tables)

    def _send(self, frame: bytes, to: int, goes_into: SetTunnel | None, resume: int = 0) -> Event:
        port = self._ports.get(to)
        if port is None or not port.enabled or not port.ifindex:
            return Dropped(DropReason.OUT_PORT)
        return Sent(to, frame, goes_into, resume)

    def _give(self, kind: UpcallKind, what: _Packet, port: Port, table: int, cookie: int, max_length: int) -> Event:
        """User space itself cuts a packet that is to be cut: it gets the length. It gets what a rule would see, but
        of a packet that the silicon could take out of its tunnel, the outside."""
        on_their_way = self._on_their_way.get(port.id, 0)
        if not self.upcall or 0 < self.upcall_limit <= on_their_way:
            self._lost[port.id] = self.lost(port.id) + 1
            return Dropped(DropReason.UPCALL)
        self._on_their_way[port.id] = on_their_way + 1 + len(what.frame) // UPCALL_UNIT
        inside = self._inside(what, port) if port.metadata else None
        known = self.look(what.frame) if inside is None else inside
        return Upcalled(kind, port.id, table, cookie, max_length, what.frame, known)

    def _miss(self, what: _Packet, port: Port, table: int) -> Iterator[Event]:
        match port.miss:
            case Miss.REDIRECT:
                yield self._send(what.frame, port.miss_port, what.goes_into, what.resume)
            case Miss.UPCALL:
                yield self._give(UpcallKind.MISS, what, port, table, 0, 0)
            case Miss.PASS:
                yield Passed(what.frame)
            case Miss.DROP:
                yield Dropped(DropReason.MISS)

    def _inside(self, what: _Packet, port: Port) -> Fields | None:
        """What rules that match on a tunnel see; ``None`` for a packet in no tunnel."""
        if port.metadata:
            if not what.came_in:
                return None
            return tunnel.inner_fields(what.frame, tunnel.fields_of(what.came_in, port.tunnel_port))
        if port.kind is not PortKind.UPLINK:
            return None
        inside = tunnel.look_into(what.frame, self._tunnel_ports)
        return tunnel.inner_fields(what.frame[inside.at :], inside.tunnel) if inside else None


def _first(entries: list[_Entry], fields: Fields) -> _Entry | None:
    return next((entry for entry in entries if entry.matches(fields)), None)


def _place(rule: Rule) -> _Place:
    return rule.table, rule.in_port, rule.priority


def _mask(match: Match) -> _Mask:
    return frozenset((name, masked.mask) for name, masked in match.used().items())


def _list(rule: Rule) -> tuple[int, int, bool]:
    """Where a rule is looked for: by packets of which table and port, and whether by those in tunnels."""
    return rule.table, rule.in_port, any(name.startswith("tun_") for name in rule.match.used())


def _shortened(frame: bytes, length: int | None) -> bytes:
    """The outer tag does not count: it is in the packet's metadata. (The kernel refuses to cut inside its headers.)"""
    if length is None:
        return frame
    return frame[: length + 4 if packet.tagged(frame) else length]
