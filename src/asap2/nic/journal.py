# SPDX-License-Identifier: Apache-2.0
"""A small log-structured key-value store, so that a daemon that was killed takes up where it was.

A record is ``length of key, length of value (u32, little-endian; value 0xffffffff: deleted), key, value``. Zeros follow
the last. The file is mapped: a change costs no system call, and is the kernel's to keep once it is made. A record's
lengths are written last, so one cut short by a kill is not there. The file is rewritten when most of it is dead.

The file system may be full. What is there can always be deleted, since a put makes room for that too; and whoever calls
:meth:`Journal.reserve` before a change learns that it cannot be kept while nothing has changed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_HEADER = struct.Struct("<II")
_DELETED = 0xFFFF_FFFF
_SLACK = 4096
"""Dead records that are always tolerated."""
_CHUNK = 1 << 20
"""Octets that the file grows by."""
_SPARE = 1 << 16
"""Octets that :meth:`Journal.reserve` leaves alone, for changes that nobody can refuse: what follows a device's end."""
LARGEST = 1 << 17
"""Octets that are more than any record has: an attribute of a netlink request has at most 65,535."""


class Journal:
    """The store in the file at *path*; what is there already is read. OSError ENOSPC, for a new file alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._live: dict[bytes, bytes] = {}
        self._records = 0
        self._tried = 0
        """How many records there were when it could not be rewritten."""
        self._owed = _HEADER.size
        """Octets that deleting all that is live takes, and the zeros at the end."""
        self._end = self._read()
        """Where the next record goes."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        """Of the file."""
        self._memory: mmap.mmap | None = None
        try:
            self._grow(_SPARE)
        except OSError:
            if not self._size:
                raise
            self._memory = mmap.mmap(self._fd, self._size)
        self._wipe(self._end, self._size)

    def _read(self) -> int:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return 0
        at = 0
        while at + _HEADER.size <= len(data):
            key_length, value_length = _HEADER.unpack_from(data, at)
            start = at + _HEADER.size
            end = start + key_length + (0 if value_length == _DELETED else value_length)
            if not key_length or end > len(data):
                break
            key = data[start : start + key_length]
            if value_length == _DELETED:
                self._forget(key)
            else:
                self._hold(key, data[start + key_length : end])
            self._records += 1
            at = end
        return at

    def _hold(self, key: bytes, value: bytes) -> None:
        if key not in self._live:
            self._owed += _HEADER.size + len(key)
        self._live[key] = value

    def _forget(self, key: bytes) -> bool:
        if self._live.pop(key, None) is None:
            return False
        self._owed -= _HEADER.size + len(key)
        return True

    def _wipe(self, start: int, end: int) -> None:
        """Put zeros where something may be left; the first octets first, since a kill may come between."""
        assert self._memory is not None
        for at in range(start, end, _CHUNK):
            stop = min(at + _CHUNK, end)
            if self._memory[at:stop].count(0) < stop - at:
                self._memory[at:stop] = bytes(stop - at)

    def _grow(self, need: int) -> None:
        """Make room for *need* octets more and for deleting all that is live. OSError ENOSPC."""
        least = self._end + need + self._owed
        if least > self._size:
            size = (least + _CHUNK) // _CHUNK * _CHUNK
            os.posix_fallocate(self._fd, self._size, size - self._size)
            self._size = size
        elif self._memory is not None:
            return
        if self._memory is not None:
            self._memory.close()
        self._memory = mmap.mmap(self._fd, self._size)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value, oldest key first."""
        return iter(list(self._live.items()))

    def get(self, key: bytes) -> bytes | None:
        """The value of *key*, or None."""
        return self._live.get(key)

    def reserve(self, need: int = LARGEST) -> None:
        """Make sure that records of *need* octets can be put. OSError ENOSPC; nothing has changed then."""
        if self._end + need + self._owed + _SPARE > self._size:
            self._grow(need + _SPARE)

    def put(self, key: bytes, value: bytes) -> None:
        """Set *key*, which is not empty; it survives a kill of this process when the call returns. OSError ENOSPC:
        the old value stays."""
        if self._live.get(key) == value:
            return
        tombstone = 0 if key in self._live else _HEADER.size + len(key)
        size = _HEADER.size + len(key) + len(value)
        if self._end + size + tombstone + self._owed > self._size:
            self._grow(size + tombstone)
        self._hold(key, value)
        self._append(key, len(value), value)

    def delete(self, key: bytes) -> None:
        """Forget *key*, if it is there."""
        if self._forget(key):
            self._append(key, _DELETED, b"")

    def clear(self) -> None:
        """Forget everything."""
        self._live.clear()
        used, self._end, self._records, self._owed = self._end, 0, 0, _HEADER.size
        self._tried = 0
        self._wipe(0, used)
        if self._size > _CHUNK:
            assert self._memory is not None
            self._memory.close()
            os.ftruncate(self._fd, _CHUNK)
            self._size = _CHUNK
            self._memory = mmap.mmap(self._fd, _CHUNK)

    def close(self) -> None:
        """Close the file."""
        if self._memory is not None:
            self._memory.close()
        os.close(self._fd)

    def _append(self, key: bytes, value_length: int, value: bytes) -> None:
        """Write a record, for which there is room."""
        start = self._end + _HEADER.size
        end = start + len(key) + len(value)
        assert self._memory is not None
        self._memory[start:end] = key + value
        _HEADER.pack_into(self._memory, self._end, len(key), value_length)
        self._end = end
        self._records += 1
        if self._records > max(2 * len(self._live), self._tried) + _SLACK:
            self._rewrite()

    def _rewrite(self) -> None:
        part = self._path.with_suffix(".part")
        try:
            with part.open("wb") as out:
                for key, value in self._live.items():
                    out.write(_HEADER.pack(len(key), len(value)) + key + value)
                out.flush()
                end = out.tell()
                size = (end + self._owed + _SPARE + _CHUNK) // _CHUNK * _CHUNK
                os.posix_fallocate(out.fileno(), end, size - end)
        except OSError:  # no room for both: the old one is good, and is tried again later
            with contextlib.suppress(OSError):
                part.unlink()
            self._tried = self._records
            return
        fd = os.open(part, os.O_RDWR | os.O_CLOEXEC)
        os.rename(part, self._path)
        os.close(self._fd)
        assert self._memory is not None
        self._memory.close()
        self._fd, self._end, self._size = fd, end, size
        self._records, self._tried = len(self._live), 0
        self._memory = mmap.mmap(fd, size)
