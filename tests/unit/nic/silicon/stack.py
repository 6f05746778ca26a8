# SPDX-License-Identifier: Apache-2.0
"""How much stack the chains of calls in a compiled eBPF program take, as Linux 6.1's verifier counts it."""

from __future__ import annotations

import functools
import struct
from collections import defaultdict
from pathlib import Path
from typing import Final

ROUNDED_TO: Final = 32
"""Bytes to a multiple of which each function's stack counts (check_max_stack_depth())."""
_SYMTAB, _REL = 2, 9
_FUNC, _SECTION = 2, 3
_LDX, _ST, _STX = 1, 2, 3
_FRAME: Final = 10
_MOV, _ADD, _LD_IMM64, _CALL = 0xBF, 0x07, 0x18, 0x85

Place = tuple[int, int]
"""A section, and a byte in it."""


class Stacks:
    """The functions of an object file: a 64-bit little-endian ELF file."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        start = int.from_bytes(data[0x28:0x30], "little")
        (count,) = struct.unpack_from("<H", data, 60)
        heads = [struct.unpack_from("<IIQQQQIIQQ", data, start + 64 * at) for at in range(count)]
        body = {at: data[head[4] : head[4] + head[5]] for at, head in enumerate(heads) if head[1] != 8}
        table = next(at for at, head in enumerate(heads) if head[1] == _SYMTAB)
        names = body[heads[table][6]]
        symbols = [struct.unpack_from("<IBBHQQ", body[table], at) for at in range(0, len(body[table]), 24)]
        self._names: dict[Place, str] = {}
        self._calls: dict[Place, set[Place]] = defaultdict(set)
        self._depth: dict[Place, int] = defaultdict(int)
        for name, info, _other, section, value, _size in symbols:
            if info & 15 == _FUNC:
                self._names[section, value] = names[name : names.index(b"\0", name)].decode()
        relocated: dict[Place, tuple[int, int, int]] = {}
        for at, head in enumerate(heads):
            if head[1] == _REL:
                for entry in range(0, len(body[at]), 16):
                    offset, information = struct.unpack_from("<QQ", body[at], entry)
                    _name, info, _other, section, value, _size = symbols[information >> 32]
                    relocated[head[7], offset] = (info & 15, section, value)
        for section in {section for section, _at in self._names}:
            self._read(section, body[section], relocated)

    def _read(self, section: int, code: bytes, relocated: dict[Place, tuple[int, int, int]]) -> None:
        function, copied = (section, 0), -1
        for at in range(0, len(code), 8):
            if (section, at) in self._names:
                function = (section, at)
            opcode, registers, offset, value = struct.unpack_from("<BBhi", code, at)
            to, of = registers & 15, registers >> 4
            kind = opcode & 7
            if (kind == _LDX and of == _FRAME) or (kind in (_ST, _STX) and to == _FRAME):
                self._depth[function] = max(self._depth[function], -offset)
            elif opcode == _ADD and to == copied:
                self._depth[function] = max(self._depth[function], -value)
            copied = to if opcode == _MOV and of == _FRAME else -1
            if opcode == _CALL and of == 1:
                self._calls[function].add(self._called(section, at, value, relocated))
            elif opcode == _LD_IMM64 and (section, at) in relocated:
                what, there, base = relocated[section, at]
                place = (there, base + (value if what == _SECTION else 0))
                if place in self._names:  # a callback
                    self._calls[function].add(place)

    def _called(self, section: int, at: int, value: int, relocated: dict[Place, tuple[int, int, int]]) -> Place:
        if (section, at) not in relocated:
            return section, at + 8 * (value + 1)
        what, there, base = relocated[section, at]
        return there, base + (8 * (value + 1) if what == _SECTION else 0)

    @property
    def names(self) -> set[str]:
        """The functions' names."""
        return set(self._names.values())

    def deepest(self) -> tuple[int, list[str]]:
        """The bytes that the deepest chain of calls takes, and its functions."""
        return max(self._chain(place) for place in self._names)

    @functools.cache  # noqa: B019
    def _chain(self, place: Place) -> tuple[int, list[str]]:
        own = -(-max(self._depth[place], 1) // ROUNDED_TO) * ROUNDED_TO
        below, names = max((self._chain(one) for one in self._calls[place]), default=(0, []))
        return own + below, [f"{self._names[place]}: {self._depth[place]}", *names]
