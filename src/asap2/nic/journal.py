# SPDX-License-Identifier: Apache-2.0
"""A small log-structured key-value store, so that a daemon that was killed takes up where it was.

A record is ``length of key, length of value (u32, little-endian; value 0xffffffff: deleted), key, value``. Zeros follow
the last. The file is mapped: a change costs no system call, and is the kernel's to keep once it is made. A record's
lengths are written last, so one cut short by a kill is not there. The file is rewritten when most of it is dead.
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


class Journal:
    """The store in the file at *path*; what is there already is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._live: dict[bytes, bytes] = {}
        self._records = 0
        self._size = 0
        """Of the file."""
        self._end = self._read()
        """Where the next record goes."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._memory: mmap.mmap | None = None
        self._open()

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
                self._live.pop(key, None)
            else:
                self._live[key] = data[start + key_length : end]
            self._records += 1
            at = end
        return at

    def _open(self) -> None:
        """Map the file, with zeros behind its records."""
        os.ftruncate(self._fd, self._end)
        self._size = self._end
        self._grow(0)

    def _grow(self, need: int) -> None:
        """Make room for *need* octets more. OSError ENOSPC."""
        size = (self._end + need + _CHUNK) // _CHUNK * _CHUNK
        os.posix_fallocate(self._fd, self._size, size - self._size)
        if self._memory is not None:
            self._memory.close()
        self._memory = mmap.mmap(self._fd, size)
        self._size = size

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value, oldest key first."""
        return iter(list(self._live.items()))

    def get(self, key: bytes) -> bytes | None:
        """The value of *key*, or None."""
        return self._live.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set *key*, which is not empty; it survives a kill of this process when the call returns. OSError ENOSPC."""
        self._append(key, len(value), value)
        self._live[key] = value

    def delete(self, key: bytes) -> None:
        """Forget *key*, if it is there."""
        if self._live.pop(key, None) is not None:
            self._append(key, _DELETED, b"")

    def clear(self) -> None:
        """Forget everything."""
        self._live.clear()
        self._records = self._end = 0
        self._open()

    def close(self) -> None:
        """Close the file."""
        if self._memory is not None:
            self._memory.close()
        os.close(self._fd)

    def _append(self, key: bytes, value_length: int, value: bytes) -> None:
        start = self._end + _HEADER.size
        end = start + len(key) + len(value)
        if end + _HEADER.size > self._size:
            self._grow(end + _HEADER.size - self._end)
        assert self._memory is not None
        self._memory[start:end] = key + value
        _HEADER.pack_into(self._memory, self._end, len(key), value_length)
        self._end = end
        self._records += 1
        if self._records > 2 * len(self._live) + _SLACK:
            self._rewrite()

    def _rewrite(self) -> None:
        part = self._path.with_suffix(".part")
        try:
            with part.open("wb") as out:
                for key, value in self._live.items():
                    out.write(_HEADER.pack(len(key), len(value)) + key + value)
        except OSError:  # no room for both: the old one is good, and is tried again later
            with contextlib.suppress(OSError):
                part.unlink()
            return
        os.rename(part, self._path)
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        self._end = os.fstat(self._fd).st_size
        self._records = len(self._live)
        self._open()
