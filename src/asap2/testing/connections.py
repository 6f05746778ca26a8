# SPDX-License-Identifier: Apache-2.0
"""The connections that a node tracks, as its ``/proc/net/nf_conntrack`` lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CONNECTIONS = "/proc/net/nf_conntrack"
_PAIR = re.compile(r"(\w+)=(\S+)")
_FLAG = re.compile(r"\[(\w+)\]")
_TUPLE = frozenset({"src", "dst", "sport", "dport", "type", "code", "id", "srckey", "dstkey"})
"""Keys that both directions have; every other one is the connection's."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A tracked connection. ``original`` and ``reply`` are its two directions by the keys of ``text``: src, dst,
    sport, dport and so on. ``offloaded`` if the NIC carries it; it has no ``state`` then."""

    text: str
    protocol: str
    state: str | None
    zone: int
    mark: int
    original: Mapping[str, str]
    reply: Mapping[str, str]
    assured: bool
    offloaded: bool


def parse_connections(lines: Iterable[str]) -> list[Connection]:
    """The connections in *lines* of ``/proc/net/nf_conntrack``."""
    return [_parse(line) for line in lines if "src=" in line]


def _parse(line: str) -> Connection:
    ways: tuple[dict[str, str], dict[str, str]] = ({}, {})
    others: dict[str, str] = {}
    for key, value in _PAIR.findall(line):
        if key in _TUPLE:
            ways[key in ways[0]][key] = value
        else:
            others.setdefault(key, value)
    before = line.partition(" src=")[0].split()
    flags = set(_FLAG.findall(line))
    return Connection(
        text=line.strip(),
        protocol=before[2],
        state=before[-1] if before[-1].isupper() else None,
        zone=int(others.get("zone", 0)),
        mark=int(others.get("mark", 0)),
        original=ways[0],
        reply=ways[1],
        assured="ASSURED" in flags,
        offloaded="HW_OFFLOAD" in flags,
    )
