# SPDX-License-Identifier: Apache-2.0
"""The actions of a node by kind and index (net/sched/act_api.c, struct tcf_idrinfo).

An action is the filter's alone that it came with, until another request names its index: only then it becomes an
:class:`.Instance`, which filters and users share. So a filter whose actions nobody names costs a number for each.
"""

from __future__ import annotations

from collections.abc import Iterator

from asap2.nic.faces.idr import Idr
from asap2.nic.faces.tc.actions import Instance


class _Kind:
    """The indices of one kind: the :class:`.Instance` of each that is in use, or None for a filter's own."""

    __slots__ = ("changes", "free", "used")

    def __init__(self) -> None:
        self.changes = 0
        self.used: dict[int, Instance | None] = {}
        self.free = Idr(self.used)


class ActionTable:
    """Every action of the node."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def _kind(self, kind: str) -> _Kind:
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = _Kind()
        return found

    def take(self, kind: str, index: int = 0) -> int:
        """The index of a new action: *index*, which is free, or where that is 0 the lowest that is."""
        known = self._kinds.get(kind)
        if known is None:
            known = self._kind(kind)
        if not index:
            index = known.free.lowest()
        known.used[index] = None
        known.changes += 1
        return index

    def give(self, kind: str, index: int) -> None:
        """Take an index back."""
        known = self._kinds[kind]
        del known.used[index]
        known.changes += 1
        known.free.give(index)

    def changes(self, kind: str) -> int:
        """How often actions of a kind have come, gone or changed."""
        return self._kind(kind).changes

    def changed(self, kind: str) -> None:
        """An action of a kind does something else."""
        self._kind(kind).changes += 1

    def has(self, kind: str, index: int) -> bool:
        """Whether there is such an action."""
        return index in self._kind(kind).used

    def instance(self, kind: str, index: int) -> Instance | None:
        """The action, where it is one that is shared."""
        return self._kind(kind).used.get(index)

    def share(self, kind: str, instance: Instance) -> None:
        """Let an action be one that may be shared."""
        self._kind(kind).used[instance.index] = instance

    def of(self, kind: str) -> Iterator[tuple[int, Instance | None]]:
        """Index and, where it is shared, action, in the order of the indices."""
        used = self._kind(kind).used
        for index in sorted(used):
            yield index, used[index]

    def instances(self) -> Iterator[tuple[str, Instance]]:
        """Every action that is shared, with its kind."""
        for kind, known in self._kinds.items():
            for instance in known.used.values():
                if instance is not None:
                    yield kind, instance
