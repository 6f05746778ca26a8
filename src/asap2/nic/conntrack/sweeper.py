# SPDX-License-Identifier: Apache-2.0
"""Remove expired connections from the table, a part of the table at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from asap2.nic.conntrack.view import Connection

INTERVAL_NS = 1_000_000_000
"""Nanoseconds from one sweep to the next. For packets and programs a connection ceases to exist when it expires; a
sweep makes room, announces the end, and takes idle connections back from hardware."""
PART = 1 << 15
"""Records examined at a time, which takes a few milliseconds."""


class Sweepable(Protocol):
    """The table."""

    @property
    def records(self) -> int:
        """The number of records to examine."""
        ...

    def sweep(self, first: int, most: int) -> list[Connection]:
        """Sweep *most* records from *first* on; return the connections that were removed."""


class Sweeper:
    """Sweeps *table* at intervals, and calls *gone* with each connection that was removed."""

    def __init__(self, table: Sweepable, gone: Callable[[Connection], None]) -> None:
        self._table = table
        self._gone = gone
        self._next = 0
        self._due = time.monotonic_ns() + INTERVAL_NS

    @property
    def due(self) -> bool:
        """Whether the next part is due."""
        return time.monotonic_ns() >= self._due

    def sweep(self) -> float:
        """Sweep a part if it is due; return the seconds until the next one is."""
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
