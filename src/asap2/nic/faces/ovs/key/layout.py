# SPDX-License-Identifier: Apache-2.0
"""Where each field of a flow key lies in its attributes, compiled once: every upcall and every flow goes through it.

The places are those of :mod:`asap2.nic.fields`, the byte order is that of the kinds of :mod:`asap2.netlink.tables.ovs`.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from asap2.netlink.codec import Kind, Table, u16, u32
from asap2.netlink.tables.ovs import KEY, NSH_KEY, TUNNEL_KEY
from asap2.netlink.wire import NLA_TYPE_MASK, NetlinkError, attributes
from asap2.nic.fields import FIELDS, OVS_ONLY, carried_by

Fields = dict[str, int]
Attributes = dict[int, bytes]

_HOST_ORDER: Final = (u16, u32)
"""Kinds of attributes in the byte order of this machine."""
BITS: Final = {
    field.name: max(field.bits, *(8 * octets for _attribute, _offset, octets in field.ovs), 0)
    for field in (*FIELDS, *OVS_ONLY)
} | {"cvlan_tpid": 16}
"""Fields of a key and how many bits each may have there; of the inner tag, a key has the whole TPID."""

Reader = Callable[[bytes, Fields, bool], None]
"""Puts the fields of an attribute's payload into a key; the last argument: whether it is a mask."""
Writer = Callable[[Fields], bytes]
"""Makes the attribute, padded, from the fields of a key."""
_LETTERS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class Layout:
    """One attribute of a key that has the same fields always, compiled."""

    read: Reader
    emit: Writer


def _layout(number: int, kind: Kind, places: dict[str, tuple[int, int]]) -> Layout:
    """How attribute *number* is read and written: of the ways below, that which is the fastest for its fields."""
    names, size, end = tuple(places), kind.size or 0, 0
    for offset, octets in places.values():
        if offset != end:
            raise ValueError(f"the fields of attribute {number} do not follow each other")
        end += octets
    head, tail = struct.pack("=HH", 4 + size, number), bytes(size - end + -size % 4)
    if all(octets in _LETTERS for _offset, octets in places.values()):
        packed = "".join(_LETTERS[octets] for _offset, octets in places.values())
        order = "=" if kind in _HOST_ORDER else ">"
        unpack = struct.Struct(f"{order}{packed}{size - end}x").unpack
        emit = _emit_together(head, names, struct.Struct(f"{order}{packed}{len(tail)}x").pack, places)
        return Layout(_read_one(names[0], kind) if len(names) == 1 else _read_together(names, unpack), emit)
    spans = tuple((name, at, at + octets) for name, (at, octets) in places.items())
    sizes = tuple((name, octets) for name, (_at, octets) in places.items())
    return Layout(_read_each(spans), _emit_each(head, tail, sizes))


def _read_one(name: str, kind: Kind) -> Reader:
    order = sys.byteorder if kind in _HOST_ORDER else "big"

    def read(value: bytes, into: Fields, _is_mask: bool) -> None:
        into[name] = int.from_bytes(value, order)

    return read


def _read_each(spans: tuple[tuple[str, int, int], ...]) -> Reader:
    def read(value: bytes, into: Fields, _is_mask: bool) -> None:
        for name, start, end in spans:
            into[name] = int.from_bytes(value[start:end])

    return read


def _read_together(names: tuple[str, ...], unpack: Callable[[bytes], tuple[int, ...]]) -> Reader:
    def read(value: bytes, into: Fields, _is_mask: bool) -> None:
        into.update(zip(names, unpack(value)))  # noqa: B905 - strict costs a third of the time

    return read


# A field of a key that names two network headers may be wider than its place: headers of which the kernel's key has one
# at a time. Such a field is cut.


def _emit_each(head: bytes, tail: bytes, sizes: tuple[tuple[str, int], ...]) -> Writer:
    def emit(fields: Fields) -> bytes:
        get = fields.get
        try:
            return head + b"".join([get(name, 0).to_bytes(octets) for name, octets in sizes]) + tail
        except OverflowError:
            return emit({name: get(name, 0) & (1 << 8 * octets) - 1 for name, octets in sizes})

    return emit


def _emit_together(
    head: bytes, names: tuple[str, ...], pack: Callable[..., bytes], places: dict[str, tuple[int, int]]
) -> Writer:
    def emit(fields: Fields) -> bytes:
        get = fields.get
        try:
            return head + pack(*[get(name, 0) for name in names])
        except struct.error:
            return emit({name: get(name, 0) & (1 << 8 * octets) - 1 for name, (_, octets) in places.items()})

    return emit


def _layouts(table: Table, within: str = "") -> dict[int, Layout]:
    """The layouts of those attributes of *table* that have a fixed length and carry fields."""
    return {
        number: _layout(number, kind, places)
        for number, (name, kind) in table.fields.items()
        if (places := carried_by(f"{within}{name}")) and kind.size is not None
    }


LAYOUTS: Final = _layouts(KEY)
TUNNEL_LAYOUTS: Final = _layouts(TUNNEL_KEY, "tunnel.")
NSH_LAYOUTS: Final = _layouts(NSH_KEY, "nsh.")


def invalid() -> NetlinkError:
    """EINVAL; what is wrong, the kernel tells its own log alone."""
    return NetlinkError(errno.EINVAL)


def walk(payload: bytes, *, padded: bool = True) -> list[tuple[int, bytes]]:
    """The attributes of *payload* by number; EINVAL when they do not fill it. The last may lack its padding only where
    it need not be *padded*: most of the kernel's parsers refuse that (rem, which is negative then)."""
    found, end = [], 0
    for kind, value in attributes(bytes(payload)):
        found.append((kind & NLA_TYPE_MASK, value))
        end += 4 + len(value) + 3 & ~3
    if end < len(payload) or (padded and end > len(payload)):
        raise invalid()
    return found
