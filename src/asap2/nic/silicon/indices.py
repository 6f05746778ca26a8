# SPDX-License-Identifier: Apache-2.0
"""Numbers for records that running programs may still be reading when they are given back."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

MANY = 1024
"""Numbers that may rest before a grace period is waited for."""


class Indices:
    """Hand out the numbers 1 to *limit* - 1 (0 means "none" to the program).

    A number given back is not handed out again before a grace period: until then a program that was running may hold
    it. Grace periods take milliseconds, so one is waited for only when many numbers rest, or no other is left; so the
    numbers in use stay low, and with them the memory that their records take.
    """

    def __init__(self, limit: int, what: str, grace: Callable[[], None]) -> None:
        self._limit = limit
        self._what = what
        self._grace = grace
        self._fresh = 1
        self._free: list[int] = []
        self._resting: list[int] = []

    def take(self) -> int:
        """A number nobody uses. Raises :class:`OSError` with ENOSPC when there is none."""
        if not self._free:
            if self._fresh < self._limit and len(self._resting) < MANY:
                self._fresh += 1
                return self._fresh - 1
            if not self._resting:
                raise OSError(errno.ENOSPC, f"no room for more {self._what}: there are {self._limit - 1}")
            self._grace()
            self._free, self._resting = self._resting, self._free
        return self._free.pop()

    def give(self, number: int) -> None:
        """Give *number* back."""
        self._resting.append(number)

    def restore(self, used: Iterable[int]) -> None:
        """Start again with *used* taken and all else free. A grace period must have passed."""
        taken = set(used)
        self._fresh = max(taken, default=0) + 1
        self._free = [n for n in range(1, self._fresh) if n not in taken]
        self._resting = []
