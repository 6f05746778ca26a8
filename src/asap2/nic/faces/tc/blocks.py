# SPDX-License-Identifier: Apache-2.0
"""Where filters are: ingress and clsact qdiscs, their blocks, and the chains and priorities of a block.

Sources: struct tcf_block, tcf_chain and tcf_proto of net/sched/cls_api.c; struct cls_fl_head of cls_flower.c.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.idr import Idr
from asap2.nic.faces.tc.chain_templates import ChainTemplate
from asap2.nic.faces.tc.filter import Filter
from asap2.nic.faces.tc.flower import FlowerKey, Identity
from asap2.nic.faces.tc.offload import Placement
from asap2.nic.faces.tc.spec import FilterSpec
from asap2.nic.faces.tc.steps import Step
from asap2.nic.faces.tc.templates import Template, Values

MAX_CHAIN: Final = 0x0FFF_FFFF
AUTO_PRIO: Final = 0xC000
FIRST_OF_AUTO: Final = 0x8000
"""The priority that a filter gets by itself, where none is taken from the second number on."""
_TWINS: Final = 4
_NEWEST: Final = (1 << _TWINS) - 1
_LAST_RANK: Final = 0xFFFF
"""A filter's rank among those of its priority: the age of its mask, and (so many low bits) of one key the newest."""


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
    """Where the filters of one template and priority go, while the mask has filters, and the values of their rules."""

    age: Age
    placement: Placement
    values: Values


@dataclass(slots=True, eq=False)
class Proto:
    """The filters of one priority in a chain of a block, in the order in which packets meet them (struct tcf_proto)."""

    block: Block = field(repr=False)
    chain: int
    prio: int
    protocol: int
    kind: str
    filters: dict[int, Filter] = field(default_factory=dict)
    keys: dict[Identity, int] = field(default_factory=dict)
    older: dict[Identity, list[int]] = field(default_factory=dict)
    """Filters whose key another was given later (fl_ht_insert_unique allows that to one that is overwritten)."""
    ages: dict[tuple[tuple[str, int], ...], Age] = field(default_factory=dict)
    """Of each mask."""
    places: WeakKeyDictionary[Template, Known] = field(default_factory=WeakKeyDictionary)
    """Where filters of a template went, and others will go."""
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

    def spec(self, one: Filter) -> FilterSpec:
        """What a filter is in the eSwitch's vocabulary."""
        key = one.key
        place = self.kind, self.chain, self.prio, one.rank
        return FilterSpec(*place, key.match, one.steps, one.flags, key.ranges, key.indev)


@dataclass(slots=True, eq=False)
class Block:
    """The filters of one device and direction, or of the devices that share them: chains of priorities."""

    ifindex: int
    """The device, or -1 where devices share it."""
    egress: bool
    chains: dict[int, dict[int, Proto]] = field(default_factory=dict)
    explicit: dict[int, ChainTemplate | None] = field(default_factory=dict)
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

    def protos(self, chain: int | None = None) -> Iterator[Proto]:
        """The priorities, of one *chain* or of all, in order of chain, then priority."""
        for index in sorted(self.chains):
            if chain in (None, index):
                for prio in sorted(self.chains[index]):
                    yield self.chains[index][prio]

    def filters(self) -> Iterator[tuple[Proto, Filter]]:
        """Every filter, in that order."""
        for proto in self.protos():
            for one in proto.filters.values():
                yield proto, one


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


class Blocks:
    """Every qdisc and block of the node."""

    def __init__(self) -> None:
        self.qdiscs: dict[int, Qdisc] = {}
        self.shared: dict[int, Block] = {}
        """Blocks that devices share, by index."""

    def join(self, ifindex: int, kind: str, shared: int) -> None:
        """Give a device a qdisc, whose ingress block is the one that is *shared* by this index (0: its own)."""
        if shared:
            ingress = self.shared.setdefault(shared, Block(-1, False, parent=shared, index=shared))
        else:
            ingress = Block(ifindex, False)
        ingress.devices.append(ifindex)
        self.qdiscs[ifindex] = Qdisc(kind, ingress, Block(ifindex, True, devices=[ifindex]))

    def known_by(self, identity: int, egress: bool) -> Block:
        """The block with this :attr:`Block.identity`."""
        if identity < 0:
            return self.shared[-identity]
        qdisc = self.qdiscs[identity]
        return qdisc.egress if egress else qdisc.ingress

    def all(self) -> Iterator[tuple[Proto, Filter]]:
        """Every filter."""
        own = (block for qdisc in self.qdiscs.values() for block in qdisc.blocks if not block.index)
        for block in (*own, *self.shared.values()):
            yield from block.filters()

    def in_hardware(self, ifindex: int) -> Iterator[tuple[Step, ...]]:
        """What the device's ingress filters do that are in hardware."""
        qdisc = self.qdiscs.get(ifindex)
        for *_, one in qdisc.ingress.filters() if qdisc is not None else ():
            if one.in_hw:
                yield one.steps
