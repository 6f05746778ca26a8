# SPDX-License-Identifier: Apache-2.0
"""Numbers that users name or let the kernel choose: it gives the lowest free one (idr_alloc_u32)."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Any

from asap2.netlink.wire import NetlinkError

_HIGHEST = 0xFFFF_FFFF


class Idr:
    """The numbers from 1 on that are no keys of *used*, which is for others to change."""

    __slots__ = ("_freed", "_next", "_used")

    def __init__(self, used: Mapping[int, Any]) -> None:
        self._used = used
        self._next = 1
        """Every free number is this, or greater, or among the freed."""
        self._freed: list[int] = []
        """A heap of numbers that were given back; some may be taken again."""

    def lowest(self) -> int:
        """The lowest free number; ENOSPC."""
        used, freed = self._used, self._freed
        while freed:
            if freed[0] not in used:
                return freed[0]
            heappop(freed)
        while self._next in used:
            self._next += 1
        if self._next > _HIGHEST:
            raise NetlinkError(errno.ENOSPC)
        return self._next

    def give(self, number: int) -> None:
        """A number is in use no more."""
        if number >= self._next:
            return
        heappush(self._freed, number)
        if len(self._freed) > 2 * self._next:  # who names numbers gives the same one back again and again
            self._freed = sorted(set(self._freed) - self._used.keys())

    def __len__(self) -> int:
        """How many numbers are remembered."""
        return len(self._freed)
