# SPDX-License-Identifier: Apache-2.0
"""Random actions, and what a packet may bring along: a tunnel's metadata, what connection tracking says of it."""

from __future__ import annotations

from random import Random
from typing import Any

from asap2.nic.fields import FIELD_BITS, FIELDS, REWRITABLE, TRACKED, Header
from asap2.nic.rules import AddTtl, Encap, Masked, SetField, SetTunnel
from tests.system.nic.silicon.frames import IPV4, IPV6, MACS, OPTIONS, TOS, TPIDS, TTL, TUNNEL_IDS, option

_BY_TC = tuple(
    field.name
    for field in FIELDS
    if field.depth is not None and any(at.header in (Header.ETHERNET, Header.IPV4, Header.L4) for at in field.found)
)
"""What TC rewrites."""
_TRACKED = tuple(name for name in FIELD_BITS if name in TRACKED)


def random_tag(random: Random) -> tuple[int, int, int]:
    """VLAN id, priority and tag protocol."""
    return random.choice((0, 57, 4095)), random.randrange(8), random.choice(TPIDS)


_VALUES: dict[str, tuple[Any, ...]] = {
    "eth_dst": tuple(int.from_bytes(mac, "big") for mac in MACS),
    "ip_src": tuple(int.from_bytes(address, "big") for address in IPV4 + IPV6),
    "ip_tos": TOS,
    "ip_ttl": TTL,
    "l4_src": (0, 80, 4789, 0xFFFF),
}
_VALUES |= {"eth_src": _VALUES["eth_dst"], "ip_dst": _VALUES["ip_src"], "l4_dst": _VALUES["l4_src"]}


def random_set_field(random: Random, names: tuple[str, ...] = _BY_TC) -> SetField | AddTtl:
    """An action that sets one of *names*, or changes the TTL."""
    if random.random() < 0.1:
        return AddTtl(random.choice((1, 254, 255, 255)))
    name = random.choice(names)
    width = REWRITABLE[name].bits
    full = (1 << width) - 1
    low = full if name not in ("ip_src", "ip_dst") else random.choice((full, 0xFFFFFFFF))
    mask = random.choice((low, low, low, 1, full ^ 1, random.getrandbits(width))) or full
    value = random.choice(_VALUES.get(name, (0, 1))) if random.random() < 0.7 else random.getrandbits(width)
    return SetField(name, Masked(value & mask, mask))


def random_encap(random: Random) -> Encap:
    """An action that puts the packet into a tunnel."""
    ends = random.choice((IPV4, IPV6))
    protocol = random.choice(("vxlan", "vxlan", "geneve", "geneve", "gre"))
    keyed = protocol != "gre" or random.random() < 0.7
    port = {"vxlan": random.choice((4789, 4789, 4789, 8472)), "geneve": random.choice((6081, 6081, 7777)), "gre": 0}
    options = random.choice((b"", *(header + random.randbytes(4) for header in OPTIONS)))
    return Encap(
        protocol,
        random.choice(TUNNEL_IDS) if keyed else 0,
        random.choice(ends),
        random.choice(ends),
        random.choice(TOS),
        random.choice(TTL),
        port[protocol],
        random.choice(MACS),
        random.choice(MACS),
        options if protocol == "geneve" else b"",
        keyed,
    )


def random_tracked(random: Random) -> tuple[tuple[str, int], ...]:
    """What connection tracking says of a packet."""
    return tuple((name, random.getrandbits(FIELD_BITS[name])) for name in _TRACKED if random.random() < 0.5)


def random_tunnel(random: Random) -> SetTunnel:
    """Metadata of a tunnel of the kernel's."""
    ends = random.choice((IPV4, IPV6))
    return SetTunnel(
        random.choice((*TUNNEL_IDS, 0xFFFFFFFF)),
        random.choice(ends),
        random.choice(ends),
        random.choice(TOS),
        random.choice(TTL),
        random.choice((0, 4789)),
        random.random() < 0.5,
        random.random() < 0.5,
        b"".join(option(random) for _ in range(random.choice((0, 0, 1, 1, 2))))[:48],
        random.random() < 0.9,
    )
