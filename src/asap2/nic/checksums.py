# SPDX-License-Identifier: Apache-2.0
"""Checksums in plain Python: the Internet's (RFC 1071), and SCTP's (RFC 9260, appendix A); and how a change updates
one that may be wrong: what was wrong stays wrong."""

from __future__ import annotations

import struct
from typing import Final

_16_BITS: Final = 0xFFFF
_32_BITS: Final = 0xFFFF_FFFF
_CASTAGNOLI: Final = 0x82F63B78
"""The polynomial of CRC32c, bits reflected."""
_SCTP_CHECKSUM: Final = slice(8, 12)


def sum_of(data: bytes | bytearray) -> int:
    """The sum of the big-endian 16-bit words; an odd last octet is the upper half of a word."""
    words: tuple[int, ...] = struct.unpack(f"!{(len(data) + 1) // 2}H", bytes(data) + bytes(len(data) % 2))
    return sum(words)


def folded(total: int) -> int:
    """A sum in 16 bits (ones' complement)."""
    while total >> 16:
        total = (total & _16_BITS) + (total >> 16)
    return total


def checksum(data: bytes | bytearray) -> int:
    """The Internet checksum; of a header with a valid one, 0."""
    return ~folded(sum_of(data)) & _16_BITS


def updated(old_checksum: int, old: int, new: int) -> int:
    """The Internet checksum after words with the sum *old* became words with the sum *new* (RFC 1624).

    HC' = ~(~HC + ~m + m'). Of the two zeros of that sum, the kernel (csum_replace4()) has the one that all right
    checksums have: the result is never 0xffff.
    """
    total = (~old_checksum & _16_BITS) + folded(new) + (~folded(old) & _16_BITS)
    return ~(folded(total) or _16_BITS) & _16_BITS


def crc32c(data: bytes) -> int:
    """CRC32c."""
    crc = _32_BITS
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc ^ _32_BITS


def updated_sctp(old: bytes, new: bytes) -> bytes:
    """The octets of the checksum of an SCTP packet that was *old* and is *new*, but for its checksum."""
    crc = int.from_bytes(new[_SCTP_CHECKSUM], "little")
    for one in (old, new):
        crc ^= crc32c(one[: _SCTP_CHECKSUM.start] + bytes(4) + one[_SCTP_CHECKSUM.stop :])
    return crc.to_bytes(4, "little")
