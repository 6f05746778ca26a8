# SPDX-License-Identifier: Apache-2.0
"""A BPF ring buffer, read by its only reader (kernel/bpf/ringbuf.c)."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Final

from asap2.nic.silicon.loader import Map

_POSITION = struct.Struct("=Q")
_HEADER = struct.Struct("=II")
"""struct bpf_ringbuf_hdr: length and flags, and where it is."""
_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30


class RingBuffer:
    """The ring buffer *map*; a descriptor that can be polled for reading is ``map.fd``."""

    def __init__(self, map: Map) -> None:
        self.map = map
        size = map.max_entries
        self._mask = size - 1
        self._reader = mmap.mmap(map.fd, mmap.PAGESIZE)
        self._data = mmap.mmap(map.fd, mmap.PAGESIZE + 2 * size, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)

    def read(self, most: int | None = None) -> Iterator[bytes]:
        """The records that are there, at most so many, each until the next is asked for. They must all be taken."""
        (at,) = _POSITION.unpack_from(self._reader)
        (end,) = _POSITION.unpack_from(self._data)
        while at < end and most != 0:
            start = mmap.PAGESIZE + (at & self._mask)
            length, _page = _HEADER.unpack_from(self._data, start)
            if length & _BUSY:
                return
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                yield self._data[start + _HEADER.size : start + _HEADER.size + size]
            at += (size + _HEADER.size + 7) & ~7
            _POSITION.pack_into(self._reader, 0, at)
            most = most - 1 if most is not None else None

    def close(self) -> None:
        """Unmap it."""
        self._reader.close()
        self._data.close()
