# SPDX-License-Identifier: Apache-2.0
"""Writing a pcapng file (draft-ietf-opsawg-pcapng): one section, its interfaces, packets with comments, statistics.

These are four kinds of block; of the libraries for the format none is both maintained and packaged by Debian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import BinaryIO, Final

ETHERNET: Final = 1
"""LINKTYPE_ETHERNET."""
INBOUND, OUTBOUND = 1, 2
"""Bits of ``epb_flags``."""
_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_MAGIC: Final = 0x1A2B3C4D
_UNKNOWN_LENGTH: Final = 0xFFFF_FFFF_FFFF_FFFF
_COMMENT: Final = 1
_HARDWARE, _SYSTEM, _APPLICATION = 2, 3, 4  # shb_…
_NAME, _DESCRIPTION, _RESOLUTION = 2, 3, 9  # if_…
_FLAGS: Final = 2  # epb_flags
_RECEIVED: Final = 4  # isb_ifrecv
_NANOSECONDS: Final = 9
"""The resolution of times: 10^-9 s."""
_LONGEST: Final = 0xFFFF
"""Octets of an option."""


class Writer:
    """Writes to *output*, each block whole. OSError, as that raises it."""

    def __init__(self, output: BinaryIO, application: str) -> None:
        self._output = output
        self._count: list[int] = []
        head = struct.pack("=IHHQ", _MAGIC, 1, 0, _UNKNOWN_LENGTH)
        self._block(_SECTION, head, [(_APPLICATION, application.encode())])

    def interface(self, name: str, description: str) -> int:
        """Announce an interface; its number."""
        options = [(_NAME, name.encode()), (_DESCRIPTION, description.encode()), (_RESOLUTION, bytes([_NANOSECONDS]))]
        self._block(_INTERFACE, struct.pack("=HHI", ETHERNET, 0, 0), options)
        self._count.append(0)
        return len(self._count) - 1

    def packet(self, interface: int, time: int, data: bytes, length: int, direction: int, comment: str) -> None:
        """Write a packet of *length* octets, of which *data* is there; *time* in nanoseconds since the epoch."""
        head = struct.pack("=IIIII", interface, time >> 32, time & 0xFFFF_FFFF, len(data), max(length, len(data)))
        options = [(_FLAGS, struct.pack("=I", direction)), (_COMMENT, comment.encode())]
        self._block(_PACKET, head + _padded(data), options)
        self._count[interface] += 1

    def statistics(self, interface: int, time: int, comment: str = "") -> None:
        """Say how many packets of an interface were written, and what else there is to say, at the end."""
        head = struct.pack("=III", interface, time >> 32, time & 0xFFFF_FFFF)
        options = [(_RECEIVED, struct.pack("=Q", self._count[interface]))]
        self._block(_STATISTICS, head, [*options, (_COMMENT, comment.encode())] if comment else options)

    def flush(self) -> None:
        """Have all that was written be there for who reads. OSError."""
        self._output.flush()

    @property
    def packets(self) -> int:
        """How many packets were written."""
        return sum(self._count)

    def _block(self, kind: int, body: bytes, options: Sequence[tuple[int, bytes]]) -> None:
        tail = b"".join(
            struct.pack("=HH", code, len(value[:_LONGEST])) + _padded(value[:_LONGEST]) for code, value in options
        )
        content = body + tail + struct.pack("=HH", 0, 0)
        length = struct.pack("=I", len(content) + 12)
        self._output.write(struct.pack("=I", kind) + length + content + length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
