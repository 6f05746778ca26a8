# SPDX-License-Identifier: Apache-2.0
"""The structures that a compiled eBPF program has, as its type information tells (include/uapi/linux/btf.h)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_SECTIONS_AT, _SECTION_SIZE = 0x28, 64
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = range(1, 12)
_FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(12, 20)
_EACH_MEMBER = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_AFTER = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}


@dataclass(frozen=True, slots=True)
class _Type:
    name: str
    kind: int
    count: int
    size: int
    """Or the number of the type that it refers to."""
    rest: bytes


def section(path: Path, wanted: str) -> bytes:
    """The contents of a section of a 64-bit little-endian ELF file."""
    data = path.read_bytes()
    start = int.from_bytes(data[_SECTIONS_AT : _SECTIONS_AT + 8], "little")
    count, names = struct.unpack_from("<HH", data, 60)
    heads = [struct.unpack_from("<IIQQQQ", data, start + _SECTION_SIZE * at) for at in range(count)]
    strings = heads[names][4]
    for name, _type, _flags, _address, offset, size in heads:
        if data[strings + name : data.index(b"\0", strings + name)] == wanted.encode():
            return data[offset : offset + size]
    raise LookupError(wanted)


class Btf:
    """The types of one object."""

    def __init__(self, path: Path) -> None:
        data = section(path, ".BTF")
        header, types, size, strings = struct.unpack_from("<IIII", data, 4)
        self._strings = data[header + strings :]
        self._types = [_Type("void", 0, 0, 0, b"")]
        at, end = header + types, header + types + size
        while at < end:
            name, info, number = struct.unpack_from("<III", data, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            rest = _EACH_MEMBER.get(kind, 0) * count + _AFTER.get(kind, 0)
            self._types.append(_Type(self._string(name), kind, count, number, data[at + 12 : at + 12 + rest]))
            at += 12 + rest

    def _string(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()

    def size(self, name: str) -> int:
        """Bytes of a structure."""
        return self._struct(name).size

    def members(self, name: str) -> dict[str, tuple[int, int]]:
        """Offset and size in bytes of each member of a structure, and of those within, by name."""
        found: dict[str, tuple[int, int]] = {}
        self._collect(self._struct(name), 0, found)
        return found

    def _struct(self, name: str) -> _Type:
        return next(type_ for type_ in self._types if (type_.kind, type_.name) == (_STRUCT, name) and type_.count)

    def _collect(self, type_: _Type, start: int, into: dict[str, tuple[int, int]]) -> None:
        for at in range(type_.count):
            name, number, offset = struct.unpack_from("<III", type_.rest, 12 * at)
            place = start + (offset & 0xFFFFFF) // 8
            if name:
                into[self._string(name)] = place, self._size(number)
            inner = self._plain(number)
            if inner.kind in (_STRUCT, _UNION):
                self._collect(inner, place, into)

    def _plain(self, number: int) -> _Type:
        """The type behind names and qualifiers."""
        type_ = self._types[number]
        while type_.kind in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG):
            type_ = self._types[type_.size]
        return type_

    def _size(self, number: int) -> int:
        type_ = self._plain(number)
        if type_.kind == _ARRAY:
            element, _index, count = struct.unpack("<III", type_.rest)
            return int(count) * self._size(element)
        return 8 if type_.kind == _PTR else type_.size
