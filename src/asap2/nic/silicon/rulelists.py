# SPDX-License-Identifier: Apache-2.0
"""The rules of the reference eSwitch, and which of them decides."""

from __future__ import annotations

import errno
from bisect import insort
from dataclasses import replace

from asap2.nic.rules import Action, Counters, Match, Rule
from asap2.nic.silicon.packet import Fields

_Place = tuple[int, int, int]
_Mask = frozenset[tuple[str, int]]


class Entry:
    """A rule. *order* says which of several that match decides: by priority, then by age of the mask."""

    def __init__(self, handle: int, rule: Rule, age: int) -> None:
        self.handle = handle
        self.rule = rule
        self.age = age
        self.order = (rule.priority, age)
        self.packets = self.bytes = 0
        self._tests = [(name, masked.mask, masked.value) for name, masked in rule.match.used().items()]

    def count(self, packets: int, octets: int) -> None:
        """Count packets; what is negative is taken back."""
        self.packets += packets
        self.bytes += octets

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


class RuleLists:
    """All rules by handle, and in the order in which they decide."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._lists: dict[tuple[int, int, bool], list[Entry]] = {}
        self._masks: dict[_Place, _Masks] = {}
        self._taken: set[tuple[_Place, Match]] = set()
        self._next = 1

    def __getitem__(self, handle: int) -> Entry:
        return self._entries[handle]

    def has(self, table: int, port_id: int, *, tunnel: bool) -> bool:
        """Whether a table has rules for packets of a port, those in a tunnel or the others."""
        return bool(self._lists.get((table, port_id, tunnel)))

    def first(self, table: int, port_id: int, fields: Fields, *, tunnel: bool, priority: int = 0) -> Entry | None:
        """The rule that decides about a packet with these *fields*, of those of *priority* or a greater number."""
        entries = self._lists.get((table, port_id, tunnel), ())
        return next((one for one in entries if one.rule.priority >= priority and one.matches(fields)), None)

    def add(self, rule: Rule, handle: int | None = None) -> int:
        """Add *rule*, under *handle* if given. OSError EEXIST when table, port, priority, mask and value are taken."""
        place = _place(rule)
        if (place, rule.match) in self._taken:
            raise OSError(errno.EEXIST, "there is such a rule already")
        self._taken.add((place, rule.match))
        age = self._masks.setdefault(place, _Masks()).hold(_mask(rule.match))
        entry = Entry(handle or self._next, rule, age)
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


def _place(rule: Rule) -> _Place:
    return rule.table, rule.in_port, rule.priority


def _mask(match: Match) -> _Mask:
    return frozenset((name, masked.mask) for name, masked in match.used().items())


def _list(rule: Rule) -> tuple[int, int, bool]:
    """Where a rule is looked for: by packets of which table and port, and whether by those in tunnels."""
    return rule.table, rule.in_port, any(name.startswith("tun_") for name in rule.match.used())
