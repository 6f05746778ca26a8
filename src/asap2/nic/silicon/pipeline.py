# SPDX-License-Identifier: Apache-2.0
"""A pipeline: one loaded eSwitch program, its ports and its rules."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from asap2.nic.conntrack.table import Connections
from asap2.nic.rules import UNREACHED, Action, Counters, Rule, SetTunnel
from asap2.nic.silicon import abi, actioncodes, loader, maps
from asap2.nic.silicon.actionlists import ActionLists
from asap2.nic.silicon.attachments import Attachments
from asap2.nic.silicon.bloom import Bloom
from asap2.nic.silicon.events import DropReason, Event, LookupStats, UpcallContext, UpcallKind
from asap2.nic.silicon.handing_in import HandedIn, HandingIn
from asap2.nic.silicon.hooks import Hook
from asap2.nic.silicon.indices import Indices
from asap2.nic.silicon.map_sizes import PROGRAM, Layout, create
from asap2.nic.silicon.masklists import MaskLists, MaskNode
from asap2.nic.silicon.meters import Meters
from asap2.nic.silicon.ports import Deliver, Miss, Port, PortKind
from asap2.nic.silicon.portslots import PortSlots
from asap2.nic.silicon.resumes import Resumes
from asap2.nic.silicon.rule_entries import Entry, Pattern
from asap2.nic.silicon.samples import Samples
from asap2.nic.silicon.tracing import Tracing
from asap2.nic.silicon.upcall_accounts import UpcallAccounts

__all__ = [
    "Deliver",
    "DropReason",
    "HandedIn",
    "Miss",
    "Pipeline",
    "Port",
    "PortKind",
    "UpcallContext",
    "UpcallKind",
]


MAX_CONNECTIONS = 65536
"""Connections of a pipeline, unless it is told otherwise: nf_conntrack_max of Linux on a machine of up to 4 GiB."""


class Pipeline:
    """One eSwitch program with its maps, pinned: it forwards on when nobody has it open.

    A pipeline serves the devices of one network namespace. Its methods may not run at the same time in two threads,
    nor in two processes.
    """

    def __init__(self, layout: Layout) -> None:
        self._tracing: Tracing | None = None
        self._layout = layout
        self._attachments = Attachments(layout.directory)
        self._ports = PortSlots(layout)
        self._lists = MaskLists(layout)
        self.meters = Meters(layout)
        """The meters that actions name."""
        self._actions = ActionLists(layout, self._ports, self.meters)
        self.handing = HandingIn(layout, self._actions, self._ports)
        """The way in for packets of user space."""
        self.resumes = Resumes(layout, self._ports)
        """The places that packets of a NIC can be sent on to."""
        self.upcalls = UpcallAccounts(layout, self._ports)
        """What each port has on its way to user space, and what was lost."""
        self.connections = Connections(layout)
        """The connections that actions track: a NIC's are its node's."""
        self.samples = Samples(layout.samples)
        """Packets that actions have sampled: a NIC's are its node's."""
        self.timeouts = layout.timeouts
        """How long connections live."""
        self._handles = Indices(len(layout.rules), "rules", layout.grace_period)
        self._bloom = Bloom(layout.bloom)
        self._entries: dict[int, Entry] = {}
        self._restore()

    @classmethod
    def open(
        cls,
        pin_dir: Path,
        *,
        max_rules: int = 65536,
        upcall_ifindex: int = 0,
        tracing: bool = False,
        cache_entries: int | None = None,
        max_connections: int = MAX_CONNECTIONS,
        connections_of: Path | None = None,
    ) -> Pipeline:
        """The pipeline pinned in *pin_dir*, with all its rules and ports, or a new one.

        *pin_dir* is a directory in a bpffs, made where it is missing. *max_rules* is for a new pipeline, as is
        *tracing*: such a program only tells what it would do with a packet (:meth:`trace`). *cache_entries*, a power
        of two, sizes each CPU's exact-match cache. A new pipeline tracks *max_connections*, or those of the pipeline
        pinned in *connections_of*: those of a NIC are its node's. Raises :class:`OSError` with one sentence.
        """
        pin_dir.mkdir(parents=True, exist_ok=True)
        if not (pin_dir / PROGRAM).exists() or not (pin_dir / "grace").exists():
            loader.unpin_all(pin_dir)
            try:
                create(pin_dir, max_rules, tracing, cache_entries, max_connections, connections_of)
            except BaseException:
                loader.unpin_all(pin_dir)
                raise
        pipeline = cls(Layout(pin_dir))
        if upcall_ifindex:
            pipeline.set_upcall(upcall_ifindex)
        return pipeline

    def close(self) -> None:
        """Let go of the pipeline, which works on."""
        self._layout.close()

    def destroy(self) -> None:
        """Take the pipeline out of the kernel: no device runs it any more."""
        self._attachments.detach_all()
        loader.unpin_all(self._layout.directory)
        self._layout.directory.rmdir()
        self.close()

    @property
    def directory(self) -> Path:
        """Where it is pinned."""
        return self._layout.directory

    # ---- devices and ports ----

    def attach_onward(self, ifindex: int, netns: int | None) -> None:
        """Let copies of packets, and packets that :meth:`hand_in` is for, go on at the egress of the device that
        upcalls leave by (:meth:`set_upcall`), in the namespace of descriptor *netns* (``None``: this one)."""
        self._attachments.attach(self._layout.onward, ifindex, netns, "egress")

    def attach(self, ifindex: int, netns: int | None, hook: Hook = "ingress", *, first: bool = True) -> None:
        """Run the program on packets of device *ifindex* in the namespace of descriptor *netns* (``None``: this one),
        as the *first* of the programs there or as the last.

        A device is read at egress when its port is :attr:`PortKind.INTERNAL`, at ingress otherwise. Where the program
        runs already it goes on undisturbed.
        """
        self._attachments.attach(self._layout.program, ifindex, netns, hook, first=first)

    def use_program(self, program: int | None) -> None:
        """Have all devices run another build of the program, with the same maps, or, with None, the pipeline's own
        again. Packets go on meanwhile. OSError, and all run the pipeline's own."""
        layout = self._layout
        try:
            self._attachments.swap(layout.program, program, layout.onward)
            layout.set_called(layout.program if program is None else program)
        except OSError:
            if program is not None:
                self.use_program(None)
            raise

    def detach(self, ifindex: int, hook: Hook = "ingress") -> None:
        """Undo :meth:`attach`; nothing when the program does not run there."""
        self._attachments.detach(ifindex, hook)

    def set_port(self, port: Port) -> None:
        """Make *port* exist, or change what it is."""
        self._ports.set(port)

    def remove_port(self, port_id: int) -> None:
        """Make a port not exist. Rules may go on naming it: what they send there is dropped. KeyError."""
        self._ports.remove(port_id)
        self.upcalls.forget(port_id)

    @property
    def ports(self) -> dict[int, Port]:
        """The ports, by id."""
        return self._ports.ports

    def set_upcall(self, ifindex: int) -> None:
        """Packets for user space are transmitted on device *ifindex*; 0: they are dropped."""
        self._layout.config.upcall_ifindex = ifindex

    def listen_to_samples(self, listen: bool) -> None:
        """Have actions sample packets, or not: nobody listens."""
        self._layout.config.sampled = listen

    def set_tunnel_ports(self, ports: Sequence[int]) -> None:
        """VXLAN comes to these UDP ports, besides its own. At most :data:`.abi.TUNNEL_PORTS`; 0 is a place without one:
        a port that keeps its place goes on undisturbed. ValueError for more."""
        if len(ports) > abi.TUNNEL_PORTS:
            raise ValueError(f"VXLAN can come to {abi.TUNNEL_PORTS} more UDP ports, not {len(ports)}")
        config = self._layout.config
        for place in range(abi.TUNNEL_PORTS):
            port = ports[place] if place < len(ports) else 0
            config.tunnel_ports[2 * place : 2 * place + 2] = list(port.to_bytes(2, "big"))
        config.tunnels = len(ports)

    @property
    def tunnel_ports(self) -> tuple[int, ...]:
        """What :meth:`set_tunnel_ports` was last given."""
        config = self._layout.config
        ports = bytes(config.tunnel_ports)
        return tuple(int.from_bytes(ports[2 * place : 2 * place + 2], "big") for place in range(config.tunnels))

    def set_option_kinds(self, kinds: Mapping[int, bytes]) -> None:
        """Rules may match on the options of tunnels that *kinds* numbers."""
        headers = b"".join(kinds.get(number, bytes(4)) for number in range(1, abi.OPTION_KINDS + 1))
        self._layout.config.option_kinds[:] = list(headers)

    @property
    def option_kinds(self) -> dict[int, bytes]:
        """What :meth:`set_option_kinds` was last given."""
        headers = bytes(self._layout.config.option_kinds)
        found = {at // 4 + 1: headers[at : at + 4] for at in range(0, len(headers), 4)}
        return {number: header for number, header in found.items() if any(header)}

    # ---- rules ----

    @property
    def rules(self) -> dict[int, Rule]:
        """Every rule, by handle, as :meth:`rule` gives it. Handles outlive the process."""
        return {handle: self.rule(handle) for handle in self._entries}

    def rule(self, handle: int) -> Rule:
        """The rule with *handle*, as the maps have it: actions that do the same as those that were given, but
        may be put in other words: an address is set by parts. KeyError."""
        entry = self._entries[handle]
        masks = entry.node.masks
        tunnel = bool(masks.table & abi.TUNNEL_LIST)
        return Rule(
            masks.table & ~abi.TUNNEL_LIST,
            masks.in_port,
            entry.node.priority,
            maps.decode_match(entry.node.mask, entry.key, tunnel=tunnel),
            self._actions.read(entry.actions),
        )

    def handles_after(self, handle: int, most: int) -> list[int]:
        """The least handles that are greater than *handle*, at most so many."""
        return heapq.nsmallest(most, (one for one in self._entries if one > handle))

    def actions_at(self, entry: int) -> tuple[Action, ...]:
        """The actions that an entry of :attr:`resumes` begins."""
        return self._actions.read(entry)

    def in_port(self, handle: int) -> int:
        """The port whose packets the rule with *handle* is for. KeyError."""
        return self._entries[handle].node.masks.in_port

    def action_lists(self) -> Iterator[tuple[Action, ...]]:
        """Every list of actions that a rule has, each once."""
        return map(self._actions.read, {entry.actions for entry in self._entries.values()})

    def supports(self, rule: Rule) -> str | None:
        """One sentence saying why the program cannot take *rule*, or ``None``."""
        if rule.table & abi.TUNNEL_LIST:
            return f"table {rule.table:#x} is out of range"
        return actioncodes.unsupported(rule.match, rule.actions)

    def add(self, rule: Rule) -> int:
        """Add *rule*; its handle.

        Raises :class:`OSError`: EOPNOTSUPP with the reason, ENOSPC when there is no room, EEXIST when the table has a
        rule with the same port, priority, mask and value.
        """
        self._check(rule)
        mask, key = maps.encode_match(rule.match)
        actions = self._actions.intern(rule.actions)
        try:
            handle = self._handles.take()
        except OSError:
            self._actions.release(actions)
            raise
        try:
            node = self._lists.hold(_list(rule), rule.in_port, rule.priority, mask)
        except OSError:
            self._handles.give(handle)
            self._actions.release(actions)
            raise
        self._install(handle, node, key, actions)
        return handle

    def pattern(self, handle: int) -> Pattern:
        """The pattern of the rule with *handle*. KeyError."""
        entry = self._entries[handle]
        return Pattern(entry.node, entry.actions, self._actions.content(entry.actions), entry.key)

    def add_like(self, pattern: Pattern, key: bytes) -> int | None:
        """Add a rule like those of *pattern*, with the matched values *key*, a ``struct fields``; its handle.

        None: there is no such rule any more, so there is nothing to be like. Raises as :meth:`add`.
        """
        node, actions = pattern.node, pattern.actions
        if not node.rules or not self._actions.hold(actions, pattern.content):
            return None
        try:
            handle = self._handles.take()
        except OSError:
            self._actions.release(actions)
            raise
        node.rules += 1
        self._install(handle, node, key, actions)
        return handle

    def hand_in(self, way: HandedIn) -> contextlib.AbstractContextManager[int]:
        """See :meth:`HandingIn.hand_in`."""
        return self.handing.hand_in(way)

    def _install(self, handle: int, node: MaskNode, key: bytes, actions: int) -> None:
        """Let packets find a rule for which everything else is there; OSError, and all of it is given back."""
        self._layout.new_rule(handle, node.index, actions)
        self._bloom.add(node.index, key)
        try:
            self._layout.keys.add(
                node.index, node.mask, key, handle, full=len(self._entries) >= self._layout.config.max_rules
            )
        except OSError as e:
            self._bloom.discard(node.index, key)
            self._lists.drop(node)
            self._handles.give(handle)
            self._actions.release(actions)
            if e.errno == errno.EEXIST:
                raise OSError(errno.EEXIST, "there is such a rule already") from e
            if e.errno in (errno.E2BIG, errno.ENOMEM):
                raise OSError(errno.ENOSPC, f"no room for more than {self._layout.config.max_rules} rules") from e
            raise
        self._lists.publish(node)
        self._entries[handle] = Entry(node, key, actions)
        if node.masks.table == abi.LIMITS:
            self._ports.limit(node.masks.in_port, 1)

    def replace(self, handle: int, actions: tuple[Action, ...]) -> None:
        """Give a rule other actions, at once for every packet; its counters go on. KeyError, and as :meth:`add`."""
        entry = self._entries[handle]
        self._check(replace(self.rule(handle), actions=actions))
        new = self._actions.intern(actions)
        self._layout.rules[handle].actions = new
        self._lists.changed(entry.node)
        self._actions.release(entry.actions)
        entry.actions = new

    def resume_within(self, handle: int, actions: tuple[Action, ...]) -> int:
        """A number by which packets of a NIC go on within the rule with *handle*, with *actions*, which are its last,
        until :meth:`end_resume`. KeyError; OSError ENOSPC."""
        masks = self._entries[handle].node.masks
        entry = self._actions.intern(actions)
        try:
            return self.resumes.begin(handle, masks.table & ~UNREACHED & ~abi.TUNNEL_LIST, masks.in_port, entry)
        except OSError:
            self._actions.release(entry)
            raise

    def change_resume(self, number: int, actions: tuple[Action, ...]) -> None:
        """Go on with other *actions* by a number of :meth:`resume_within`. KeyError; OSError ENOSPC."""
        new = self._actions.intern(actions)
        self._actions.release(self.resumes.change(number, new))

    def end_resume(self, number: int) -> None:
        """Undo :meth:`resume_within`: packets that come with it are dropped. KeyError."""
        self._actions.release(self.resumes.end(number))

    def remove(self, handle: int) -> Counters:
        """Remove a rule; what it has counted to the last. KeyError."""
        entry = self._entries.pop(handle)
        if entry.node.masks.table == abi.LIMITS:
            self._ports.limit(entry.node.masks.in_port, -1)
        self._layout.keys.delete(entry.node.index, entry.node.mask, entry.key)
        self._bloom.discard(entry.node.index, entry.key)
        self._lists.drop(entry.node)
        counters = self._read(handle)
        self._actions.release(entry.actions)
        self._handles.give(handle)
        return counters

    def counters(self, handles: Sequence[int]) -> list[Counters]:
        """What each rule has counted. KeyError for a handle that does not exist."""
        for handle in handles:
            if handle not in self._entries:
                raise KeyError(handle)
        return [self._read(handle) for handle in handles]

    def _check(self, rule: Rule) -> None:
        reason = self.supports(rule)
        if reason:
            raise OSError(errno.EOPNOTSUPP, reason)

    def _read(self, handle: int) -> Counters:
        return Counters(*self._layout.counted(handle))

    def _restore(self) -> None:
        """Take over what the maps hold. A rule whose addition or removal was cut off is removed."""
        layout = self._layout
        self._ports.restore()
        self.resumes.restore()
        nodes = self._lists.restore()
        starts = []
        for number, key, handle in list(layout.keys.items()):
            node = nodes.get(number)
            if node is None or layout.rules[handle].node != number:
                layout.keys.discard(number, key, handle)
                continue
            node.rules += 1
            actions = layout.rules[handle].actions
            starts.append(actions)
            self._entries[handle] = Entry(node, key, actions)
            if node.masks.table == abi.LIMITS:
                self._ports.limit(node.masks.in_port, 1)
        self._bloom.restore((entry.node.index, entry.key) for entry in self._entries.values())
        self._actions.restore([*starts, *self.resumes.within.values()])
        self.meters.sweep()
        self._handles.restore(self._entries)
        self._lists.sweep()
        self._ports.sweep()
        layout.grace_period()

    # ---- what it tells ----

    def _stats(self) -> list[maps.StatsRecord]:
        size = ctypes.sizeof(maps.StatsRecord)
        cpus = loader.possible_cpus()
        data = self._layout.stats.lookup(bytes(4), size * cpus) or bytes(size * cpus)
        return [maps.StatsRecord.from_buffer_copy(data, size * cpu) for cpu in range(cpus)]

    def drops(self) -> dict[str, int]:
        """Packets dropped, by the name of the reason in lower case."""
        stats = self._stats()
        return {reason.name.lower(): sum(s.drops[reason] for s in stats) for reason in DropReason}

    def lookups(self, ovs: bool | None = None) -> LookupStats:
        """Statistics of lookups: in Open vSwitch tables, in TC chains, or (``None``) in both."""
        stats = self._stats()
        kinds = (0, 1) if ovs is None else (int(ovs),)

        def total(name: str) -> int:
            return sum(getattr(s, name)[kind] for s in stats for kind in kinds)

        refused = sum(s.drops[DropReason.UPCALL] for s in stats)
        return LookupStats(
            total("hit"),
            total("missed"),
            refused + self.upcalls.failed,
            self._lists.masks(ovs),
            total("probes"),
            total("cache_hits"),
        )

    def read_upcall(self, mark: int) -> UpcallContext | None:
        """What the program knew of the packet that reached user space with *mark*.

        ``None`` when the packet is none of the program's, or so many have followed it that the place was used again.
        """
        if mark & abi.UPCALL_MAGIC_MASK != abi.UPCALL_MAGIC:
            return None
        found = self._layout.upcalls[mark % abi.UPCALL_SLOTS]
        record = maps.UpcallRecord.from_buffer_copy(bytes(found))
        if record.mark != mark or found.mark != mark:
            return None
        options = bytes(record.options[: record.options_len])
        return UpcallContext(
            UpcallKind(record.kind),
            *(record.in_port, record.table, record.cookie, record.hash, record.len, record.max_len, record.units),
            *(record.at, bytes(record.key), record.mru, record.tunnel, options, mark),
        )

    def trace(
        self,
        packet: bytes,
        port: Port,
        *,
        tag: tuple[int, int] | None = None,
        segments: int = 1,
        flow_hash: int = 0,
        tunnel: SetTunnel | None = None,
        resume: int = 0,
        tracked: Mapping[str, int] | None = None,
        carried: tuple[int, int] | None = None,
        now: int = 0,
    ) -> list[Event]:
        """What a *tracing* pipeline would do with *packet* coming in by *port*.

        *tag* (TPID, TCI) puts a tag into the packet's metadata, where received packets have it. A packet of more than
        one *segments* is a super-packet. *flow_hash* is what the kernel would compute from its flow. *tunnel* is the
        metadata of a packet that the kernel took out of a tunnel, *resume* the number that a NIC has left with it,
        *tracked* its ``ct_`` fields, *carried* the zone of its connection, if a NIC has known that, and how it is
        translated (bits of ``ct_state``); *now* is the time in nanoseconds.
        """
        if self._tracing is None:
            self._tracing = Tracing(self._layout)
        return self._tracing.process(
            *(packet, port.ifindex, tag, segments, flow_hash, tunnel, resume, tracked or {}, carried, now)
        )


def _list(rule: Rule) -> int:
    """The number of the list that a rule is in."""
    return rule.table | (abi.TUNNEL_LIST if maps.in_tunnel(rule.match) else 0)
