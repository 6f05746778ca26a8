# SPDX-License-Identifier: Apache-2.0
"""Ingress qdiscs, chains and filters: the state behind the TC face, with the kernel's semantics.

Sources: net/sched/cls_api.c (tc_new_tfilter and its neighbours) for chains, priorities, handles and errors;
cls_flower.c (fl_change) for what a filter is.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final
from weakref import WeakKeyDictionary

from asap2.netlink.codec import Attrs
from asap2.netlink.tables.actions import ACTION
from asap2.netlink.tables.tc import TC
from asap2.netlink.wire import NetlinkError
from asap2.nic.device import Nic
from asap2.nic.faces.idr import Idr
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc.action_table import ActionTable
from asap2.nic.faces.tc.actions import Given, Instance
from asap2.nic.faces.tc.flower import FlowerKey, Identity
from asap2.nic.faces.tc.flower import parse as parse_flower
from asap2.nic.faces.tc.offload import Offloader, Placed, Placement
from asap2.nic.faces.tc.shapes import Shape, Values
from asap2.nic.journal import Journal
from asap2.nic.rules import Counters, Decap, Pass, Rule, SetTunnel
from asap2.nic.silicon.pipeline import Pipeline

log = logging.getLogger(__name__)

SKIP_HW: Final = 1
SKIP_SW: Final = 2
IN_HW: Final = 4
NOT_IN_HW: Final = 8
VERBOSE: Final = 16
_USER_FLAGS: Final = SKIP_HW | SKIP_SW | VERBOSE
AUTO_PRIO: Final = 0xC000
FIRST_OF_AUTO: Final = 0x8000
"""The priority that a filter gets by itself, where none is taken from the second number on."""
MAX_CHAIN: Final = 0x0FFF_FFFF
_ETH_HLEN: Final = 14
_NOTHING: Final = Counters()

_QDISC = struct.Struct("=ci")
_SHARED = struct.Struct("=I")
"""The index of the block that a qdisc shares, or 0; its kind follows."""
_CHAIN = struct.Struct("=cq?I")
_PARENT = struct.Struct("=cq?")
_ACTION = struct.Struct("=cI")
_INSTANCE = struct.Struct("=QI?")
"""When made (ns), references that are not filters', whether a filter made it; an action's attributes follow."""
_FILTER = struct.Struct("=cq?III")
_MADE = struct.Struct("=QHHH")
"""When made (ns), protocol, rank, number of places that follow; then come the actions' indices, and the request."""
_TWINS: Final = 4
_NEWEST: Final = (1 << _TWINS) - 1
_LAST_RANK: Final = 0xFFFF
"""A filter's rank among those of its priority: the age of its mask, and (so many low bits) of one key the newest."""
_PLACE = struct.Struct("=IIiH")
"""Rule handle, in-port, device, length of the place's name that follows."""


@dataclass(slots=True)
class Filter:
    """One filter: what it matches and does, and where its rule is."""

    handle: int
    identity: Identity
    masks: tuple[tuple[str, int], ...]
    """What its key is, masked, and the masks."""
    classid: int | None
    flags: int
    listed: tuple[tc_actions.Listed, ...]
    steps: tuple[tc_actions.Step, ...]
    placed: tuple[Placed, ...]
    """Where the rule is: the eSwitch, the node's pipeline, or both where both see such packets: those in tunnels, and
    of internal ports, whose own packets are the node's."""
    made_ns: int = 0
    first_ns: int = 0
    record: bytes = b""
    """Where the journal keeps it."""
    before: Counters = _NOTHING
    """What its rule had counted when the filter took the place of another: new actions count from 0."""
    rank: int = 0
    """Its place among the filters of its priority."""
    request: bytes = b""
    """The payload of the request that made it, from struct tcmsg on."""
    shape: Shape | None = None
    indices: tuple[int, ...] = ()
    """The indices of its actions."""
    shared: bool = False
    """Whether an action of its is, or was, one that others may use too."""
    translated: FlowerKey | None = None
    """Its key, unless it was made by its shape: then it is in the request."""
    hardware: Placed | None = field(init=False)
    """Its rule in the eSwitch."""

    def __post_init__(self) -> None:
        self.put_in(self.placed)

    def put_in(self, places: tuple[Placed, ...]) -> None:
        """Its rule is in these *places* now."""
        self.placed, self.hardware = places, None
        for placed in places:
            if placed.nic is not None:
                self.hardware = placed
                break

    @property
    def in_hw(self) -> bool:
        """Whether an eSwitch has the rule."""
        return self.hardware is not None

    @property
    def in_hw_count(self) -> int:
        """How many eSwitches have the rule."""
        return 0 if self.hardware is None else sum(placed.nic is not None for placed in self.placed)

    def state(self, counters: Counters) -> tc_actions.ActionState:
        """What its actions share, with what it has counted."""
        return tc_actions.ActionState(counters, self.made_ns, self.first_ns, self.in_hw, bool(self.flags & SKIP_HW))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its actions."""
        return self.shape.kinds if self.shape is not None else tuple(one.kind for one in self.listed)

    @property
    def key(self) -> FlowerKey:
        """Its key."""
        if self.translated is not None:
            return self.translated
        assert self.shape is not None
        return self.shape.key(self.request)


@dataclass(slots=True)
class Age:
    """A mask's place among those of its priority, in which packets meet them, and how many filters have the mask."""

    age: int
    filters: int = 0

    @property
    def rank(self) -> int:
        """The rank of a filter with this mask that is the only one with its key."""
        return min(self.age << _TWINS | _NEWEST, _LAST_RANK)


@dataclass(slots=True)
class Known:
    """Where the filters of one shape and priority go, while the mask has filters, and the values of their rules."""

    age: Age
    placement: Placement
    values: Values


@dataclass(slots=True)
class Proto:
    """The filters of one priority (struct tcf_proto)."""

    prio: int
    protocol: int
    kind: str
    filters: dict[int, Filter] = field(default_factory=dict)
    keys: dict[Identity, int] = field(default_factory=dict)
    older: dict[Identity, list[int]] = field(default_factory=dict)
    """Filters whose key another was given later (fl_ht_insert_unique allows that to one that is overwritten)."""
    ages: dict[tuple[tuple[str, int], ...], Age] = field(default_factory=dict)
    """Of each mask."""
    places: WeakKeyDictionary[Shape, Known] = field(default_factory=WeakKeyDictionary)
    """Where filters of a shape went, and others will go."""
    handles: Idr = field(init=False)

    def __post_init__(self) -> None:
        self.handles = Idr(self.filters)

    def rank(self, key: FlowerKey, old: Filter | None) -> int:
        """The place of a filter with *key* among those of this priority, if it takes that of *old*; ENOSPC."""
        twin = self.keys.get(key.identity)
        if twin is not None:
            newest = self.filters[twin]
            if newest is old:
                return old.rank
            if not newest.rank & _NEWEST:
                raise NetlinkError(errno.ENOSPC)
            return newest.rank - 1
        age = self.ages.get(key.masks)
        if age is None:
            age = Age(max((other.age for other in self.ages.values()), default=0) + 1)
        return age.rank

    def hold(self, one: Filter) -> None:
        """Take in a filter that has its rank and handle."""
        self.filters[one.handle] = one
        twin = self.keys.get(one.identity)
        if twin is not None:
            self.older.setdefault(one.identity, []).append(twin)
        self.keys[one.identity] = one.handle
        age = self.ages.get(one.masks)
        if age is None:
            age = self.ages[one.masks] = Age(one.rank >> _TWINS)
        age.filters += 1

    def drop(self, one: Filter) -> None:
        """Undo :meth:`hold`."""
        identity, masks = one.identity, one.masks
        del self.filters[one.handle]
        older = self.older.get(identity, [])
        if self.keys[identity] != one.handle:
            older.remove(one.handle)
        elif older:
            self.keys[identity] = older.pop()
        else:
            del self.keys[identity]
        if not older:
            self.older.pop(identity, None)
        age = self.ages[masks]
        age.filters -= 1
        if not age.filters:
            del self.ages[masks]


@dataclass(frozen=True, slots=True)
class Template:
    """What all filters of a chain are: of a *kind*, and with masks within those of *key*."""

    kind: str
    key: FlowerKey
    request: bytes

    def check(self, key: FlowerKey) -> None:
        """EINVAL for a filter whose key does not fit (fl_mask_fits_tmplt)."""
        masks = dict(self.key.masks)
        for name, mask in key.masks:
            allowed = masks.get(name, 0)
            if name != "addresses" and (allowed != -1 if mask == -1 else allowed != -1 and mask & ~allowed):
                raise NetlinkError(errno.EINVAL, "cls_flower: Mask does not fit the template")


@dataclass(slots=True)
class Block:
    """The filters of one device and direction, or of the devices that share them: chains of priorities."""

    ifindex: int
    """The device, or -1 where devices share it."""
    egress: bool
    chains: dict[int, dict[int, Proto]] = field(default_factory=dict)
    explicit: dict[int, Template | None] = field(default_factory=dict)
    """Chains that somebody asked for, which stay when they are empty."""
    parent: int = 0
    """The parent by which filters were last put here: the one that dumps tell (struct tcf_block, classid). A
    shared one's index."""
    index: int = 0
    """By which devices share it; 0: they do not."""
    devices: list[int] = field(default_factory=list)
    """Those that have it."""
    returned: bool = False
    """Whether hardware has, or had, a rule here that gives packets to the host, whose software goes through the filters
    again: those that are in hardware are then in software too, as with the kernel they always are."""

    @property
    def identity(self) -> int:
        """What the journal knows it by."""
        return -self.index if self.index else self.ifindex

    def protos(self, chain: int | None = None) -> Iterator[tuple[int, Proto]]:
        """(chain, proto) in order of chain, then priority."""
        for index in sorted(self.chains):
            if chain in (None, index):
                for prio in sorted(self.chains[index]):
                    yield index, self.chains[index][prio]


@dataclass(slots=True)
class Qdisc:
    """An ingress or clsact qdisc and its blocks."""

    kind: str
    ingress: Block
    egress: Block

    @property
    def blocks(self) -> tuple[Block, Block]:
        """Both."""
        return self.ingress, self.egress


def check_device(ifindex: int) -> None:
    """ENODEV where there is no such device."""
    try:
        socket.if_indextoname(ifindex)
    except (OSError, OverflowError):
        raise NetlinkError(errno.ENODEV) from None


def _is_tunnel(steps: tuple[tc_actions.Step, ...]) -> bool:
    return any(isinstance(step, SetTunnel) for step in steps)


def _uses_tunnel(steps: tuple[tc_actions.Step, ...]) -> bool:
    """Whether software takes over from hardware: where a neighbour is not known, or a packet came in fragments."""
    return any(isinstance(step, SetTunnel | Decap) for step in steps)


def _gives_back(one: Filter) -> bool:
    """Whether hardware gives the packets of a filter to the host."""
    return one.in_hw and any(isinstance(step, tc_actions.Trap | Pass) for step in one.steps)


def _priority(prio: int, rank: int) -> int:
    """The rule priority of a filter: masks of one priority are met in the order in which they came (fl_mask_lookup)."""
    return prio << 16 | rank


def _since(before: Counters, now: Counters) -> Counters:
    if not before.packets:
        return now
    packets = now.packets - before.packets
    return Counters(packets, now.bytes - before.bytes, now.used_ns if packets else 0)


class Filters:
    """Every qdisc and filter of the node."""

    def __init__(self, offloader: Offloader, journal: Journal) -> None:
        self.offloader = offloader
        self._journal = journal
        self.qdiscs: dict[int, Qdisc] = {}
        self.shared: dict[int, Block] = {}
        """Blocks that devices share, by index."""
        self.actions = ActionTable()
        self.check_device: Callable[[int], None] = check_device
        self.refused: NetlinkError | None = None
        """Why the filter that was put last is not in hardware."""
        self._left: dict[str | None, int] = {}
        """How many filters hardware does not encapsulate for now, by why."""
        offloader.others = self._in_hardware

    # ---- qdiscs

    def add_qdisc(self, ifindex: int, kind: str, shared: int = 0) -> None:
        """Add an ingress or clsact qdisc, whose ingress block may be *shared*; NetlinkError where the filters that are
        there cannot be this device's, too."""
        self.reserve()
        block = self.shared.get(shared)
        if block is not None:
            self._bind_device(block, ifindex)
        self._join(ifindex, kind, shared)
        self._journal.put(_QDISC.pack(b"q", ifindex), _SHARED.pack(shared) + kind.encode())

    def _join(self, ifindex: int, kind: str, shared: int) -> None:
        if shared:
            ingress = self.shared.setdefault(shared, Block(-1, False, parent=shared, index=shared))
        else:
            ingress = Block(ifindex, False)
        ingress.devices.append(ifindex)
        self.qdiscs[ifindex] = Qdisc(kind, ingress, Block(ifindex, True, devices=[ifindex]))

    def remove_qdisc(self, ifindex: int) -> None:
        """Remove the qdisc, and its filters unless other devices share them."""
        qdisc = self.qdiscs.pop(ifindex)
        self._journal.delete(_QDISC.pack(b"q", ifindex))
        for block in qdisc.blocks:
            block.devices.remove(ifindex)
            if block.devices:
                self._unbind_device(block, ifindex)
                continue
            self.shared.pop(block.index, None)
            for _, proto in list(block.protos()):
                for one in list(proto.filters.values()):
                    self._unplace(one)
            for chain in list(block.explicit):
                self._journal.delete(_CHAIN.pack(b"c", block.identity, block.egress, chain))
            if block.parent and not block.index:
                self._journal.delete(_PARENT.pack(b"p", block.identity, block.egress))

    def _bind_device(self, block: Block, ifindex: int) -> None:
        """Put a block's filters on one more device (tcf_block_offload_bind, tcf_block_playback_offloads)."""
        filters = [(chain, proto, one) for chain, proto in block.protos() for one in proto.filters.values()]
        if any(one.in_hw for *_, one in filters):
            self.offloader.may_bind(ifindex)
        added: list[tuple[Placed, ...]] = []
        try:
            for chain, proto, one in filters:
                priority = _priority(proto.prio, one.rank)
                added.append(
                    self._place_on(block, ifindex, chain, proto.kind, priority, one.key, one.steps, one.flags, None)
                )
        except NetlinkError:
            for places in added:
                self._undo(places)
            raise
        for (chain, proto, one), places in zip(filters, added, strict=True):
            one.put_in(one.placed + places)
            self.keep(block, chain, proto, one)

    def _unbind_device(self, block: Block, ifindex: int) -> None:
        """Take a block's filters off a device; what they have counted there stays counted."""
        for chain, proto in block.protos():
            for one in proto.filters.values():
                shown, there = self.counters([one])[0], [placed for placed in one.placed if placed.device == ifindex]
                one.put_in(tuple(placed for placed in one.placed if placed.device != ifindex))
                one.before = _NOTHING
                left = self.counters([one])[0]
                one.before = Counters(left.packets - shown.packets, left.bytes - shown.bytes)
                self._undo(there)
                self.keep(block, chain, proto, one)

    def put_by(self, block: Block, parent: int) -> None:
        """Filters are put into the block by this *parent*, which dumps tell from now on."""
        if block.parent != parent:
            self.reserve()
            block.parent = parent
            self._journal.put(_PARENT.pack(b"p", block.identity, block.egress), struct.pack("=I", parent))

    # ---- filters

    def put(
        self, block: Block, chain: int, proto: Proto, handle: int, options: Attrs, *, excl: bool, create: bool
    ) -> Filter:
        """Add or replace a filter (fl_change); see there for errors."""
        old = proto.filters.get(handle) if handle else None
        if old is not None and excl:
            raise NetlinkError(errno.EEXIST, "Filter already exists")
        if old is None and not create:
            raise NetlinkError(errno.ENOENT, "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter")
        if proto.kind == "matchall" and proto.filters:  # there is but one, and it stays (mall_change)
            raise NetlinkError(errno.EEXIST)
        flags = options.get("flags", 0)
        if flags & ~_USER_FLAGS or flags & (SKIP_HW | SKIP_SW) == SKIP_HW | SKIP_SW:
            raise NetlinkError(errno.EINVAL)
        actions = options.get("act")
        steps: tuple[tc_actions.Step, ...] = ()
        listed: tuple[tc_actions.Listed, ...] = ()
        if isinstance(actions, Attrs):
            skips = (flags & SKIP_HW and tc_actions.FLAG_SKIP_HW) | (flags & SKIP_SW and tc_actions.FLAG_SKIP_SW)
            steps, listed = tc_actions.parse(actions, self, skips)
        try:
            for step in steps:
                if isinstance(step, tc_actions.Mirred):
                    self.check_device(step.ifindex)  # tcf_mirred_init()
            made = self._made(block, chain, proto, handle, options, steps, listed, old)
        except Exception:
            self._give_back(listed)
            raise
        for one in listed:  # before the old filter leaves its actions, which may be these
            if one.instance is not None:
                self._bind(one.kind, one.instance, made)
        if old is not None:
            proto.drop(old)
            kept = {(id(now.pipeline), now.handle) for now in made.placed}
            self._release(old)
            for was in old.placed:
                if (id(was.pipeline), was.handle) not in kept:
                    was.pipeline.remove(was.handle)
            made.before = self.counters([made])[0]
        proto.hold(made)
        block.chains.setdefault(chain, {})[proto.prio] = proto
        if not block.returned and _gives_back(made):
            self._put_in_software(block)
        return made

    def _put_in_software(self, block: Block) -> None:
        """Have the filters that are in hardware alone in software too, as far as that can."""
        block.returned = True
        for chain, proto in block.protos():
            for one in proto.filters.values():
                if one.flags & SKIP_SW or any(placed.nic is None or placed.receive for placed in one.placed):
                    continue
                priority = _priority(proto.prio, one.rank)
                there = [self._twin(ifindex, chain, priority, one.key, one.steps) for ifindex in block.devices]
                one.put_in((*one.placed, *(placed for placed in there if placed is not None)))
                if one.request:
                    self.keep(block, chain, proto, one)

    def _twin(
        self,
        ifindex: int,
        chain: int,
        prio: int,
        key: FlowerKey,
        steps: tuple[tc_actions.Step, ...],
        old: Filter | None = None,
    ) -> Placed | None:
        """The rule in software of a filter that is in hardware; None where software cannot."""
        try:
            pipeline, rule = self.offloader.software(ifindex, chain, prio, key.match, steps)
            return Placed(pipeline, self._add(pipeline, rule, old), rule.in_port, device=ifindex)
        except NetlinkError:
            return None

    def _made(
        self,
        block: Block,
        chain: int,
        proto: Proto,
        handle: int,
        options: Attrs,
        steps: tuple[tc_actions.Step, ...],
        listed: tuple[tc_actions.Listed, ...],
        old: Filter | None,
    ) -> Filter:
        """The filter, its rules in place; errors as :meth:`put`."""
        flags = options.get("flags", 0)
        key = parse_flower(options, proto.protocol)
        template = block.explicit.get(chain)
        if template is not None:
            template.check(key)
        if old is not None and old.masks != key.masks:
            raise NetlinkError(errno.EINVAL)
        if key.identity in proto.keys and old is None:
            raise NetlinkError(errno.EEXIST)
        self.reserve()
        rank = proto.rank(key, old)
        placed = self._place(block, chain, proto.kind, _priority(proto.prio, rank), key, steps, flags, old)
        return Filter(
            handle or proto.handles.lowest(),
            key.identity,
            key.masks,
            options.get("classid"),
            flags,
            listed,
            steps,
            placed,
            time.monotonic_ns(),
            rank=rank,
            indices=tuple(one.index for one in listed),
            shared=any(one.instance is not None for one in listed),
            translated=key,
        )

    def put_shaped(self, block: Block, proto: Proto, shape: Shape, request: bytes) -> Filter:
        """Add the filter of a request of a known shape, as :meth:`put` would; NetlinkError, as there."""
        identity = shape.identity(request)
        if identity in proto.keys:
            raise NetlinkError(errno.EEXIST)
        self.reserve()
        known = proto.places.get(shape)
        again: Placed | None = None
        if known is not None and known.age.filters and not block.returned:
            rank = known.age.rank
            try:
                again = self.offloader.again(known.placement, known.values.fill(request))
            except OSError as error:
                raise NetlinkError(error.errno or errno.ENOSPC) from None
        if again is not None:
            placed: tuple[Placed, ...] = (again,)
        else:
            key = shape.key(request)
            rank = proto.rank(key, None)
            priority = _priority(proto.prio, rank)
            placed = self._place(block, shape.chain, proto.kind, priority, key, shape.steps, shape.flags, None)
        take = self.actions.take
        made = Filter(
            proto.handles.lowest(),
            identity,
            shape.masks,
            shape.classid,
            shape.flags,
            (),
            shape.steps,
            placed,
            time.monotonic_ns(),
            0,
            b"",
            _NOTHING,
            rank,
            request,
            shape,
            tuple([take(kind) for kind in shape.kinds]),
        )
        proto.hold(made)
        if again is None:
            self.remember_place(block, proto, made)
        if not block.returned and _gives_back(made):
            self._put_in_software(block)
        return made

    def remember_place(self, block: Block, proto: Proto, one: Filter) -> None:
        """Where a filter went others of its shape will go."""
        shape, hardware = one.shape, one.hardware
        if shape is None or hardware is None or len(one.placed) > 1:
            return
        placement = self.offloader.placement(block.ifindex, hardware, one.steps)
        if placement is None:
            proto.places.pop(shape, None)
        else:
            proto.places[shape] = Known(proto.ages[one.masks], placement, shape.values(placement.pattern.key))

    def _place(
        self,
        block: Block,
        chain: int,
        kind: str,
        prio: int,
        key: FlowerKey,
        steps: tuple[tc_actions.Step, ...],
        flags: int,
        old: Filter | None,
    ) -> tuple[Placed, ...]:
        """Put the rule of a filter on each of the block's devices."""
        if not block.index:
            return self._place_on(block, block.ifindex, chain, kind, prio, key, steps, flags, old)
        done: tuple[Placed, ...] = ()
        refusal: NetlinkError | None = None
        try:
            for ifindex in block.devices:
                done += self._place_on(block, ifindex, chain, kind, prio, key, steps, flags, old)
                refusal = refusal or self.refused
        except NetlinkError:
            self._undo(done, old)
            raise
        self.refused = refusal
        return done

    def _place_on(
        self,
        block: Block,
        ifindex: int,
        chain: int,
        kind: str,
        prio: int,
        key: FlowerKey,
        steps: tuple[tc_actions.Step, ...],
        flags: int,
        old: Filter | None,
    ) -> tuple[Placed, ...]:
        """Put the rule into hardware where it can be, else into the node's pipeline, as the flags allow."""
        refusal: NetlinkError | None = None
        placed: list[Placed] = []
        if not flags & SKIP_HW:
            try:
                self.offloader.offered(ifindex, kind, prio >> 16, steps)
                rules = self.offloader.hardware(ifindex, chain, prio, key.match, steps)
                for nic, pf, pipeline, rule in rules:
                    handle = self._add(pipeline, rule, old)
                    receive = self.offloader.receives(ifindex)
                    placed.append(Placed(pipeline, handle, rule.in_port, nic, pf, ifindex, receive))
            except NetlinkError as error:
                refusal = error
        self.refused = refusal
        if flags & SKIP_SW:
            if not placed:
                raise refusal or NetlinkError(errno.EOPNOTSUPP)
        elif not placed or block.egress or _uses_tunnel(steps):
            try:
                pipeline, rule = self.offloader.software(ifindex, chain, prio, key.match, steps)
                placed.append(Placed(pipeline, self._add(pipeline, rule, old), rule.in_port, device=ifindex))
            except NetlinkError:
                self._undo(placed, old)
                raise
        elif block.returned and not placed[0].receive:
            twin = self._twin(ifindex, chain, prio, key, steps, old)
            placed += [twin] if twin is not None else []
        return tuple(placed)

    @staticmethod
    def _undo(places: Iterable[Placed], old: Filter | None = None) -> None:
        """Take rules away again, but for those that the *old* filter has."""
        kept = {(id(placed.pipeline), placed.handle) for placed in (old.placed if old is not None else ())}
        for placed in places:
            if (id(placed.pipeline), placed.handle) not in kept:
                placed.pipeline.remove(placed.handle)

    @staticmethod
    def _add(pipeline: Pipeline, rule: Rule, old: Filter | None) -> int:
        """Install a rule, its handle; in place where only the actions of the old one change."""
        for placed in old.placed if old is not None else ():
            if placed.pipeline is pipeline and replace(placed.rule, actions=rule.actions) == rule:
                pipeline.replace(placed.handle, rule.actions)
                return placed.handle
        try:
            return pipeline.add(rule)
        except OSError as error:
            raise NetlinkError(error.errno or errno.ENOSPC) from None

    def _unplace(self, one: Filter) -> None:
        self._release(one)
        for placed in one.placed:
            placed.pipeline.remove(placed.handle)
        self._journal.delete(one.record)

    def remove(self, block: Block, chain: int, proto: Proto, handle: int) -> Filter:
        """Remove one filter, and its priority with the last one; ENOENT."""
        one = proto.filters.get(handle)
        if one is None:
            raise NetlinkError(errno.ENOENT, "Specified filter handle not found")
        proto.drop(one)
        proto.handles.give(handle)
        self._unplace(one)
        if not proto.filters:
            self._drop_proto(block, chain, proto)
        return one

    def remove_proto(self, block: Block, chain: int, proto: Proto) -> None:
        """Remove every filter of a priority."""
        for one in proto.filters.values():
            self._unplace(one)
        for held in (proto.filters, proto.keys, proto.older, proto.ages, proto.places):
            held.clear()
        self._drop_proto(block, chain, proto)

    @staticmethod
    def _drop_proto(block: Block, chain: int, proto: Proto) -> None:
        protos = block.chains.get(chain, {})
        if protos.get(proto.prio) is proto:
            del protos[proto.prio]
        if not protos and chain not in block.explicit:
            block.chains.pop(chain, None)

    def counters(self, filters: list[Filter]) -> list[Counters]:
        """What each filter has done, as TC counts: software without the Ethernet header, hardware with it."""
        by_pipeline: dict[int, list[tuple[int, Placed]]] = {}
        for index, one in enumerate(filters):
            for placed in one.placed:
                by_pipeline.setdefault(id(placed.pipeline), []).append((index, placed))
        out = [Counters()] * len(filters)
        for wanted in by_pipeline.values():
            read = wanted[0][1].pipeline.counters([placed.handle for _, placed in wanted])
            for (index, placed), counters in zip(wanted, read, strict=True):
                one, so_far = filters[index], out[index]
                if counters.packets and not one.first_ns:
                    one.first_ns = counters.used_ns
                octets = counters.bytes - (_ETH_HLEN * counters.packets if placed.nic is None else 0)
                out[index] = Counters(
                    so_far.packets + counters.packets,
                    so_far.bytes + max(0, octets),
                    max(so_far.used_ns, counters.used_ns),
                )
        return [_since(one.before, counters) for one, counters in zip(filters, out, strict=True)]

    def reresolve(self) -> None:
        """Routes or neighbours have changed: tunnels follow them."""
        left: dict[str | None, int] = {}
        for block, chain, proto, one in list(self.all()):
            if one.hardware is None or not _is_tunnel(one.steps):
                continue
            for placed in one.placed:
                if placed.nic is None or placed.pf is None:
                    continue
                ifindex = placed.device if block.index else block.ifindex
                try:
                    priority = _priority(proto.prio, one.rank)
                    ((*_, rule),) = self.offloader.hardware(ifindex, chain, priority, one.key.match, one.steps)
                    actions = rule.actions
                except NetlinkError as error:
                    left[error.strerror] = left.get(error.strerror, 0) + 1
                    actions = self.offloader.to_host(ifindex)
                placed.pipeline.replace(placed.handle, actions)
        if left != self._left:
            for reason, count in left.items():
                log.info("software sends what %d filters encapsulate: %s", count, reason)
            if not left:
                log.info("hardware encapsulates again")
        self._left = left

    def _in_hardware(self, ifindex: int) -> Iterator[tuple[tc_actions.Step, ...]]:
        """What the device's ingress filters do that are in hardware."""
        qdisc = self.qdiscs.get(ifindex)
        for _, proto in qdisc.ingress.protos() if qdisc is not None else ():
            for one in proto.filters.values():
                if one.in_hw:
                    yield one.steps

    def all(self) -> Iterator[tuple[Block, int, Proto, Filter]]:
        """Every filter."""
        own = (block for qdisc in self.qdiscs.values() for block in qdisc.blocks if not block.index)
        for block in (*own, *self.shared.values()):
            for chain, proto in block.protos():
                for one in proto.filters.values():
                    yield block, chain, proto, one

    # ---- keeping

    def reserve(self) -> None:
        """Refuse a change that could not be kept, before it is made."""
        try:
            self._journal.reserve()
        except OSError as error:
            raise NetlinkError(error.errno or errno.ENOSPC) from None

    def keep(self, block: Block, chain: int, proto: Proto, one: Filter) -> None:
        """Remember a filter."""
        one.record = _FILTER.pack(b"f", block.identity, block.egress, chain, proto.prio, one.handle)
        value = _MADE.pack(one.made_ns, proto.protocol, one.rank, len(one.placed))
        for placed in one.placed:
            value += _PLACE.pack(placed.handle, placed.in_port, placed.device, len(name := placed.name)) + name
        indices = one.indices
        value += struct.pack(f"=B{len(indices)}I", len(indices), *indices)
        self._journal.put(one.record, value + one.request)

    def restore(self, nics: dict[str, Nic]) -> list[int]:
        """Take up the qdiscs and filters of an earlier run; their rules are in the pipelines still. The devices."""
        for key, value in self._journal.items():
            if key[:1] == b"q":
                ifindex = _QDISC.unpack(key)[1]
                self._join(ifindex, value[_SHARED.size :].decode(), *_SHARED.unpack_from(value))
        for key, value in self._journal.items():
            if key[:1] == b"a":
                self._restore_action(key, value)
            elif key[:1] == b"c":
                self._restore_chain(key, value)
            elif key[:1] == b"p":
                _, identity, egress = _PARENT.unpack(key)
                (self._block(identity, egress).parent,) = struct.unpack("=I", value)
        for key, value in self._journal.items():
            if key[:1] == b"f":
                self._restore(key, value, nics)
        for block, _, _, one in self.all():
            block.returned |= _gives_back(one)
        return list(self.qdiscs)

    def _restore(self, record: bytes, value: bytes, nics: dict[str, Nic]) -> None:
        _, identity, egress, chain, prio, handle = _FILTER.unpack(record)
        made_ns, protocol, rank, count = _MADE.unpack_from(value)
        at, places = _MADE.size, []
        for _ in range(count):
            rule_handle, in_port, device, length = _PLACE.unpack_from(value, at)
            at += _PLACE.size + length
            places.append((value[at - length : at].decode(), rule_handle, in_port, device))
        indices = struct.unpack_from(f"={value[at]}I", value, at + 1)
        request = value[at + 1 + 4 * len(indices) :]
        _, attrs = TC.decode(request)
        options, kind = attrs["options"], attrs.get("kind", "flower")
        block = self._block(identity, egress)
        proto = block.chains.setdefault(chain, {}).setdefault(prio, Proto(prio, protocol, kind))
        key = parse_flower(options, protocol)
        actions = options.get("act")
        steps, listed = tc_actions.parse(actions, Given(indices, self.actions.instance)) if actions else ((), ())
        placed = tuple(
            replace(self.offloader.placed(place, nics, in_port, rule_handle, steps), device=device)
            for place, rule_handle, in_port, device in places
        )
        one = Filter(
            handle,
            key.identity,
            key.masks,
            options.get("classid"),
            options.get("flags", 0),
            listed,
            steps,
            placed,
            made_ns,
            0,
            record,
            rank=rank,
            request=request,
            indices=indices,
            shared=any(action.instance is not None for action in listed),
            translated=key,
        )
        proto.hold(one)
        for action in listed:
            if action.instance is None:
                self.actions.take(action.kind, action.index)
            else:
                action.instance.references += 1
                action.instance.filters.append(one)

    def _restore_action(self, key: bytes, value: bytes) -> None:
        _, index = _ACTION.unpack_from(key)
        made_ns, references, by_filter = _INSTANCE.unpack_from(value)
        request = value[_INSTANCE.size :]
        action = ACTION.decode(request)
        instance = Instance(index, tc_actions.parse_one(action), request, made_ns, references, by_filter=by_filter)
        self.actions.take(action["kind"], index)
        self.actions.share(action["kind"], instance)

    def _block(self, identity: int, egress: bool) -> Block:
        """The block that the journal knows by *identity*."""
        if identity < 0:
            return self.shared[-identity]
        qdisc = self.qdiscs[identity]
        return qdisc.egress if egress else qdisc.ingress

    def _restore_chain(self, key: bytes, value: bytes) -> None:
        _, identity, egress, chain = _CHAIN.unpack(key)
        block = self._block(identity, egress)
        block.explicit[chain] = template_of(value) if value else None
        block.chains.setdefault(chain, {})

    # ---- chains

    def add_chain(self, block: Block, chain: int, template: Template | None) -> None:
        """Make a chain that stays when it is empty."""
        self.reserve()
        block.explicit[chain] = template
        block.chains.setdefault(chain, {})
        key = _CHAIN.pack(b"c", block.identity, block.egress, chain)
        self._journal.put(key, template.request if template is not None else b"")

    def remove_chain(self, block: Block, chain: int) -> None:
        """Remove a chain and all that is in it."""
        for _, proto in list(block.protos(chain)):
            self.remove_proto(block, chain, proto)
        if chain in block.explicit:
            del block.explicit[chain]
            self._journal.delete(_CHAIN.pack(b"c", block.identity, block.egress, chain))
        block.chains.pop(chain, None)

    # ---- actions

    def bound(self, kind: str, index: int) -> Instance | None:
        """The action with this index, from now on one that filters and users share; None where there is none."""
        if not index or not self.actions.has(kind, index):
            return None
        return self.actions.instance(kind, index) or self._share(kind, index)

    def take(self, kind: str, index: int) -> int:
        """The index of a filter's new action."""
        return self.actions.take(kind, index)

    def give(self, kind: str, index: int) -> None:
        """Take the index back."""
        self.actions.give(kind, index)

    def owners(self, kind: str) -> dict[int, tuple[Filter, int]]:
        """The filters that have actions of a kind, by the action's index, and the place in their list."""
        return {
            index: (one, at)
            for _, _, _, one in self.all()
            for at, (its_kind, index) in enumerate(zip(one.kinds, one.indices, strict=True))
            if its_kind == kind
        }

    def listed(self, one: Filter) -> tuple[tc_actions.Listed, ...]:
        """A filter's actions."""
        if one.listed or one.shape is None:
            return one.listed
        return one.shape.read(one.request, one.indices)[1]

    def _share(self, kind: str, index: int) -> Instance:
        """Let a filter's own action be one that may be shared."""
        owners = self.owners(kind)
        if index not in owners:  # an action before it in the same request has the index (tcf_idr_check_alloc)
            raise NetlinkError(errno.EAGAIN)
        owner, at = owners[index]
        request = TC.decode(owner.request)[1]["options"]["act"]
        action = tc_actions.in_order(request)[at]
        instance = Instance(index, tc_actions.parse_one(action), ACTION.encode(action), owner.made_ns, by_filter=True)
        instance.filters.append(owner)
        self.actions.share(kind, instance)
        listed = self.listed(owner)
        owner.listed = (*listed[:at], replace(listed[at], instance=instance), *listed[at + 1 :])
        owner.shared = True
        self.keep_action(kind, instance)
        return instance

    def _bind(self, kind: str, instance: Instance, one: Filter) -> None:
        instance.references += 1
        instance.filters.append(one)
        self.keep_action(kind, instance)

    def _give_back(self, listed: tuple[tc_actions.Listed, ...]) -> None:
        """A filter with these actions was not made."""
        for one in listed:
            if one.instance is None:
                self.actions.give(one.kind, one.index)

    def _release(self, one: Filter) -> None:
        """A filter leaves its actions (tcf_exts_destroy)."""
        if not one.shared:
            give = self.actions.give
            for kind, index in zip(one.kinds, one.indices, strict=True):
                give(kind, index)
            return
        counted = self.counters([one])[0]
        for listed in one.listed:
            instance = listed.instance
            if instance is None:
                self.actions.give(listed.kind, listed.index)
                continue
            instance.filters.remove(one)
            instance.past = _sum(instance.past, counted if listed.reached else _NOTHING)
            self.drop_reference(listed.kind, instance)

    def drop_reference(self, kind: str, instance: Instance) -> None:
        """One reference less to an action; it goes with the last."""
        instance.references -= 1
        if instance.references:
            self.keep_action(kind, instance)
            return
        self.actions.give(kind, instance.index)
        self._journal.delete(_ACTION.pack(b"a", instance.index) + kind.encode())

    def keep_action(self, kind: str, instance: Instance) -> None:
        """Remember an action that may be shared."""
        value = _INSTANCE.pack(instance.made_ns, instance.references - instance.bindings, instance.by_filter)
        self._journal.put(_ACTION.pack(b"a", instance.index) + kind.encode(), value + instance.request)

    def action_state(self, instance: Instance) -> tc_actions.ActionState:
        """What an action has done for all filters that use it, and did for those that are no more."""
        total, first = instance.past, instance.first_ns
        for one, counted in zip(instance.filters, self.counters(list(instance.filters)), strict=True):
            total = _sum(total, counted)
            first = min(filter(None, (first, one.first_ns)), default=0)
        instance.first_ns = first
        in_hw = any(one.in_hw for one in instance.filters)
        skip_hw = instance.by_filter and any(one.flags & SKIP_HW for one in instance.filters)
        return tc_actions.ActionState(total, instance.made_ns, first, in_hw, skip_hw)

    def action_changed(self, instance: Instance) -> None:
        """An action does something else: so do the rules of software that have it. Hardware goes on as it was told
        (mlx5 is not told of actions that change)."""
        for block, chain, proto, one in list(self.all()):
            if one not in instance.filters:
                continue
            request = TC.decode(one.request)[1]["options"]["act"]
            one.steps, one.listed = tc_actions.parse(request, Given(one.indices, self.actions.instance))
            for placed in one.placed:
                if placed.nic is None:
                    priority = _priority(proto.prio, one.rank)
                    _, rule = self.offloader.software(block.ifindex, chain, priority, one.key.match, one.steps)
                    placed.pipeline.replace(placed.handle, rule.actions)


def template_of(request: bytes) -> Template:
    """The template that a request for a chain (struct tcmsg on) asks for; errors as :func:`.tc_flower.parse`."""
    header, attrs = TC.decode(request)
    return Template(attrs["kind"], parse_flower(attrs["options"], header.protocol), request)


def _sum(one: Counters, other: Counters) -> Counters:
    return Counters(one.packets + other.packets, one.bytes + other.bytes, max(one.used_ns, other.used_ns))
