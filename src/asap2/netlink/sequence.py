# SPDX-License-Identifier: Apache-2.0
"""Nests of attributes whose order and repetition are meaning, such as Open vSwitch's actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asap2.netlink.codec import _PAD, Kind, Name, _head, _pack_head, binary
from asap2.netlink.wire import NLA_F_NESTED, NLA_TYPE_MASK


class Items(list[tuple[Name, Any]]):
    """Decoded attributes where order and repetition matter: (name, value); *bits* by position, *tail* as in Attrs."""

    __slots__ = ("bits", "tail")

    def __init__(self, items: Iterable[tuple[Name, Any]] = ()) -> None:
        super().__init__(items)
        self.bits: dict[int, int] = {}
        self.tail: bytes = b""


class Sequence:
    """A nest that is a list, such as Open vSwitch actions: the same type may come again, and order is meaning."""

    def __init__(self, name: str, fields: Mapping[int, tuple[str, Kind]]) -> None:
        self.name = name
        self.fields = dict(fields)
        self.numbers: dict[str, int] = {field: number for number, (field, _kind) in fields.items()}

    def decode(self, data: bytes, start: int = 0, end: int | None = None) -> Items:
        """The items in ``data[start:end]``; errors as :meth:`Table.decode`."""
        return self._decode(data, start, len(data) if end is None else end)

    def _decode(self, data: bytes, start: int, end: int) -> Items:
        items = Items()
        while start + 4 <= end:
            length, type_ = _head(data, start)
            stop = start + length
            if length < 4 or stop > end:
                break
            number = type_ & NLA_TYPE_MASK
            field = self.fields.get(number)
            if field is None:
                usual = number
                items.append((number, data[start + 4 : stop]))
            else:
                usual = number | field[1].bits
                items.append((field[0], field[1].decode(data, start + 4, stop)))
            if type_ != usual:
                items.bits[len(items) - 1] = type_ & ~NLA_TYPE_MASK
            start += (length + 3) & ~3
        if start < end:
            items.tail = data[start:end]
        return items

    def encode(self, items: Iterable[tuple[Name, Any]]) -> bytes:
        """The items as bytes; KeyError for a name that is not known."""
        bits = items.bits if isinstance(items, Items) else {}
        parts = []
        for position, (name, value) in enumerate(items):
            number = self.numbers[name] if isinstance(name, str) else name
            kind = self.fields[number][1] if number in self.fields else binary
            raw = value if type(value) is bytes else kind.encode(value)
            length = len(raw) + 4
            parts.append(_pack_head(length, number | bits.get(position, kind.bits)) + raw + _PAD[length & 3])
        return b"".join(parts) + (items.tail if isinstance(items, Items) else b"")


def listed(sequence: Sequence, *, flagged: bool = False) -> Kind:
    """A nest that is a :class:`Sequence`."""
    return Kind(sequence._decode, sequence.encode, bits=NLA_F_NESTED if flagged else 0)
