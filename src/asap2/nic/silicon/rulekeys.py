# SPDX-License-Identifier: Apache-2.0
"""The hash maps by which the program finds a rule.

Rules on tracked connections have one of their own, so that the keys of all others are as short as if there were none.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from asap2.nic.fields import KEY_SIZE, TRACKED_AT, Width
from asap2.nic.silicon import loader, maps

HEAD: Final = 8
"""Octets of a key before the fields: the number of the rule's mask."""
SHORT: Final = HEAD + TRACKED_AT
LONG: Final = HEAD + KEY_SIZE


class RuleKeys:
    """Rules by their mask and what it leaves of their packets."""

    def __init__(self, short: loader.Map, stateful: loader.Map) -> None:
        self._short, self._stateful = short, stateful

    @property
    def maps(self) -> tuple[loader.Map, ...]:
        """Both of them."""
        return self._short, self._stateful

    def fits(self) -> bool:
        """Whether the maps are those of this version."""
        return (self._short.key_size, self._stateful.key_size) == (SHORT, LONG)

    def add(self, node: int, mask: bytes, key: bytes, handle: int, *, full: bool) -> None:
        """Let a rule be found under the *mask* with number *node*. OSError, EEXIST where there is another, E2BIG where
        there is not and no more may be (*full*)."""
        where, packed = self._place(node, mask, key)
        if full and where.lookup(packed) is None:
            raise OSError(errno.E2BIG, "no room for more rules")
        where.update(packed, maps.word(handle), loader.NOEXIST)

    def delete(self, node: int, mask: bytes, key: bytes) -> None:
        """Let it be found no more."""
        where, packed = self._place(node, mask, key)
        where.delete(packed)

    def items(self) -> Iterator[tuple[int, bytes, int]]:
        """All of them: the number of the mask, the key, and the rule."""
        for where in self.maps:
            for packed, value in list(where.items()):
                yield maps.number(packed), packed[HEAD:].ljust(KEY_SIZE, b"\0"), maps.number(value)

    def discard(self, node: int, key: bytes, handle: int) -> None:
        """Remove what :meth:`items` has told of, whatever its mask was."""
        for where in self.maps:
            packed = _packed(node, key)[: where.key_size]
            if where.lookup(packed) == maps.word(handle):
                where.delete(packed)

    def _place(self, node: int, mask: bytes, key: bytes) -> tuple[loader.Map, bytes]:
        if maps.width(mask) & Width.TRACKED:
            return self._stateful, _packed(node, key)
        return self._short, _packed(node, key)[:SHORT]


def _packed(node: int, key: bytes) -> bytes:
    return maps.word(node) + bytes(4) + key
