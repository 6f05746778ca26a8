# SPDX-License-Identifier: Apache-2.0
"""The reference eSwitch: what the eBPF program must do, in plain Python. It defines what is right.

A packet comes in by a port and is looked up in the port's tables in turn (the *stages*):

* No rule matches: the next stage. It starts in the chain where this one stopped: after a ``Goto(5)`` that found
  nothing in TC, Open vSwitch goes on with recirculation id 5, as the kernel does with tc_skb_ext. After the last
  stage the port's ``miss`` decides. The packet is then as the actions so far have left it.
* A rule matches: it counts the packet, with its tags, and its actions are done in order. :class:`Goto` looks up again
  in the same stage, :class:`LookOn` in the same table; :class:`Pass` ends the stage, and the next starts in its own
  table; after the last, the packet goes on to the network stack.
* The action list ends: so does the packet. If it was never sent anywhere, that is a drop by the rule.

A packet has at most :data:`LOOKUPS` lookups, a copy :data:`COPY_LOOKUPS` fewer than it would have left. One that would
need more is dropped.

Which rule: the smallest priority number; within it, the rule whose mask is older among the masks of that table, port
and priority. A mask is as old as the oldest time since which there has always been a rule with it.

Tunnels: a packet is in one when it came in by an uplink and its headers say so (:func:`.tunnel.look_into`), or when it
came in by a tunnel device of the kernel's with the metadata of a tunnel. Such a packet is looked up twice, which counts
once: among the rules that match on a tunnel, by the fields of what is inside and of the tunnel; then, when none
matches, among the others, by the packet's own headers. Rules that match on a tunnel match no other packet.

A NIC that does not finish a packet leaves a number with it that says what the node is to do (``resume``): the number of
an output's, or where no rule matches, of the last Goto or Enter. What it means, the node's pipeline was told
(:meth:`ReferenceSwitch.set_resume`): a packet that comes in with it by a port that ``resumes`` starts at another chain
of its first table, perhaps as if it came in by another port, or goes to a port at once; or it goes on within the
actions of a rule, which counts it, as if the rule had been found here. A port that is behind a device
(``tell``) has its packets told apart in the same way.

User space gets a packet only where its port has room on the way there (:class:`.upcall_room.UpcallRoom`).

Connections are those of a :class:`asap2.nic.conntrack.tracker.Tracker`, which says what :class:`Ct` does; fragments go
to user space. A packet over the limit of a meter takes another way (:class:`Meter`).

Each output gets the packet as it is by then. A copy of a packet goes its way to its end before the packet does
(:class:`Clone`). What the kernel's flow hash decides, the source port of a tunnel and Open vSwitch's hash, the caller
decides by giving that hash, which stands for the kernel's random number, too.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace

from asap2.nic.conntrack.tracker import DroppedError, Tracker
from asap2.nic.rules import (
    BARE,
    OVS_TABLE,
    UNREACHED,
    Action,
    Chance,
    CheckLength,
    Clone,
    Ct,
    CtClear,
    CtHardware,
    DecTtl,
    Drop,
    Enter,
    Goto,
    Hash,
    LookOn,
    Meter,
    Output,
    Pass,
    Psample,
    Sample,
    SetTunnel,
    Truncate,
    Upcall,
)
from asap2.nic.silicon import layers, packet, tunnel
from asap2.nic.silicon.abi import COPIES, COPY_LOOKUPS, LIMITS, LOOKUPS
from asap2.nic.silicon.changes import Retag, change, retag
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
from asap2.nic.silicon.hashes import dp_hash
from asap2.nic.silicon.journey import (
    Journey,
    chosen,
    hops,
    length_of,
    octets_of,
    octets_without_tag,
    one_hop_less,
    shortened,
)
from asap2.nic.silicon.metering import Limit, Metered
from asap2.nic.silicon.meters_of_reference import Meters
from asap2.nic.silicon.packet import Fields
from asap2.nic.silicon.ports import Miss, Port, PortKind
from asap2.nic.silicon.resumes import DELIVER
from asap2.nic.silicon.rulelists import Entry, RuleLists
from asap2.nic.silicon.sampling import sampled
from asap2.nic.silicon.tracking import restore_tracked, track, track_in_hardware
from asap2.nic.silicon.upcall_room import UpcallRoom


class ReferenceSwitch:
    """Ports, rules, and what they do to a frame. The interface is that of the eBPF pipeline."""

    def __init__(self, *, upcall: bool = True) -> None:
        self.upcalls = UpcallRoom(anybody=upcall)
        """What each port has on its way to user space, and what was lost."""
        self.most_lookups = LOOKUPS
        self._ports: dict[int, Port] = {}
        self._rules = RuleLists()
        self.add, self.replace, self.remove = self._rules.add, self._rules.replace, self._rules.remove
        self.counters = self._rules.counters
        self._resumes: dict[int, tuple[int, int]] = {}
        self._within: dict[int, tuple[Entry, tuple[Action, ...]]] = {}
        self._tunnel_ports: tuple[int, ...] = ()
        self._option_kinds: Mapping[int, bytes] = {}
        self._meters = Meters()
        self.tracker = Tracker()
        """The connections that rules track."""
        self.now = 0
        """The time, in nanoseconds of any clock that never goes back."""
        self._drops = dict.fromkeys(DropReason, 0)
        self._lookups = {True: [0, 0], False: [0, 0]}

    # ---- ports and rules ----

    def set_port(self, port: Port) -> None:
        """Make *port* exist, or change it."""
        self._ports[port.id] = port

    def remove_port(self, port_id: int) -> None:
        """Make it not exist."""
        del self._ports[port_id]
        self.upcalls.forget(port_id)

    def set_tunnel_ports(self, ports: tuple[int, ...]) -> None:
        """VXLAN comes to these UDP ports, besides its own; 0 is none."""
        self._tunnel_ports = ports

    def set_option_kinds(self, kinds: Mapping[int, bytes]) -> None:
        """Rules may match on the options of tunnels that *kinds* numbers."""
        self._option_kinds = kinds

    def set_resume(self, number: int, table: int, port: int = 0) -> None:
        """Say what *number* with a packet means; *table* and *port* as in :meth:`.resumes.Resumes.at`."""
        self._resumes[number] = table, port

    def set_resume_within(self, number: int, handle: int, actions: tuple[Action, ...]) -> None:
        """Say that *number* with a packet means to go on within a rule, with *actions*, which are its last."""
        entry = self._rules[handle]
        self._resumes[number] = entry.rule.table & ~UNREACHED, entry.rule.in_port
        self._within[number] = entry, actions

    def end_resume(self, number: int) -> None:
        """Undo :meth:`set_resume_within`."""
        self._resumes[number] = DELIVER, 0
        del self._within[number]

    def drops(self) -> dict[str, int]:
        """Packets dropped, by reason."""
        return {reason.name.lower(): count for reason, count in self._drops.items()}

    def lookups(self, ovs: bool) -> LookupStats:
        """Lookups in Open vSwitch tables or in TC chains that found a rule, and that did not."""
        return LookupStats(*self._lookups[ovs])

    def set_meter(self, number: int, limit: Limit | None) -> None:
        """Give meter *number* a limit, and let it begin to count; None: it lets everything through."""
        self._meters.set(number, limit, self.now)

    def metered(self, number: int) -> Metered:
        """What meter *number*, which has a limit, has counted."""
        return self._meters.counted(number)

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
        tracked: Fields | None = None,
        carried: tuple[int, int] | None = None,
    ) -> list[Event]:
        """All that happens to *frame*, which came in by a port. A super-packet stands for several *segments*.

        *flow_hash* is the kernel's hash of its flow, *came_in* the metadata with which it came from a tunnel device,
        *resume* the number that a NIC has left with it, *tracked* its ``ct_`` fields, *carried* the zone of its
        connection, if a NIC has known that, and how it is translated (bits of ``ct_state``).
        """
        self.tracker.now = self.now
        events: list[Event] = []
        what = Journey(frame, segments, flow_hash, came_in, arrived=octets_without_tag(frame))
        what.tracked = {name: value for name, value in (tracked or {}).items() if value}
        for event in self._run(what, self._ports[port_id], resume, carried):
            if isinstance(event, Dropped):
                self._drops[event.reason] += 1
            events.append(event)
        return events

    def look(self, frame: bytes, *, ovs: bool = False) -> Fields:
        """What rules see of a packet by its own headers, those in Open vSwitch's tables with *ovs*."""
        return packet.parse(frame, ovs=ovs)

    def retag(self, frame: bytes, action: Retag) -> bytes:
        """*frame* with its tags changed. Raises :class:`.packet.CutTagError`."""
        return retag(frame, action)

    def _run(self, what: Journey, port: Port, resume: int, carried: tuple[int, int] | None = None) -> Iterator[Event]:
        if not port.enabled:
            yield Dropped(DropReason.IN_PORT)
            return
        if len(what.frame) < packet.HEADER:
            yield Dropped(DropReason.SHORT)
            return
        what.bare = port.bare
        chain = 0
        going_on = resume in self._resumes and port.resumes
        if going_on:
            chain, other = self._resumes[resume]
            if chain == DELIVER:
                yield self._send(what.frame, other, what.goes_into, bare=what.bare)
                return
            if other:
                if other not in self._ports or not self._ports[other].enabled:
                    yield Dropped(DropReason.IN_PORT)
                    return
                port = self._ports[other]
        tables = self._tables(port)
        within = self._within.get(resume) if going_on else None
        if chain or within:
            what.stage = self._first_stage(port)
            tables = port.tables
        if not tables:
            yield from self._miss(what, port, 0)
            return
        if carried and going_on and not within and not restore_tracked(self.tracker, what, *carried):
            yield Dropped(DropReason.ACTION)
            return
        yield from self._search(what, port, tables[0] | chain, within)

    def _first_stage(self, port: Port) -> int:
        """Where packets begin that have limits behind them: those are for what comes in by the device itself."""
        return len(self._tables(port)) - len(port.tables)

    def _tables(self, port: Port) -> tuple[int, ...]:
        """The tables of a port: before its own, that of limits, once there is a rule for it."""
        return (LIMITS, *port.tables) if self._rules.has(LIMITS, port.id, tunnel=False) else port.tables

    def _search(
        self, what: Journey, port: Port, table: int, within: tuple[Entry, tuple[Action, ...]] | None = None
    ) -> Iterator[Event]:
        """Look the packet up, and on; *within* is a rule that is found already, and those of its actions to do."""
        while within is not None or what.lookups < self.most_lookups:
            if within is None:
                what.lookups += 1
                entry = self._lookup(table, port, what)
                actions = entry.rule.actions if entry is not None else ()
            else:
                (entry, actions), within = within, None
            if entry is None:
                chain = table & ~(OVS_TABLE | LIMITS)
                passed = False
            else:
                what.counted = entry, what.segments, octets_of(what, port, table)
                entry.count(*what.counted[1:])
                yield Matched(entry.handle, table)
                following = yield from self._act(actions, what, port, table)
                if following is None:
                    return
                if not isinstance(following, Pass):
                    port, table = self._next(following, what, port, table)
                    continue
                chain = 0
                passed = True
            what.stage += 1
            tables = self._tables(port)
            if what.stage < len(tables):
                table = tables[what.stage] | chain
                continue
            if passed:
                yield Passed(what.frame)
            else:
                yield from self._miss(what, port, table)
            return
        yield Dropped(DropReason.LOOP)

    def _lookup(self, table: int, port: Port, what: Journey) -> Entry | None:
        found, ovs = None, bool(table & OVS_TABLE)
        first, what.first = what.first, 0
        where = table | BARE if what.bare and ovs else table
        if self._rules.has(where, port.id, tunnel=True):
            inside = self._inside(what, port, ovs=ovs)
            if inside is not None:
                found = self._rules.first(where, port.id, inside | what.metadata(), tunnel=True, priority=first)
        if found is None and self._rules.has(where, port.id, tunnel=False):
            known = self.look(what.frame, ovs=ovs) | what.metadata()
            found = self._rules.first(where, port.id, known, tunnel=False, priority=first)
        self._lookups[bool(table & OVS_TABLE)][found is None] += 1
        return found

    def _act(
        self, actions: tuple[Action, ...], what: Journey, port: Port, table: int, *, sent: bool = False
    ) -> Generator[Event, None, Goto | LookOn | Enter | Pass | None]:
        """Do *actions*, changing the packet; what comes then, ``None``: nothing. It was *sent* somewhere before."""
        for at, action in enumerate(actions):
            last = at + 1 == len(actions)
            if not isinstance(action, CtHardware | CtClear | Goto | LookOn | Enter):
                what.untranslated = None
            match action:
                case Output(to, resume):
                    yield from self._output(what, to, resume, last=last)
                    sent = True
                case Upcall(cookie):
                    yield self._give(UpcallKind.ACTION, what, port, table, cookie, what.cut or 0)
                    sent, what.cut = True, None
                case Psample(every=every):
                    if what.flow_hash % every == 0:
                        yield sampled(action, what, port)
                        sent = True
                    what.cut = None
                case Truncate(length):
                    what.cut = length
                case Clone(nested):
                    yield from self._copy(nested, what, port, table)
                    sent = True
                case Sample(probability, nested):
                    if not chosen(probability, what):
                        continue
                    if last:
                        return (yield from self._act(nested, what, port, table, sent=sent))
                    yield from self._copy(nested, what, port, table)
                    sent = True
                case CheckLength(length, greater, others):
                    nested = greater if length_of(what) > length else others
                    if last:
                        return (yield from self._act(nested, what, port, table, sent=sent))
                    yield from self._copy((action,), what, port, table)
                    sent = True
                case DecTtl(exhausted):
                    left = hops(what.frame)
                    if left is None:
                        yield Dropped(DropReason.ACTION)
                        return None
                    if left <= 1:
                        return (yield from self._act(exhausted, what, port, table, sent=sent))
                    what.frame = one_hop_less(what.frame, left)
                case Hash(algorithm, basis):
                    known = self.look(what.frame, ovs=True)
                    what.dp_hash = dp_hash(algorithm, basis, what.flow_hash, known)
                case Enter(entered) if not self._can_enter(entered):
                    yield Dropped(DropReason.OUT_PORT)
                    return None
                case Goto() | LookOn() | Enter() | Pass():
                    return action
                case Chance(probability, instead):
                    if chosen(probability, what):
                        return (yield from self._act(instead, what, port, table, sent=sent))
                case Meter(number, exceeded):
                    if self._meters.over(number, what, self.now):
                        return (yield from self._act(exceeded, what, port, table, sent=sent))
                case Ct():
                    if self.look(what.frame, ovs=bool(table & OVS_TABLE)).get("ip_frag"):
                        yield self._give(UpcallKind.FRAGMENT, what, port, table, 0, what.cut or 0)
                        return None
                    try:
                        helped = track(self.tracker, action, what, ovs=bool(table & OVS_TABLE))
                    except DroppedError:
                        yield Dropped(DropReason.ACTION)
                        return None
                    if helped:
                        yield self._give(UpcallKind.HELPER, what, port, table, 0, what.cut or 0)
                        return None
                case CtClear():
                    what.tracked, what.seen = {}, None
                case CtHardware():
                    try:
                        carried = track_in_hardware(self.tracker, action, what, self._tunnel_ports)
                    except DroppedError:
                        yield Dropped(DropReason.ACTION)
                        return None
                    if not carried:
                        yield self._leave(what, port, action.resume)
                        return None
                case Drop():
                    yield Dropped(DropReason.RULE)
                    return None
                case _:
                    try:
                        change(action, what, port, self._tunnel_ports, self.retag)
                    except (packet.CutTagError, layers.LayerError):
                        yield Dropped(DropReason.ACTION)
                        return None
        if not sent:
            yield Dropped(DropReason.RULE)
        return None

    def _leave(self, what: Journey, port: Port, resume: int) -> Event:
        """A packet of a connection that a NIC does not carry: the node goes on, and counts it for the rule there."""
        if port.miss is not Miss.REDIRECT:
            return Dropped(DropReason.MISS)
        if what.counted is not None:
            entry, packets, octets = what.counted
            entry.count(-packets, -octets)
        return self._send(what.as_it_came, port.miss_port, what.goes_into, resume, bare=what.bare)

    def _output(self, what: Journey, to: int, resume: int, *, last: bool) -> Iterator[Event]:
        cut, what.cut = what.cut, None
        if what.bare and not (to in self._ports and self._ports[to].bare):
            yield Dropped(DropReason.ACTION)
        elif cut is not None and not last and what.depth == COPIES and length_of(what) > cut:  # cut is a copy
            yield Dropped(DropReason.COPY)
        else:
            whole = cut + packet.HEADER if cut is not None and what.bare else cut
            yield self._send(shortened(what.frame, whole), to, what.goes_into, resume, bare=what.bare)

    def _copy(self, actions: tuple[Action, ...], what: Journey, port: Port, table: int) -> Iterator[Event]:
        """A copy of the packet goes the way that *actions* say, to its end."""
        if what.depth == COPIES:
            yield Dropped(DropReason.COPY)
            return
        copy = replace(what, depth=what.depth + 1, lookups=what.lookups + COPY_LOOKUPS, counted=None, resume=0)
        following = yield from self._act(actions, copy, port, table)
        if isinstance(following, Pass):
            yield Passed(copy.frame)
        elif following is not None:
            yield from self._search(copy, *self._next(following, copy, port, table))

    def _next(self, following: Goto | LookOn | Enter, what: Journey, port: Port, table: int) -> tuple[Port, int]:
        """Where a packet is looked up next: as one of which port, in which table."""
        if isinstance(following, LookOn):
            what.first = following.first
            return port, table
        what.resume = following.resume
        if isinstance(following, Goto):
            return port, following.table
        port = self._ports[following.port]
        what.stage = self._first_stage(port)
        return port, port.tables[0]

    def _can_enter(self, port_id: int) -> bool:
        port = self._ports.get(port_id)
        return port is not None and port.enabled and bool(port.tables)

    def _send(
        self, frame: bytes, to: int, goes_into: SetTunnel | None, resume: int = 0, *, bare: bool = False
    ) -> Event:
        port = self._ports.get(to)
        if port is None or not port.enabled or not port.ifindex:
            return Dropped(DropReason.OUT_PORT)
        if port.bare and not bare:
            return Dropped(DropReason.ACTION)
        return Sent(to, frame, goes_into, port.tell or resume)

    def _give(self, kind: UpcallKind, what: Journey, port: Port, table: int, cookie: int, max_length: int) -> Event:
        """User space itself cuts a packet that is to be cut: it gets the length. It gets what a rule would see, but
        of a packet that the silicon could take out of its tunnel, the outside."""
        ovs = bool(table & OVS_TABLE)
        inside = self._inside(what, port, ovs=ovs) if port.metadata else None
        known = self.look(what.frame, ovs=ovs) if inside is None else inside
        if not self.upcalls.take(port.id, len(what.frame), about_neighbours=packet.about_neighbours(known)):
            return Dropped(DropReason.UPCALL)
        return Upcalled(kind, port.id, table, cookie, max_length, what.frame, known | what.metadata())

    def _miss(self, what: Journey, port: Port, table: int) -> Iterator[Event]:
        match port.miss:
            case Miss.REDIRECT:
                yield self._send(what.as_it_came, port.miss_port, what.goes_into, what.resume, bare=what.bare)
            case Miss.UPCALL:
                yield self._give(UpcallKind.MISS, what, port, table, 0, 0)
            case Miss.PASS:
                yield Passed(what.frame)
            case Miss.DROP:
                yield Dropped(DropReason.MISS)

    def _inside(self, what: Journey, port: Port, *, ovs: bool) -> Fields | None:
        """What rules that match on a tunnel see; ``None`` for a packet in no tunnel."""
        if port.metadata:
            if not what.came_in:
                return None
            return tunnel.inner_fields(
                what.frame, tunnel.fields_of(what.came_in, port.tunnel_port, self._option_kinds), ovs=ovs
            )
        if port.kind is not PortKind.UPLINK:
            return None
        inside = tunnel.look_into(what.frame, self._tunnel_ports, self._option_kinds)
        return tunnel.inner_fields(what.frame[inside.at :], inside.tunnel, ovs=ovs) if inside else None
