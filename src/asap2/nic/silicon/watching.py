# SPDX-License-Identifier: Apache-2.0
"""The build of the eSwitch program that tells of each step of each packet (``watch.h``): loading it, reading it.

It is loaded beside a pipeline's own program, with the same maps, by whoever wants to watch; the pipeline's owner lets
devices run it (:meth:`asap2.nic.silicon.pipeline.Pipeline.use_program`). Records come by a ring buffer, which all
pipelines of a node may share. A packet never waits: a record for which there is no room is counted, and lost.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asap2.nic.silicon import abi, loader, maps
from asap2.nic.silicon.map_sizes import KEEP, ONWARD, PROGRAM
from asap2.nic.silicon.ringbuffer import RingBuffer

OBJECT: Final = Path(__file__).with_name("eswitch_trace.bpf.o")
RING_SIZE: Final = 1 << 24
"""Octets of records that may wait to be read."""
_RECORD: Final = struct.Struct("=QQQIIIIIIIIII")
_KEY: Final = struct.Struct("=I16sBB2sI16s")
"""``struct bpf_tunnel_key``; an IPv4 address in it is a number."""
_FRAME_AT: Final = _RECORD.size + 48
"""Where the packet's octets begin: behind ``struct watched``, which has ``struct bpf_tunnel_key`` and room after."""
_WATCHING: Final = struct.Struct("=QQQ")
"""``struct watching`` of one CPU: the way, how many there were, records lost."""
_OWN_MAPS: Final = frozenset({"programs", "watched", "watching"})
"""What the build does not share with the pipeline; the last two are the watcher's."""


class _Constants(ctypes.Structure):
    """The constants of this build: those of the other, and ``pipeline`` and ``most``."""

    _fields_ = [("shared", maps.Constants), ("pipeline", ctypes.c_uint32), ("most", ctypes.c_uint32)]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The metadata of the tunnel that the kernel took a packet out of, or is to put it into."""

    tun_id: int
    src: bytes
    dst: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One step of a packet.

    *now* is nanoseconds of CLOCK_MONOTONIC. *way* numbers a packet's run through a program, unlike any other on the
    node; *pipeline* is the number that the pipeline was given. *event* is an ``EVENT_…`` of
    :mod:`asap2.nic.silicon.abi`, and *arg*, *table* and *cookie* mean what ``watch.h`` says there. *length* is the
    packet's, in octets without a tag in its metadata, before segmentation; *frame* is as much of it as was asked for,
    with that tag, empty where an event is within the program. *segments* is 0 for what is no super-packet.
    """

    now: int
    way: int
    pipeline: int
    event: int
    arg: int
    table: int
    cookie: int
    length: int
    segments: int
    mark: int
    frame: bytes
    tunnel: Tunnel | None = None


def decode(data: bytes) -> Record:
    """``struct watched``, and what follows it."""
    now, way, cookie, event, arg, table, pipeline, length, kept, vlan, segments, mark, size = _RECORD.unpack_from(data)
    frame = data[_FRAME_AT : _FRAME_AT + kept]
    if vlan and frame:
        frame = frame[:12] + vlan.to_bytes(4, "big") + frame[12:]
    tunnel = None
    if size:
        tun_id, remote, _, _, _, _, local = _KEY.unpack_from(data, _RECORD.size)
        ends = remote[:size], local[:size]
        source, destination = (end[::-1] for end in ends) if size == 4 else ends
        tunnel = Tunnel(tun_id, source, destination)
    return Record(now, way, pipeline, event, arg, table, cookie, length, segments, mark, frame, tunnel)


class Watching:
    """The ring buffer of one node, of which this is the only reader, and the programs that write to it."""

    def __init__(self) -> None:
        """OSError: the kernel refuses."""
        self._ring = RingBuffer(loader.Map(loader.new_ring(RING_SIZE), "watched"))
        self._cpus = loader.possible_cpus()
        self._per_cpu = loader.Map(loader.new_per_cpu(_WATCHING.size), "watching")

    @property
    def fd(self) -> int:
        """A descriptor that is readable when there are records."""
        return self._ring.map.fd

    def load(self, directory: Path, number: int, most: int) -> int:
        """Load the program for the pipeline pinned in *directory*, whose records have *number* and at most *most*
        octets of a packet; its descriptor, which is the caller's to close. OSError."""
        opened = {
            path.name: loader.pinned(path)
            for path in directory.iterdir()
            if path.name not in (PROGRAM, ONWARD, KEEP, *_OWN_MAPS) and not path.name.startswith("link-")
        }
        try:
            constants = _Constants(_constants({name: loader.Map(fd, name) for name, fd in opened.items()}, self._cpus))
            constants.pipeline, constants.most = number, min(most, abi.WATCH_BYTES)
            shared = opened | {"watched": self.fd, "watching": self._per_cpu.fd}
            return loader.load_beside(OBJECT, shared, PROGRAM, (ONWARD, KEEP), constants)
        finally:
            for fd in opened.values():
                os.close(fd)

    def read(self) -> Iterator[Record]:
        """The records that are there, in the order in which their places were taken."""
        return map(decode, self._ring.read())

    @property
    def lost(self) -> int:
        """Records that there was no room for."""
        values = self._per_cpu.lookup(bytes(4), self._cpus * _WATCHING.size) or b""
        return sum(lost for _, _, lost in _WATCHING.iter_unpack(values))

    def close(self) -> None:
        """Unmap and close: programs that still run lose their records."""
        self._ring.close()
        os.close(self._ring.map.fd)
        os.close(self._per_cpu.fd)


def _constants(opened: dict[str, loader.Map], cpus: int) -> maps.Constants:
    """What the pipeline's own program was loaded with (:func:`.map_sizes.create`), by the sizes of its maps."""
    sizes = {name: one.max_entries for name, one in opened.items()}
    rules = sizes["rules"]
    shards = sizes["counts"] // rules
    return maps.Constants(
        *(rules, shards, cpus > shards, cpus),
        *(sizes[name] // cpus for name in ("cache", "wide_cache", "stateful_cache")),
        *(sizes["bloom"], sizes["notes"] // cpus, 0),
    )
