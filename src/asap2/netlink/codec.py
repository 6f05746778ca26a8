# SPDX-License-Identifier: Apache-2.0
"""Declarative netlink attribute tables, for both directions: bytes to names and values, and back to the same bytes.

A :class:`Table` says, for each attribute type of one nest, its name and kind::

    FLOWER = Table("flower", {1: ("classid", u32), 3: ("act", nested(ACTIONS)), 8: ("key_eth_type", be16)})
    attrs = FLOWER.decode(payload)      # Attrs: a dict, name -> value, in the order of the message
    FLOWER.encode(attrs) == payload

Attributes that a table does not know are kept under their number, as bytes. Those that are too short for their kind
raise :class:`NetlinkError` with the errno and text of the kernel's policies, and the attribute's offset in the message,
given that *payload* is the message's whole payload; those too long are cut, as in the kernel, but remembered.
"""

from __future__ import annotations

import errno
import struct as _struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from asap2.netlink.wire import HEADER_LEN, NLA_F_NESTED, NLA_TYPE_MASK, NetlinkError

Name = str | int
_Decode = Callable[[bytes, int, int], Any]
_Encode = Callable[[Any], bytes]

_HEAD = _struct.Struct("=HH")
_head = _HEAD.unpack_from
_pack_head = _HEAD.pack
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")
_NONE: dict[Name, tuple[bytes, _Encode]] = {}


class Attrs(dict[Name, Any]):
    """Decoded attributes of one nest, name to value, in order.

    *bits* holds the NLA_F_ bits of those attributes whose bits differ from the table's default; *tail* the bytes after
    the last whole attribute, which the kernel ignores too; *bare* is set if the last attribute came without padding.
    """

    __slots__ = ("bare", "bits", "tail")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bits: dict[Name, int] | None = None
        self.tail: bytes = b""
        self.bare = False


class RawString(str):
    """A string that came without its terminating NUL, or with more after it; *raw* is how it came."""

    raw: bytes

    @classmethod
    def of(cls, raw: bytes) -> RawString:
        """The text before the first NUL of *raw*, remembering *raw*."""
        self = cls(raw.split(b"\0", 1)[0].decode(errors="surrogateescape"))
        self.raw = raw
        return self


class LongInt(int):
    """A number that came in an attribute longer than its kind, as the kernel allows; *raw* is how it came."""

    raw: bytes


class LongBytes(bytes):
    """Bytes cut to the length of their kind, or filled up to it; *raw* is how they came."""

    raw: bytes


class Kind:
    """How one attribute's payload becomes a value, and back; *bits* are the NLA_F_ bits that the kernel sets, *size* is
    in bytes, None: any."""

    __slots__ = ("bits", "decode", "encode", "fixed", "repeated", "size", "variants")

    def __init__(
        self,
        decode: _Decode,
        encode: _Encode,
        *,
        bits: int = 0,
        repeated: bool = False,
        variants: tuple[str, Mapping[str, Table]] | None = None,
        fixed: tuple[int, _Encode] | None = None,
        size: int | None = None,
    ) -> None:
        self.decode = decode
        self.encode = encode
        self.bits = bits
        self.repeated = repeated
        self.size = size
        self.variants = variants
        self.fixed = fixed  # size, and an encoder that pads to 4 bytes: for speed


def _refused(start: int) -> NetlinkError:
    return NetlinkError(errno.ERANGE, "Attribute failed policy validation", HEADER_LEN + start - 4)


def _scalar(format: str) -> Kind:
    compiled = _struct.Struct(format)
    size, unpack, pack = compiled.size, compiled.unpack_from, compiled.pack

    def decode(data: bytes, start: int, end: int) -> Any:
        if end - start == size:
            return unpack(data, start)[0]
        if end - start < size:
            raise _refused(start)
        value = LongInt(unpack(data, start)[0])
        value.raw = data[start:end]
        return value

    def encode(value: Any) -> bytes:
        return value.raw if type(value) is LongInt else pack(value)

    return Kind(decode, encode, fixed=(size, _struct.Struct(f"{format}{-size % 4}x").pack), size=size)


u8 = _scalar("=B")
u16 = _scalar("=H")
u32 = _scalar("=I")
u64 = _scalar("=Q")
s32 = _scalar("=i")
be16 = _scalar(">H")
be32 = _scalar(">I")
be64 = _scalar(">Q")


def _decode_binary(data: bytes, start: int, end: int) -> bytes:
    return data[start:end]


binary = Kind(_decode_binary, bytes)
"""Bytes as they are; addresses too (in network order)."""


def exactly(size: int) -> Kind:
    """Bytes, *size* of them: addresses and identifiers."""

    def decode(data: bytes, start: int, end: int) -> bytes:
        if end - start == size:
            return data[start:end]
        if end - start < size:
            raise _refused(start)
        value = LongBytes(data[start : start + size])
        value.raw = data[start:end]
        return value

    return Kind(decode, lambda value: value.raw if type(value) is LongBytes else bytes(value), size=size)


def at_most(size: int) -> Kind:
    """Bytes, no more than *size*: where there are fewer, zeros follow (nla_memcpy)."""

    def decode(data: bytes, start: int, end: int) -> bytes:
        if end - start == size:
            return data[start:end]
        if end - start > size:
            raise _refused(start)
        value = LongBytes(data[start:end].ljust(size, b"\0"))
        value.raw = data[start:end]
        return value

    return Kind(decode, lambda value: value.raw if type(value) is LongBytes else bytes(value), size=size)


mac = exactly(6)
ipv4 = exactly(4)
ipv6 = exactly(16)


def _decode_string(data: bytes, start: int, end: int) -> str:
    raw = data[start:end]
    if raw.find(b"\0") == end - start - 1:
        return raw[:-1].decode(errors="surrogateescape")
    return RawString.of(raw)


def _encode_string(value: str) -> bytes:
    if type(value) is RawString:
        return value.raw
    return value.encode(errors="surrogateescape") + b"\0"


string = Kind(_decode_string, _encode_string)
"""Text ended by a NUL; :class:`RawString` keeps what came otherwise."""


def _decode_flag(_data: bytes, start: int, end: int) -> bool:
    if end != start:
        raise _refused(start)
    return True


flag = Kind(_decode_flag, lambda _value: b"", size=0)
"""An attribute whose presence is the message; its value is True."""


def struct(cls: type[Any], format: str) -> Kind:
    """A C structure as the NamedTuple *cls*; *format* as for :mod:`struct`. A longer one is cut, a shorter refused."""
    compiled = _struct.Struct(format)
    size, unpack, pack, make = compiled.size, compiled.unpack_from, compiled.pack, cls._make

    def decode(data: bytes, start: int, end: int) -> Any:
        if end - start < size:
            raise _refused(start)
        return make(unpack(data, start))

    padded = _struct.Struct(f"{format}{-size % 4}x").pack
    return Kind(decode, lambda value: pack(*value), fixed=(size, lambda value: padded(*value)), size=size)


def numbers(format: str) -> Kind:
    """A packed array of numbers of one :mod:`struct` format, as a tuple."""
    size, order, letter = _struct.calcsize(format), format[:-1], format[-1]

    def decode(data: bytes, start: int, end: int) -> tuple[int, ...]:
        count, rest = divmod(end - start, size)
        if rest:
            raise _refused(start)
        return _struct.unpack_from(f"{order}{count}{letter}", data, start)

    return Kind(decode, lambda value: _struct.pack(f"{order}{len(value)}{letter}", *value))


class Table:
    """The attributes of one nest: type number to (name, kind)."""

    def __init__(self, name: str, fields: Mapping[int, tuple[str, Kind]]) -> None:
        self.name = name
        self.fields = dict(fields)
        self.numbers: dict[str, int] = {field: number for number, (field, _kind) in fields.items()}
        if len(self.numbers) != len(self.fields):
            raise ValueError(f"table {name} has a name twice")
        self._fast: dict[int, tuple[str, _Decode]] = {}
        self._variants: list[tuple[str, str, Mapping[str, Table]]] = []
        self._encoders: dict[Name, tuple[int, _Encode]] = {}
        self._fixed: dict[Name, tuple[bytes, _Encode]] = {}
        for number, (field, kind) in fields.items():
            if kind.variants:
                self._variants.append((field, *kind.variants))
            if not kind.repeated:
                self._fast[number | kind.bits] = (field, kind.decode)
            self._encoders[field] = (number | kind.bits, kind.encode)
            if kind.fixed and not kind.repeated:
                self._fixed[field] = (_pack_head(4 + kind.fixed[0], number | kind.bits), kind.fixed[1])

    def decode(self, data: bytes, start: int = 0, end: int | None = None) -> Attrs:
        """The attributes in ``data[start:end]``.

        Raises:
            NetlinkError: an attribute is too short for its kind (ERANGE, as from the kernel's policies).
        """
        return self._decode(data, start, len(data) if end is None else end)

    def _decode(self, data: bytes, start: int, end: int) -> Attrs:
        attrs = Attrs()
        fast = self._fast
        limit = end - 4
        while start <= limit:
            length, type_ = _head(data, start)
            stop = start + length
            if length < 4 or stop > end:
                break
            found = fast.get(type_)
            if found is not None:
                attrs[found[0]] = found[1](data, start + 4, stop)
            else:
                self._unusual(attrs, data, start + 4, stop, type_)
            start += (length + 3) & ~3
        if start != end:
            if start < end:
                attrs.tail = data[start:end]
            else:
                attrs.bare = True
        for field, selector, tables in self._variants:
            span = attrs.get(field)
            if span is not None:
                table = tables.get(attrs.get(selector, ""))
                attrs[field] = table._decode(data, *span) if table else data[span[0] : span[1]]
        return attrs

    def _unusual(self, attrs: Attrs, data: bytes, start: int, stop: int, type_: int) -> None:
        """An attribute that is unknown, repeated, or whose NLA_F_ bits are not the usual ones."""
        number = type_ & NLA_TYPE_MASK
        field = self.fields.get(number)
        name: Name
        if field is None:
            name, usual = number, 0
            attrs[number] = data[start:stop]
        else:
            name, kind = field
            usual = kind.bits
            value = kind.decode(data, start, stop)
            if kind.repeated:
                attrs.setdefault(name, []).append(value)
            else:
                attrs[name] = value
        if type_ != number | usual:
            if attrs.bits is None:
                attrs.bits = {}
            attrs.bits[name] = type_ & ~NLA_TYPE_MASK

    def encode(self, attrs: Mapping[Any, Any]) -> bytes:
        """The attributes as bytes, in the order of the mapping; a None value is left out, bytes are taken as they are.

        Raises:
            KeyError: a name that the table does not have.
        """
        parts: list[bytes] = []
        append = parts.append
        bits: Mapping[Name, int] | None = None
        tail, bare = b"", False
        if type(attrs) is Attrs:
            bits, tail, bare = attrs.bits, attrs.tail, attrs.bare
        get_fixed = (_NONE if bits is not None or bare else self._fixed).get
        for name, value in attrs.items():
            if value is None:
                continue
            class_ = type(value)
            if (fixed := get_fixed(name)) and class_ is not bytes and class_ is not LongInt:
                append(fixed[0] + fixed[1](value))
                continue
            if type(name) is int:
                type_ = name
                kind = self.fields.get(name)
                encode = kind[1].encode if kind else bytes
                repeated = False
            else:
                type_, encode = self._encoders[name]
                repeated = self.fields[type_ & NLA_TYPE_MASK][1].repeated
            if bits is not None and name in bits:
                type_ = (type_ & NLA_TYPE_MASK) | bits[name]
            if repeated:
                for item in value:
                    raw = item if type(item) is bytes else encode(item)
                    length = len(raw) + 4
                    append(_pack_head(length, type_))
                    append(raw)
                    if length & 3:
                        append(_PAD[length & 3])
                continue
            if type(value) is not bytes:
                if encode is bytes and type(value) is not bytearray and type(value) is not memoryview:
                    raise TypeError(f"{self.name}.{name} takes bytes, not {type(value).__name__}")
                value = self._variant(name, attrs).encode(value) if encode is _UNDECIDED else encode(value)
            length = len(value) + 4
            append(_pack_head(length, type_))
            append(value)
            if length & 3:
                append(_PAD[length & 3])
        if bare and parts and parts[-1] in _PAD:
            parts.pop()
        append(tail)
        return b"".join(parts)

    def _variant(self, name: Name, attrs: Mapping[Any, Any]) -> Table:
        for field, selector, tables in self._variants:
            if field == name:
                return tables[attrs[selector]]
        raise KeyError(name)


def _span(_data: bytes, start: int, end: int) -> tuple[int, int]:
    return start, end


def _UNDECIDED(_value: Any) -> bytes:  # noqa: N802
    raise TypeError("the kind beside it decides how this attribute is encoded")


def nested(table: Table, *, flagged: bool = False) -> Kind:
    """A nest; *flagged*: with NLA_F_NESTED, as newer kernel code sets it."""
    return Kind(table._decode, table.encode, bits=NLA_F_NESTED if flagged else 0)


def nested_by(selector: str, tables: Mapping[str, Table], *, flagged: bool = False) -> Kind:
    """A nest whose table the string attribute *selector* beside it chooses; bytes if it names none of *tables*."""
    return Kind(_span, _UNDECIDED, bits=NLA_F_NESTED if flagged else 0, variants=(selector, tables))


def repeated(kind: Kind) -> Kind:
    """An attribute that may come several times; its value is a list."""
    return Kind(kind.decode, kind.encode, bits=kind.bits, repeated=True)


class _Indexed(Table):
    """A nest whose attribute types are positions, all of one kind."""

    def __init__(self, kind: Kind) -> None:
        super().__init__("array", {})
        self._kind = kind

    def _unusual(self, attrs: Attrs, data: bytes, start: int, stop: int, type_: int) -> None:
        number = type_ & NLA_TYPE_MASK
        attrs[number] = self._kind.decode(data, start, stop)
        if type_ != number | self._kind.bits:
            if attrs.bits is None:
                attrs.bits = {}
            attrs.bits[number] = type_ & ~NLA_TYPE_MASK

    def encode(self, attrs: Mapping[Any, Any] | Iterable[Any]) -> bytes:
        items = attrs.items() if isinstance(attrs, Mapping) else enumerate(attrs, 1)
        bits = (attrs.bits if isinstance(attrs, Attrs) else None) or {}
        kind = self._kind
        parts = []
        for index, value in items:
            raw = value if type(value) is bytes else kind.encode(value)
            length = len(raw) + 4
            parts.append(_pack_head(length, index | bits.get(index, kind.bits)) + raw + _PAD[length & 3])
        return b"".join(parts) + (attrs.tail if isinstance(attrs, Attrs) else b"")


def array_of(element: Table | Kind, *, flagged: bool = False, flagged_elements: bool = False) -> Kind:
    """A nest of numbered elements: decoded to Attrs by number; encoded from that, or from a list (numbered from 1)."""
    kind = nested(element, flagged=flagged_elements) if isinstance(element, Table) else element
    return nested(_Indexed(kind), flagged=flagged)
