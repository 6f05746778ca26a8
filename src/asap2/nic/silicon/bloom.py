# SPDX-License-Identifier: Apache-2.0
"""A Bloom filter of all keys, so that a packet need not be looked up under a mask that has no rule for it.

Of one 64-bit word, chosen by the key's hash, three bits are set for each key; :func:`place` is what lookup.h has. The
program reads the word of a key before it looks for it: a bit that is not set says that the key is not there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, MutableSequence
from operator import mul

from asap2.nic.fields import KEY_SIZE
from asap2.nic.silicon.abi import HASH_FACTORS, HASH_MIX, HASH_SEED

BITS_FOR_EACH_KEY = 16
"""When all keys that there is room for are there; one key in a hundred that is not there seems to be, then."""
_WORD = 64
_BITS = 2**64 - 1
_MOST = 255
_WORDS = struct.Struct(f"={KEY_SIZE // 8}Q")


def words_for(keys: int) -> int:
    """How many words a filter of so many *keys* has, a power of two."""
    return 1 << max(0, (keys * BITS_FOR_EACH_KEY // _WORD - 1).bit_length())


def place(node: int, key: bytes) -> tuple[int, int, int, int]:
    """Which word a *key* under mask *node* belongs to, in a filter of 2 to the 24 words, and which three bits of it."""
    hashed = node * HASH_SEED + sum(map(mul, _WORDS.unpack(key), HASH_FACTORS)) & _BITS
    hashed = (hashed ^ hashed >> 32) * HASH_MIX & _BITS
    hashed ^= hashed >> 29
    return hashed >> 40, hashed & 63, hashed >> 6 & 63, hashed >> 12 & 63


class Bloom:
    """The filter in *words*, memory that it shares with the program. It counts how many keys need each bit; a count
    that does not fit stays, and so does its bit."""

    def __init__(self, words: MutableSequence[int]) -> None:
        self._words = words
        self._last = len(words) - 1
        self._counts = bytearray(_WORD * len(words))

    def add(self, node: int, key: bytes) -> None:
        """Before the program can find *key* under mask *node*: let it be looked for."""
        at, one, two, three = place(node, key)
        at &= self._last
        counts, first = self._counts, at * _WORD
        for place_of_bit in (first + one, first + two, first + three):
            if (count := counts[place_of_bit]) < _MOST:
                counts[place_of_bit] = count + 1
        self._words[at] |= 1 << one | 1 << two | 1 << three

    def discard(self, node: int, key: bytes) -> None:
        """After :meth:`add`, when the program finds the key no more."""
        at, *bits = place(node, key)
        at &= self._last
        counts, first, gone = self._counts, at * _WORD, 0
        for bit in bits:
            if (count := counts[first + bit]) < _MOST:
                counts[first + bit] = count - 1
                if count == 1:
                    gone |= 1 << bit
        if gone:
            self._words[at] &= ~gone

    def restore(self, keys: Iterable[tuple[int, bytes]]) -> None:
        """Start again with these: what the program finds meanwhile it goes on finding."""
        shared, self._words = self._words, [0] * len(self._words)
        for node, key in keys:
            self.add(node, key)
        for at, word in enumerate(self._words):
            if shared[at] != word:
                shared[at] = word
        self._words = shared
