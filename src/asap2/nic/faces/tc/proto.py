# SPDX-License-Identifier: Apache-2.0
"""The filters of one priority, in the order in which packets meet them (struct tcf_proto, struct cls_fl_head)."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.idr import Idr
from asap2.nic.faces.tc.filter import Filter
from asap2.nic.faces.tc.flower import FlowerKey, Identity
from asap2.nic.faces.tc.offload import Placement
from asap2.nic.faces.tc.templates import Template, Values

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
