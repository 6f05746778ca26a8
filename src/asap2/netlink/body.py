# SPDX-License-Identifier: Apache-2.0
"""The payload of a message: a fixed header, and the attributes of a table."""

from __future__ import annotations

import errno
import struct as _struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from asap2.netlink.codec import _PAD, Attrs, Table
from asap2.netlink.wire import NetlinkError

H = TypeVar("H")


class Body(Generic[H]):
    """A message's payload: a fixed header (NamedTuple *header*, :mod:`struct` *format*), then attributes of *table*.

    With *short*, a payload shorter than the header begins with struct rtgenmsg, as the kernel takes it in link dumps:
    one byte, the rest of the header is zero, and attributes come from byte 4 on.
    """

    def __init__(self, header: Callable[..., H], format: str, table: Table, *, short: bool = False) -> None:
        self.header = header
        self.short = short
        self.table = table
        self._struct = _struct.Struct(format)
        self.size = self._struct.size

    def decode(self, payload: bytes, start: int = 0) -> tuple[H, Attrs]:
        """Header and attributes of *payload* from *start*.

        Raises:
            NetlinkError: EINVAL, the payload is shorter than the header; or as :meth:`Table.decode`.
        """
        have = len(payload) - start
        if have < self.size:
            if self.short and have > 0:
                header = self._struct.unpack(payload[start : start + 1].ljust(self.size, b"\0"))
                return self.header(*header), self.table._decode(payload, start + 4, len(payload))
            raise NetlinkError(errno.EINVAL, at_start=True)
        return (
            self.header(*self._struct.unpack_from(payload, start)),
            self.table._decode(payload, start + ((self.size + 3) & ~3), len(payload)),
        )

    def encode(self, header: Iterable[Any], attrs: Mapping[Any, Any]) -> bytes:
        """Header and attributes as the payload of a message."""
        return self._struct.pack(*header) + _PAD[self.size & 3] + self.table.encode(attrs)
