# SPDX-License-Identifier: Apache-2.0
"""Making netlink messages wrong: in single bits, in their attributes, in how attributes nest."""

from __future__ import annotations

import random
import struct

from asap2.netlink.wire import NLA_F_NESTED, NLA_TYPE_MASK, attribute, attributes

_TELLING = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x8100,
    0x88A8,
    0x0800,
    0x86DD,
)


def number(rng: random.Random, size: int) -> bytes:
    """A number of *size* octets, often one at which something changes."""
    if rng.random() < 0.5:
        return (rng.choice(_TELLING) & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("little", "big")))
    return rng.randbytes(size)


def mutated(rng: random.Random, payload: bytes, fixed: int) -> bytes:
    """*payload* with one to three things changed; its first *fixed* octets are a header, attributes follow."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        payload = _once(rng, payload, fixed)
    return payload


def _once(rng: random.Random, payload: bytes, fixed: int) -> bytes:
    kind = rng.random()
    if kind < 0.08 and payload:
        at = rng.randrange(len(payload))
        return payload[:at] + bytes((payload[at] ^ 1 << rng.randrange(8),)) + payload[at + 1 :]
    if kind < 0.12:
        return payload[: rng.randrange(len(payload) + 1)]
    if kind < 0.15:
        return payload + rng.randbytes(rng.randrange(1, 40))
    if kind < 0.2 and fixed:
        at = rng.randrange(fixed)
        return payload[:at] + rng.randbytes(1) + payload[at + 1 :]
    return payload[:fixed] + _tree(rng, payload[fixed:], 0)


def _tree(rng: random.Random, data: bytes, depth: int) -> bytes:
    """Attributes with one changed, here or further down."""
    found = list(attributes(data))
    if not found:
        return data + attribute(rng.randrange(64), number(rng, rng.choice((0, 1, 2, 4, 8, 16))))
    at = rng.randrange(len(found))
    type_, value = found[at]
    nests = bool(type_ & NLA_F_NESTED) or _looks_nested(value)
    if nests and depth < 6 and rng.random() < 0.7:
        found[at] = type_, _tree(rng, value, depth + 1)
    else:
        match rng.randrange(10):
            case 0:
                del found[at]
            case 1:
                found.insert(rng.randrange(len(found) + 1), found[at])
            case 2:
                rng.shuffle(found)
            case 3:
                found[at] = type_ & ~NLA_TYPE_MASK | rng.randrange(80), value
            case 4:
                found[at] = type_ ^ rng.choice((0x8000, 0x4000)), value
            case 5:
                found[at] = type_, value[: rng.randrange(len(value) + 1)]
            case 6:
                found[at] = type_, value + rng.randbytes(rng.randrange(1, 9))
            case 7:
                found[at] = type_, attribute(rng.randrange(40), value)
            case 8 if value:
                start = rng.randrange(len(value))
                found[at] = type_, value[:start] + rng.randbytes(1) + value[start + 1 :]
            case _:
                found[at] = type_, number(rng, len(value)) if len(value) <= 8 else rng.randbytes(len(value))
    made = b"".join(attribute(t, v) for t, v in found)
    if rng.random() < 0.03 and len(made) >= 4:
        made = struct.pack("=H", rng.randrange(1 << 16)) + made[2:]
    return made


def _looks_nested(value: bytes) -> bool:
    if len(value) < 8:
        return False
    length, type_ = int.from_bytes(value[:2], "little"), int.from_bytes(value[2:4], "little")
    return 4 <= length <= len(value) and type_ & NLA_TYPE_MASK < 64
