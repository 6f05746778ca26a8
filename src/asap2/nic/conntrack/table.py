# SPDX-License-Identifier: Apache-2.0
"""The connections in the maps of a node's pipeline: user space finds, lists, changes and removes them here.

Packets change a connection at any time. So a record is copied before it is read, and only the program ``keep``
(silicon/keep.h) removes connections from the table or adds them.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, Literal

from asap2.nic.conntrack.awaited import Awaited
from asap2.nic.conntrack.helpers import Expected
from asap2.nic.conntrack.packing import FAMILIES, SIZES, inverse, packed
from asap2.nic.conntrack.states import SECOND, Status
from asap2.nic.conntrack.view import Change, Connection, Counters, Expectation, Expecting, Sctp, Statistics, Tcp, Tuple
from asap2.nic.silicon import abi, loader
from asap2.nic.silicon.connection_records import ConnectionRecord, TrackerStatsRecord
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.ringbuffer import RingBuffer
from asap2.nic.silicon.trackings import HELPERS

_RECORD: Final = struct.Struct("=16s16sHHHBBIIQQ16s16sHHHBBIBB18xQQQQ16sQII64s")
"""``struct connection``."""
_STATUS, _EXPIRES, _USED, _ID = (getattr(ConnectionRecord, name).offset for name in ("status", "expires", "used", "id"))
_TUPLE_SIZE: Final = ConnectionRecord.original.size
_REPLY: Final = ConnectionRecord.reply.offset
_TCP = struct.Struct("=16xBB2x16xBB2xB")
"""Scale and flags of each side, and the state, in ``struct tcp_connection``."""
_SCTP = struct.Struct("=4s4sB")
_SETTINGS: Final = {
    "acct": "acct",
    "timestamp": "timestamp",
    "checksum": "checksum",
    "tcp_be_liberal": "liberal",
    "tcp_loose": "loose",
    "tcp_ignore_invalid_rst": "ignore_rst",
    "tcp_max_retrans": "max_retrans",
}
"""Members of ``struct tracker`` by the name of the setting."""
_EVENT = struct.Struct("=QII")
"""``struct ct_event`` up to the connection: the time in nanoseconds, the record's number, and the events."""
_WORDS = struct.Struct("=5Q")
_NUMBER, _TIME = struct.Struct("=I"), struct.Struct("=Q")
_EXACT: Final = 0x80
_NO_PACKET: Final = bytes(14)
_PART: Final = 1 << 14
"""Records examined at a time."""
_TICK: Final = SECOND // 250
"""By how much the program's clock, like the kernel's, may lag: one tick, in nanoseconds."""
_DAY: Final = 86400 * SECOND
"""Minimum remaining lifetime of a connection in hardware, in nanoseconds (nf_ct_offload_timeout())."""


class Connections:
    """The connections in the maps of *layout*. A node and its NICs share them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._memory = memoryview(layout.connections).cast("B")
        self._keep = loader.TestRun(layout.keep)
        self._ring = RingBuffer(layout.ct_events)
        self._awaited = Awaited(layout, self._at, self.find)
        self._default: int | None = None
        self._limits: dict[int, int] = {}

    @property
    def expecting(self) -> Expecting | None:
        """Who hears of expectations."""
        return self._awaited.expecting

    @expecting.setter
    def expecting(self, who: Expecting) -> None:
        self._awaited.expecting = who

    # ---- looking

    def __iter__(self) -> Iterator[Connection]:
        """All connections, in no particular order; may be used without the daemon's lock."""
        for first in range(0, self.records, _PART):
            now, behind = _now()
            for at in self._confirmed(first, first + _PART):
                found = self._at(at, now, behind)
                if found is not None:
                    yield found

    def find(self, zone: int, tuple: Tuple) -> Connection | None:
        """The connection with *tuple* in one of its directions."""
        at = self._record_of(zone, tuple)
        return None if at is None else self._at(at)

    def at(self, record: int) -> Connection | None:
        """The connection in a record that the program has named; None if it no longer exists."""
        return self._at(record) if 0 < record < len(self._layout.connections) else None

    def count(self) -> int:
        """The number of connections."""
        return self._layout.tracker.count

    def in_hardware(self) -> int:
        """The number of connections that hardware carries."""
        statuses = self._column("I", _STATUS)
        wanted = int(Status.CONFIRMED | Status.HW_OFFLOAD)
        return sum(status & wanted == wanted for status in statuses)

    @property
    def limit(self) -> int:
        """The limit on the number of connections, at most what the maps have room for."""
        return self._layout.tracker.max

    @limit.setter
    def limit(self, value: int) -> None:
        self._layout.tracker.max = min(value or len(self._layout.connections), len(self._layout.connections) - 1)

    def setting(self, name: str) -> int:
        """The value of one of :data:`asap2.nic.conntrack.view.SETTINGS`, which survive the daemon."""
        value: int = getattr(self._layout.tracker, _SETTINGS[name])
        return value

    def set(self, name: str, value: int) -> None:
        """Set one of :data:`asap2.nic.conntrack.view.SETTINGS`."""
        setattr(self._layout.tracker, _SETTINGS[name], value)

    def statistics(self) -> list[Statistics]:
        """The counters of each CPU, in the order of CPU numbers."""
        names = [field[0] for field in TrackerStatsRecord._fields_]
        size = struct.calcsize(f"={len(names)}Q")
        raw = self._layout.tracker_stats.lookup(bytes(4), size * loader.possible_cpus()) or b""
        shown = []
        for values in struct.iter_unpack(f"={len(names)}Q", raw):
            counted = dict(zip(names, values, strict=True))
            counted["clash_resolve"] = counted.pop("clash", 0)
            shown.append(Statistics(**{name: counted.get(name, 0) for name in Statistics._fields}))
        return shown

    # ---- changing

    def delete(self, connection: Connection) -> bool:
        """Delete a connection; return False if it no longer exists."""
        at = self._record_of(connection.zone, connection.original)
        return at is not None and bool(self._have(abi.Keep.FORGET, [(at, connection.id)]))

    def delete_all(self, connections: Iterable[Connection]) -> Iterator[Connection]:
        """Delete connections in batches; yield those that still existed."""
        rest = iter(connections)
        while some := list(islice(rest, abi.KEEP_MOST)):
            records = {self._record_of(one.zone, one.original): one for one in some}
            named = [(at, one.id) for at, one in records.items() if at is not None]
            for at in self._have(abi.Keep.FORGET, named):
                yield records[at]

    def change(self, connection: Connection, change: Change) -> None:
        """Change a connection, if it still exists."""
        at = self._record_of(connection.zone, connection.original)
        if at is None:
            return
        record: ConnectionRecord = self._layout.connections[at]
        if record.id != connection.id:
            return
        if change.mark is not None:
            record.mark = change.mark
        if change.labels is not None:
            record.labels[:] = list(change.labels)
        if change.status is not None:
            self._layout.keeping.connection.status = change.status
            self._have(abi.Keep.STATUS, [(at, connection.id)])
        if change.timeout is not None:
            record.expires = time.monotonic_ns() + change.timeout * SECOND
        _set_state(record, change.tcp, change.sctp)

    def insert(self, connection: Connection) -> None:
        """Add a connection; its *id* is ignored. It has no master if its own has ended.

        Raises:
            OSError: EEXIST if one of its tuples is in use; ENOMEM if the table is full.
        """
        record = self._layout.keeping.connection
        empty = ConnectionRecord()
        for way, value in ((empty.original, connection.original), (empty.reply, connection.reply)):
            memoryview(way).cast("B")[:] = packed(connection.zone, value)
        now = time.monotonic_ns()
        empty.expires, empty.started = now + connection.timeout * SECOND, now
        empty.status, empty.mark, empty.event_mask = connection.status, connection.mark, 0xFFFFFFFF
        empty.labels[:] = list(connection.labels)
        empty.helper = HELPERS.index(connection.helper)
        if connection.master is not None:
            empty.master = self._record_of(connection.zone, connection.master) or 0
        _set_state(empty, connection.tcp, connection.sctp)
        memoryview(record).cast("B")[:] = memoryview(empty).cast("B")
        self._layout.keeping.what = abi.Keep.INSERT
        self._keep.on(_NO_PACKET)
        result = self._layout.keeping.result
        if result <= 0:
            number = errno.EEXIST if result < 0 else errno.ENOMEM
            raise OSError(number, os.strerror(number))

    def expect(self, record: int, expected: Expected, seconds: int, now: int = 0) -> None:
        """Let the *expected* connection belong to the one in *record* if it begins within *seconds* of *now*.

        A connection expects one other at a time: a new expectation replaces the old one.

        Raises:
            OSError: the table of expected connections is full.
        """
        self._awaited.add(record, expected, seconds, now)

    def expected_by_another(self, record: int, tuple: Tuple) -> bool:
        """Whether a connection other than that in *record* expects *tuple* in the same zone."""
        return self._awaited.taken(record, tuple)

    def expectations(self) -> list[Expectation]:
        """The connections that helpers expect."""
        return list(self._awaited)

    def unexpect(self, expectation: Expectation) -> bool:
        """No longer expect one; return False if it is no longer expected."""
        return self._awaited.remove(expectation)

    def sweep(self, first: int = 0, most: int | None = None) -> list[Connection]:
        """Remove expired connections, and take those back that hardware has not used for HARDWARE_IDLE seconds.

        Examines *most* records (None: all) from *first* on. Returns the removed connections, as they last were.
        """
        now, behind = _now()
        if not first and self._layout.tracker.expecting:
            self._awaited.sweep(now)
        over: list[tuple[int, int]] = []
        idle: list[tuple[int, int]] = []
        last: dict[int, Connection] = {}
        confirmed, offload = int(Status.CONFIRMED), int(Status.OFFLOAD)
        end = self.records if most is None else min(first + most, self.records)
        statuses, times = self._column("I", _STATUS, first, end), self._column("Q", _EXPIRES, first, end)
        for at, (status, expires) in enumerate(zip(statuses, times, strict=True), first):
            if not status & confirmed:
                continue
            if status & offload:
                record = self._layout.connections[at]
                if record.used + abi.HARDWARE_IDLE * SECOND <= now:
                    idle.append((at, record.id))
                elif expires < now + _DAY // 2:
                    record.expires = now + _DAY
            elif expires <= now:
                found = self._at(at, now, behind, expired=True)
                if found is not None:
                    over.append((at, found.id))
                    last[at] = found
        self._have(abi.Keep.RECLAIM, idle)
        return [last[at] for at in self._have(abi.Keep.EXPIRE, over)]

    # ---- events

    @property
    def events_fd(self) -> int:
        """A descriptor that is readable when :meth:`events` has something."""
        return self._layout.ct_events.fd

    def listened(self, events: int) -> None:
        """Have the program report these events from now on (:class:`asap2.nic.silicon.abi.CtEvent`)."""
        self._layout.tracker.events = events

    def events(self) -> Iterator[tuple[Connection, int]]:
        """The connections that packets have created, changed or ended, as they were then, each with its events."""
        for raw in self._ring.read():
            when, _at, events = _EVENT.unpack_from(raw)
            connection = self._shown(raw[_EVENT.size :], when, _now()[1])
            if events & abi.CtEvent.RELATED:
                self._awaited.come(connection)
            yield connection, events

    # ---- zones

    def limit_zones(self, default: int, limits: dict[int, int]) -> None:
        """Limit the number of connections that Open vSwitch may commit in each zone; 0 means no limit."""
        zones = self._layout.zones
        changed = range(len(zones)) if default != self._default else {*self._limits, *limits}
        for zone in changed:
            limit = limits.get(zone, default)
            if limit:
                zones[zone].limit = limit
            zones[zone].limited = bool(limit)
        self._default, self._limits = default, dict(limits)

    def connections_in(self, zone: int) -> int:
        """The number of connections in *zone*."""
        count: int = self._layout.zones[zone].count
        return count

    # ---- records

    @property
    def records(self) -> int:
        """The number of records that have ever been used."""
        return min(self._layout.tracker.next, len(self._layout.connections))

    def _column(self, kind: Literal["I", "Q"], offset: int, first: int = 0, end: int | None = None) -> list[int]:
        """The member at *offset* of each record from *first* to *end*."""
        size = struct.calcsize(kind)
        end = self.records if end is None else end
        part = self._memory[first * _RECORD.size : end * _RECORD.size]
        return part.cast(kind)[offset // size :: _RECORD.size // size].tolist()

    def _confirmed(self, first: int, end: int) -> list[int]:
        confirmed = int(Status.CONFIRMED)
        statuses = self._column("I", _STATUS, first, min(end, self.records))
        return [at for at, status in enumerate(statuses, first) if status & confirmed]

    def _at(self, at: int, now: int = 0, behind: int = 0, expired: bool = False) -> Connection | None:
        """The connection in a record; None if there is none, or it has expired (unless *expired*)."""
        if not now:
            now, behind = _now()
        start = at * _RECORD.size
        raw = bytes(self._memory[start : start + _RECORD.size])
        (status,) = _NUMBER.unpack_from(raw, _STATUS)
        (expires,) = _TIME.unpack_from(raw, _EXPIRES)
        if not status & Status.CONFIRMED or (expires <= now and not expired):
            return None
        return self._shown(raw, now, behind)

    def _shown(self, raw: bytes, now: int, behind: int) -> Connection:
        """The connection in *raw*, a copy of a record."""
        o_src, o_dst, o_sport, o_dport, zone, proto, family, *rest = _RECORD.unpack(raw)
        (
            status,
            mark,
            expires,
            _used,
            r_src,
            r_dst,
            r_sport,
            r_dport,
            _zone,
            _proto,
            _family,
            _events,
            _policy,
            *rest,
        ) = rest
        helper, packets, reply_packets, octets, reply_octets, labels, started, id_, master, state = rest
        first = 16 - SIZES.get(family, 16)
        af = FAMILIES.get(family, socket.AF_INET6)
        tcp = sctp = None
        if proto == socket.IPPROTO_TCP:
            scale, flags, reply_scale, reply_flags, tcp_state = _TCP.unpack_from(state)
            tcp = Tcp(tcp_state, (scale, reply_scale), (flags, reply_flags))
        elif proto == socket.IPPROTO_SCTP:
            tag, reply_tag, sctp_state = _SCTP.unpack_from(state)
            sctp = Sctp(sctp_state, (int.from_bytes(tag, "big"), int.from_bytes(reply_tag, "big")))
        return Connection(
            id_,
            Tuple(af, proto, o_src[first:], o_dst[first:], socket.ntohs(o_sport), socket.ntohs(o_dport)),
            Tuple(af, proto, r_src[first:], r_dst[first:], socket.ntohs(r_sport), socket.ntohs(r_dport)),
            zone,
            status,
            max(0, expires - now + _TICK) // SECOND,
            mark,
            labels,
            tcp,
            sctp,
            (Counters(packets, octets), Counters(reply_packets, reply_octets)),
            started + behind,
            0,
            HELPERS[helper] if helper < len(HELPERS) else "",
            self._original(master),
        )

    def _original(self, at: int) -> Tuple | None:
        """The original tuple of the connection in record *at* (0: none), which may have ended by now."""
        if not 0 < at < len(self._layout.connections):
            return None
        start = at * _RECORD.size
        return self._shown(bytes(self._memory[start : start + _RECORD.size]), *_now()).original

    def _record_of(self, zone: int, tuple: Tuple) -> int | None:
        """The number of the record whose connection has that tuple."""
        wanted = packed(zone, tuple)
        keys = [wanted[:-1] + bytes((wanted[-1] | _EXACT,))]
        other = inverse(tuple)
        if other is not None:
            keys.insert(0, min(wanted, packed(zone, other), key=_WORDS.unpack))
        for key in keys:
            raw = self._layout.tuples.lookup(key)
            if raw is None:
                continue
            (at,) = _NUMBER.unpack(raw)
            start = at * _RECORD.size
            ways = (bytes(self._memory[way : way + _TUPLE_SIZE]) for way in (start, start + _REPLY))
            if wanted in ways:
                return int(at)
        return None

    def _have(self, what: abi.Keep, records: list[tuple[int, int]]) -> list[int]:
        """Have ``keep`` do *what* to the connections with these (record, id); return the records where it was done."""
        keeping, done = self._layout.keeping, []
        for start in range(0, len(records), abi.KEEP_MOST):
            some = records[start : start + abi.KEEP_MOST]
            for place, (at, id_) in enumerate(some):
                keeping.kept[place].at, keeping.kept[place].id = at, id_
            keeping.what, keeping.count = what, len(some)
            self._keep.on(_NO_PACKET)
            done += [at for place, (at, _id) in enumerate(some) if not keeping.kept[place].at]
        return done


def _now() -> tuple[int, int]:
    """The program's clock, and the difference from it to the time of day, both in nanoseconds."""
    now = time.monotonic_ns()
    return now, time.time_ns() - now


def _set_state(record: ConnectionRecord, tcp: Tcp | None, sctp: Sctp | None) -> None:
    """Set the state of a TCP or SCTP connection; None leaves it as it is."""
    if tcp is not None:
        record.tcp.state = tcp.state
        for side, scale, flags in zip(record.tcp.seen, tcp.wscale, tcp.flags, strict=True):
            side.scale, side.flags = scale, flags
    if sctp is not None:
        record.sctp.state = sctp.state
        record.sctp.vtag[:] = [socket.htonl(tag) for tag in sctp.vtags]
