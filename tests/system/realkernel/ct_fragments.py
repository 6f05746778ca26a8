# SPDX-License-Identifier: Apache-2.0
"""Random fragments for a real kernel's connection tracking and ours: in any order, twice, overlapping, with gaps, and
with lengths that contradict one another."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Final

from asap2.nic.rules import Ct
from tests.system.realkernel.ct_cases import LEAST, Packet, Step
from tests.unit.nic.conntrack.packets import checksum, datagram, ports

_ETHERNET: Final = bytes.fromhex("0200000000ff020000000001")
_MORE: Final = 0x2000
_FRAGMENT: Final = 44
_COMMIT: Final = Ct(commit=True)


def conversation(random: Random, packets: int) -> list[Step]:
    """Datagrams of UDP in fragments. Their addresses are their own: fragments of other conversations may still wait."""
    family = random.choice((4, 4, 6))
    net = (
        f"10.{random.randrange(256)}.{random.randrange(256)}." if family == 4 else f"fd00:{random.getrandbits(16):x}::"
    )
    made: list[Step] = []
    for ident in range(1, packets):
        made += _fragments(random, family, net, ident)
        if len(made) >= packets:
            break
    return made


def _fragments(random: Random, family: int, net: str, ident: int) -> list[Step]:
    data = random.randbytes(random.randrange(16, 90))
    whole = datagram(net + "1", net + "2", 17, ports(1000, 53) + (8 + len(data)).to_bytes(2, "big") + bytes(2) + data)
    header = whole[: 20 if family == 4 else 40]
    payload = whole[len(header) :]
    inner = (8 * random.randrange(1, len(payload) // 8) for _ in range(random.randrange(1, 4)))
    parts = list(pairwise(sorted({0, *inner, len(payload)})))
    if random.random() < 0.6:
        parts = _disturbed(random, parts, len(payload), 5 if family == 6 else 6)
    if random.random() < 0.5:
        random.shuffle(parts)
    frames = (_frame(header, payload, start, end, more=end < len(payload), ident=ident) for start, end in parts)
    return [Packet(frame, _COMMIT) for frame in frames]


def _disturbed(random: Random, parts: list[tuple[int, int]], length: int, ways: int) -> list[tuple[int, int]]:
    """The *parts* and one that contradicts them, or is there already; or without one. The last of six *ways* is not for
    IPv6, where Linux lets such a fragment go on by itself, as an invalid packet, and we drop it."""
    at = random.randrange(len(parts))
    start, end = parts[at]
    match random.randrange(ways):
        case 0:
            return [*parts, parts[at]]
        case 1:
            return parts[:at] + parts[at + 1 :]
        case 2:  # within what is there
            first = 8 * random.randrange(start // 8, max(start // 8 + 1, end // 8))
            return [*parts[: at + 1], (first, end), *parts[at + 1 :]]
        case 3:  # over a seam
            return [*parts, (max(0, start - 8), min(length, end + 8) & ~7)]
        case 5:  # no multiple of eight
            return [*parts[:at], (start, max(start + 1, end - 3)), *parts[at:]]
    return [*parts, (0, length & ~7)]


def _frame(header: bytes, payload: bytes, start: int, end: int, *, more: bool, ident: int) -> bytes:
    part = payload[start:end]
    if len(header) == 20:
        place = (start >> 3 | _MORE * more).to_bytes(2, "big")
        head = header[:2] + (20 + len(part)).to_bytes(2, "big") + ident.to_bytes(2, "big") + place + header[8:10]
        head += bytes(2) + header[12:]
        ip = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
        return (_ETHERNET + b"\x08\0" + ip + part).ljust(LEAST, b"\0")
    extension = bytes((17, 0)) + (start | more).to_bytes(2, "big") + ident.to_bytes(4, "big")
    head = header[:4] + (8 + len(part)).to_bytes(2, "big") + bytes((_FRAGMENT, header[7])) + header[8:]
    return (_ETHERNET + b"\x86\xdd" + head + extension + part).ljust(LEAST, b"\0")
