# SPDX-License-Identifier: Apache-2.0
"""Queues that are served in turn: who puts much into one waits longer, nobody else does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """First in, first out for each owner; one of each owner in turn. Who had nothing here comes first, once."""

    def __init__(self) -> None:
        self._new: dict[Hashable, deque[T]] = {}
        self._rest: dict[Hashable, deque[T]] = {}

    def __bool__(self) -> bool:
        return bool(self._new or self._rest)

    def put(self, owner: Hashable, item: T) -> None:
        """Add *item* behind those of *owner*."""
        queue = self._rest.get(owner) or self._new.get(owner)
        if queue is None:
            self._new[owner] = deque((item,))
        else:
            queue.append(item)

    def take(self, ready: Callable[[T, bool], bool]) -> T | None:
        """The next item in turn that is *ready*, of those that are first of their owner's; None: none is.

        *ready* is also told whether the owner is new.
        """
        for queues in (self._new, self._rest):
            for owner, queue in list(queues.items()):
                if not ready(queue[0], queues is self._new):
                    continue
                item = queue.popleft()
                del queues[owner]
                if queue:
                    self._rest[owner] = queue
                return item
        return None
