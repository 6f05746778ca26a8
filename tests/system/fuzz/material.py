# SPDX-License-Identifier: Apache-2.0
"""What random messages are made of: names of things that there are, and values of each kind of attribute."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from asap2.netlink import codec
from asap2.netlink.codec import Kind, Table
from asap2.netlink.sequence import Sequence
from asap2.netlink.wire import attribute
from tests.system.fuzz.mutate import number

_SIZES: dict[Kind, int] = {codec.mac: 6, codec.ipv4: 4, codec.ipv6: 16, codec.flag: 0}


@dataclass
class World:
    """What there is to name in messages. ``families`` are generic netlink ids; ``devices`` ifindexes, the NIC's netdevs
    more often than others; ``ports`` numbers of the datapath; ``filters`` and ``flows`` some that were put in."""

    families: dict[str, int]
    devices: list[int]
    representors: list[int]
    functions: list[str]
    datapath: int = 0
    ports: list[int] = field(default_factory=list)
    filters: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    """Ifindex, parent, priority, protocol, handle, chain."""
    flows: list[bytes] = field(default_factory=list)
    """Their UFIDs."""


@dataclass(frozen=True, slots=True)
class Made:
    """A message: its protocol, type, flags, payload, and how much of the payload is a fixed header."""

    protocol: int
    type: int
    flags: int
    payload: bytes
    fixed: int


def value(rng: random.Random, kind: Kind) -> bytes:
    """A payload of an attribute of *kind*, right in size where the kind says it."""
    size = kind.fixed[0] if kind.fixed else _SIZES.get(kind)
    if size is not None:
        return number(rng, size) if size <= 8 else rng.randbytes(size)
    if kind is codec.string:
        return rng.choice((b"eth0", b"br0", b"ovs-system", b"mlx5_core", b"", b"x" * 40, b"\xff\xfe")) + b"\0"
    return rng.choice((b"", rng.randbytes(rng.randrange(24)), attribute(rng.randrange(12), number(rng, 4))))


def some(rng: random.Random, table: Table | Sequence, share: float) -> bytes:
    """Attributes of *table*, each with probability *share*."""
    made = b""
    for kind_number, (_name, kind) in table.fields.items():
        if rng.random() < share:
            made += attribute(kind_number | kind.bits, value(rng, kind))
    return made
