# SPDX-License-Identifier: Apache-2.0
"""The connections that helpers expect, in the maps of a node's pipeline."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from zlib import crc32

from asap2.nic.conntrack.helpers import Expected
from asap2.nic.conntrack.packing import packed, unpacked
from asap2.nic.conntrack.states import SECOND, Status
from asap2.nic.conntrack.view import Connection, Expectation, Expecting, Tuple
from asap2.nic.silicon.connection_records import ExpectationRecord
from asap2.nic.silicon.map_sizes import Layout


class Awaited:
    """The expectations in the maps of *layout*. *at* is the connection in a record at a time (nanoseconds of
    CLOCK_MONOTONIC), *find* that with a tuple in a zone."""

    def __init__(
        self,
        layout: Layout,
        at: Callable[[int, int], Connection | None],
        find: Callable[[int, Tuple], Connection | None],
    ) -> None:
        self.expecting: Expecting | None = None
        self._layout = layout
        self._at = at
        self._find = find

    def __iter__(self) -> Iterator[Expectation]:
        now = time.monotonic_ns()
        for key, raw in list(self._layout.expectations.items()):
            found = self._expectation(key, raw, now)
            if found is not None:
                yield found

    def add(self, record: int, expected: Expected, seconds: int, now: int = 0) -> None:
        """Expect a connection, as :meth:`asap2.nic.conntrack.table.Connections.expect` says."""
        now = now or time.monotonic_ns()
        master = self._at(record, now)
        if master is None:
            return
        entry = ExpectationRecord(expires=now + seconds * SECOND, master=record, master_id=master.id)
        if expected.reply is not None:
            memoryview(entry.reply).cast("B")[:] = packed(master.zone, expected.reply)
            one, reply = expected.tuple, expected.reply
            entry.status = int(Status.SRC_NAT_DONE | Status.DST_NAT_DONE)
            entry.status |= int(Status.SRC_NAT) if one.src != reply.dst else 0
            entry.status |= int(Status.DST_NAT) if (one.dst, one.dst_port) != (reply.src, reply.src_port) else 0
        key = packed(master.zone, expected.tuple)
        for other, raw in list(self._layout.expectations.items()):
            known = ExpectationRecord.from_buffer_copy(raw)
            if known.master == record or known.expires <= now:
                self._unexpect(other, raw, now, told=other != key)
        self._layout.expectations.update(key, bytes(entry))
        self._layout.tracker.expecting = 1
        if self.expecting is not None and (made := self._expectation(key, bytes(entry), now)) is not None:
            self.expecting.expected(made)

    def taken(self, record: int, one: Tuple) -> bool:
        """Whether a connection other than that in *record* expects *one* in the same zone (expect_clash())."""
        now = time.monotonic_ns()
        master = self._at(record, now)
        if master is None:
            return False
        key = packed(master.zone, one._replace(src_port=0))
        raw = self._layout.expectations.lookup(key)
        if raw is None or ExpectationRecord.from_buffer_copy(raw).master == record:
            return False
        return self._expectation(key, raw, now) is not None

    def remove(self, expectation: Expectation) -> bool:
        """No longer expect one; return False if it is no longer expected."""
        key, now = packed(expectation.zone, expectation.tuple), time.monotonic_ns()
        raw = self._layout.expectations.lookup(key)
        if raw is None or self._expectation(key, raw, now) is None:
            return False
        self._unexpect(key, raw, now, told=False)
        return True

    def sweep(self, now: int) -> None:
        """Remove those that have expired, and those whose master has ended."""
        for key, raw in list(self._layout.expectations.items()):
            if self._expectation(key, raw, now) is None:
                self._unexpect(key, raw, now, told=True)

    def _unexpect(self, key: bytes, raw: bytes, now: int, *, told: bool) -> None:
        """Remove an entry of the map, and have it *told*."""
        with contextlib.suppress(FileNotFoundError, KeyError):
            self._layout.expectations.delete(key)
            if told and self.expecting is not None and (one := self._expectation(key, raw, now, over=True)) is not None:
                self.expecting.gone(one)

    def _expectation(self, key: bytes, raw: bytes, now: int, *, over: bool = False) -> Expectation | None:
        """What an entry of the map says; None if it has expired (unless it is *over*), or its master has ended."""
        entry = ExpectationRecord.from_buffer_copy(raw)
        master = self._at(entry.master, now)
        if (entry.expires <= now and not over) or master is None or master.id != entry.master_id:
            return None
        zone, expected = unpacked(key)
        announced = socket.ntohs(entry.reply.src_port) if entry.reply.family else 0
        way = int(expected.src == master.reply.src)
        seconds = max(0, entry.expires - now) // SECOND
        return Expectation(crc32(key), expected, zone, master.original, master.helper, seconds, way, announced)

    def come(self, connection: Connection) -> None:
        """Tell that a new *connection* was expected."""
        if self.expecting is not None:
            self.expecting.gone(self._fulfilled(connection))

    def _fulfilled(self, connection: Connection) -> Expectation:
        """The expectation that a new *connection* has fulfilled."""
        expected, zone = connection.original._replace(src_port=0), connection.zone
        announced = connection.reply.src_port if connection.status & Status.SRC_NAT_DONE else 0
        master = self._find(zone, connection.master) if connection.master is not None else None
        way = int(master is not None and expected.src == master.reply.src)
        return Expectation(
            *(crc32(packed(zone, expected)), expected, zone, connection.master or expected),
            *(master.helper if master is not None else "", 0, way, announced),
        )
