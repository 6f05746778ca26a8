# SPDX-License-Identifier: Apache-2.0
"""Bob Jenkins' hash in plain Python, as the kernel has it (include/linux/jhash.h; lookup3.c of burtleburtle.net)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

INITIAL: Final = 0xDEADBEEF
"""JHASH_INITVAL."""
_32_BITS: Final = 0xFFFF_FFFF
_MIX: Final = ((0, 2, 4), (1, 0, 6), (2, 1, 8), (0, 2, 16), (1, 0, 19), (2, 1, 4))
_FINAL: Final = ((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24))


def rotated(word: int, by: int) -> int:
    """A 32-bit word rotated to the left."""
    return (word << by | word >> 32 - by) & _32_BITS


def jhash_3words(words: Sequence[int], initial: int) -> int:
    """The hash of three words; *initial* is added to each first (__jhash_nwords())."""
    mixed = [(word + initial) & _32_BITS for word in words]
    for to, other, by in _FINAL:
        mixed[to] = (mixed[to] ^ mixed[other]) - rotated(mixed[other], by) & _32_BITS
    return mixed[2]


def jhash2(words: Sequence[int], initial: int) -> int:
    """The hash of four words."""
    mixed = [(INITIAL + 4 * len(words) + initial + word) & _32_BITS for word in words[:3]]
    for to, other, by in _MIX:
        mixed[to] = (mixed[to] - mixed[other] & _32_BITS) ^ rotated(mixed[other], by)
        mixed[other] = mixed[other] + mixed[3 - to - other] & _32_BITS
    mixed[0] += words[3]
    return jhash_3words(mixed, 0)
