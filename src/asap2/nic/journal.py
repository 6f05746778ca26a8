# SPDX-License-Identifier: Apache-2.0
"""A small log-structured key-value store, so that a daemon that was killed takes up where it was.

A record is ``length of key, length of value (u32, little-endian; value 0xffffffff: deleted), key, value``. A record cut
short by a kill is the last one, and is ignored. The file is rewritten when most of it is dead.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

_HEADER = struct.Struct("<II")
_DELETED = 0xFFFF_FFFF
_SLACK = 4096
"""Dead records that are always tolerated."""


class Journal:
    """The store in the file at *path*; what is there already is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._live: dict[bytes, bytes] = {}
        self._records = 0
        good = self._read()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, good)

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
            if end > len(data):
                break
            key = data[start : start + key_length]
            if value_length == _DELETED:
                self._live.pop(key, None)
            else:
                self._live[key] = data[start + key_length : end]
            self._records += 1
            at = end
        return at

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value, oldest key first."""
        return iter(list(self._live.items()))

    def get(self, key: bytes) -> bytes | None:
        """The value of *key*, or None."""
        return self._live.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set *key*; it survives a kill of this process when the call returns."""
        self._live[key] = value
        self._append(_HEADER.pack(len(key), len(value)) + key + value)

    def delete(self, key: bytes) -> None:
        """Forget *key*, if it is there."""
        if self._live.pop(key, None) is not None:
            self._append(_HEADER.pack(len(key), _DELETED) + key)

    def clear(self) -> None:
        """Forget everything."""
        self._live.clear()
        os.ftruncate(self._fd, 0)
        self._records = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _append(self, record: bytes) -> None:
        os.write(self._fd, record)
        self._records += 1
        if self._records > 2 * len(self._live) + _SLACK:
            self._rewrite()

    def _rewrite(self) -> None:
        part = self._path.with_suffix(".part")
        with part.open("wb") as out:
            for key, value in self._live.items():
                out.write(_HEADER.pack(len(key), len(value)) + key + value)
        os.rename(part, self._path)
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._records = len(self._live)
