# SPDX-License-Identifier: Apache-2.0
"""Takes connections out of the table some time after their time is over, a part of the table at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from asap2.nic.conntrack.view import Connection

INTERVAL_NS = 1_000_000_000
"""From one sweep to the next. A connection whose time is over is none for packets and programs at once; what a sweep
does is to make room, to tell who listens, and to have connections back from hardware."""
PART = 1 << 15
"""Records that are looked at at once: some milliseconds."""


class Sweepable(Protocol):
    """The table."""

    @property
    def records(self) -> int:
        """How many records there are to look at."""
        ...

    def sweep(self, first: int, most: int) -> list[Connection]:
        """Sweep *most* records from *first* on; gives those that are gone."""


class Sweeper:
    """Sweeps *table* in time, and hands *gone* each connection that is no more."""

    def __init__(self, table: Sweepable, gone: Callable[[Connection], None]) -> None:
        self._table = table
        self._gone = gone
        self._next = 0
        self._due = time.monotonic_ns() + INTERVAL_NS

    @property
    def due(self) -> bool:
        """Whether it is time for a part."""
        return time.monotonic_ns() >= self._due

    def sweep(self) -> float:
        """Sweep a part, if it is time; the seconds to the next time."""
        now = time.monotonic_ns()
        if now < self._due:
            return (self._due - now) / 1e9
        for connection in self._table.sweep(self._next, PART):
            self._gone(connection)
        self._next += PART
        if self._next < self._table.records:
            return 0
        self._next, self._due = 0, now + INTERVAL_NS
        return INTERVAL_NS / 1e9
