# SPDX-License-Identifier: Apache-2.0
"""A small state that is kept as a whole, also when the file system is full, and whenever its writer is killed.

There are two files, of which the older is written over; both have their room from the start. A file is ``number (u64),
length, CRC-32 (u32, little-endian), state``; the valid one with the higher number counts.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

_HEADER = struct.Struct("<QII")


class Snapshot:
    """The state in the files *path*.0 and *path*.1, which are made with *room* octets each. OSError ENOSPC, for new
    files alone."""

    def __init__(self, path: Path, room: int) -> None:
        self._files = [
            os.open(path.with_name(f"{path.name}.{n}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for n in (0, 1)
        ]
        for file in self._files:
            if os.fstat(file).st_size < room:
                os.posix_fallocate(file, 0, room)
        found = [_read(file) for file in self._files]
        self._newest = max((0, 1), key=lambda n: found[n][0])
        self._number, self.state = found[self._newest]
        """The state last written, or None."""

    def write(self, state: bytes) -> None:
        """Keep *state*. OSError ENOSPC, when it has more octets than there is room for: the old one stays."""
        file = self._files[1 - self._newest]
        if os.fstat(file).st_size < _HEADER.size + len(state):
            os.posix_fallocate(file, 0, _HEADER.size + len(state))
        os.pwrite(file, _HEADER.pack(self._number + 1, len(state), zlib.crc32(state)) + state, 0)
        self._newest, self._number, self.state = 1 - self._newest, self._number + 1, state

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)


def _read(file: int) -> tuple[int, bytes | None]:
    """The number and state in a file; 0 and None when it has none."""
    data = os.pread(file, os.fstat(file).st_size, 0)
    if len(data) >= _HEADER.size:
        number, length, check = _HEADER.unpack_from(data)
        state = data[_HEADER.size : _HEADER.size + length]
        if number and len(state) == length and zlib.crc32(state) == check:
            return number, state
    return 0, None
