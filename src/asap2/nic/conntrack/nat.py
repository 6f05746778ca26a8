# SPDX-License-Identifier: Apache-2.0
"""Which address and port NAT gives a new connection (nf_nat_core.c)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from asap2.nic.conntrack.sources import Source
from asap2.nic.conntrack.states import GRE, ICMP, ICMPV6
from asap2.nic.conntrack.tuples import WITH_PORTS, Tuple
from asap2.nic.jhash import jhash2
from asap2.nic.nat import Nat, NatKind

MAX_ATTEMPTS: Final = 128
"""NF_NAT_MAX_ATTEMPTS: the number of ports tried in one round."""
_FEWEST_ATTEMPTS = 16
_HARDER = 32
"""NF_NAT_HARDER_THRESH: the last ports of a round, of which one may be taken from a connection that has ended."""
_32_BITS = 0xFFFF_FFFF

Taken = Callable[[Tuple], bool]
"""Whether a connection has the inverse of a tuple in either direction (nf_nat_used_tuple())."""


def unique_tuple(
    wanted: Tuple,
    nat: Nat,
    kind: NatKind,
    zone: int,
    taken: Taken,
    entropy: int,
    mappings: Iterable[Source] = (),
    vacated: Taken = lambda _one: False,
) -> Tuple:
    """Translate *wanted*, the tuple of a connection's original packets as they leave, at the end *kind*
    (get_unique_tuple()).

    *mappings* are what NAT has made of this source. *vacated* is whether a tuple that is taken has been made free,
    because its connection has ended and only waits. *entropy* stands for random numbers. If every candidate is *taken*,
    the result is too, and the connection cannot be committed.
    """
    anyhow = nat.hash or nat.random
    if kind is NatKind.SRC and not anyhow:
        chosen = wanted if _in_range(wanted, nat) else _mapped(wanted, nat, mappings)
        if chosen is not None and not taken(chosen):
            return chosen
    chosen = _with_address(wanted, nat, kind, zone)
    if not anyhow:
        if not _has_ports(nat):
            if not taken(chosen):
                return chosen
        elif _port_in_range(chosen, nat, kind) and (nat.port_min == nat.port_max or not taken(chosen)):
            return chosen
    return _with_port(chosen, nat, kind, taken, entropy, vacated)


def _mapped(wanted: Tuple, nat: Nat, mappings: Iterable[Source]) -> Tuple | None:
    """What the source becomes by the first of its *mappings* that is in the range (find_appropriate_src())."""
    possible = (replace(wanted, src=address, sport=port) for address, port in mappings)
    return next((one for one in possible if _in_range(one, nat)), None)


def _has_ports(nat: Nat) -> bool:
    return bool(nat.port_min or nat.port_max)


def _in_range(one: Tuple, nat: Nat) -> bool:
    """Whether a source is in the range (nf_in_range())."""
    return (not nat.ip_min or nat.ip_min <= one.src <= nat.ip_max) and (
        not _has_ports(nat) or _port_in_range(one, nat, NatKind.SRC)
    )


def _port_in_range(one: Tuple, nat: Nat, kind: NatKind) -> bool:
    """Whether a port, or ICMP's identifier, is in the range (l4proto_in_range())."""
    if one.proto in (ICMP, ICMPV6):
        return nat.port_min <= one.sport <= nat.port_max
    if one.proto in WITH_PORTS or one.proto == GRE:
        return nat.port_min <= (one.sport if kind is NatKind.SRC else one.dport) <= nat.port_max
    return True


def _words(address: bytes) -> list[int]:
    """The 32-bit words of an address as this machine reads them."""
    return [int.from_bytes(address[at : at + 4], sys.byteorder) for at in range(0, len(address), 4)]


def _with_address(wanted: Tuple, nat: Nat, kind: NatKind, zone: int) -> Tuple:
    """Choose an address of the range, always the same for the same two ends (find_best_ips_proto())."""
    if not nat.ip_min:
        return wanted
    if nat.ip_min == nat.ip_max:
        return _put_address(wanted, kind, nat.ip_min)
    to = _words(wanted.dst)
    source = [*_words(wanted.src), 0, 0, 0][:4]
    hashed = jhash2(source, 0 if nat.persistent else to[-1] ^ zone)
    address, whole = b"", False
    for at in range(0, len(nat.ip_min), 4):
        low = int.from_bytes(nat.ip_min[at : at + 4], "big")
        high = int.from_bytes(nat.ip_max[at : at + 4], "big")
        distance = high - low + 1 & _32_BITS
        if whole:
            low, distance = 0, _32_BITS
        part = low + (hashed * distance >> 32) & _32_BITS
        address += part.to_bytes(4, "big")
        whole |= part != high
        if not nat.persistent:
            hashed ^= to[at // 4] if kind is NatKind.SRC else int.from_bytes(address[at : at + 4], sys.byteorder)
    return _put_address(wanted, kind, address)


def _put_address(one: Tuple, kind: NatKind, address: bytes) -> Tuple:
    return replace(one, src=address) if kind is NatKind.SRC else replace(one, dst=address)


def _with_port(chosen: Tuple, nat: Nat, kind: NatKind, taken: Taken, entropy: int, vacated: Taken) -> Tuple:
    """Search for a free port of the range; there may be none (nf_nat_l4proto_unique_tuple())."""
    at_source = kind is NatKind.SRC
    if chosen.proto in (ICMP, ICMPV6):
        at_source = True
        low, size = (nat.port_min, nat.port_max - nat.port_min + 1) if _has_ports(nat) else (0, 65536)
    elif chosen.proto not in WITH_PORTS:
        return chosen
    elif _has_ports(nat):
        low, high = sorted((nat.port_min, nat.port_max))
        size = high - low + 1
    elif not at_source:
        return chosen
    elif chosen.sport < 512:
        low, size = 1, 511
    elif chosen.sport < 1024:
        low, size = 600, 424
    else:
        low, size = 1024, 64512
    offset = entropy & 0xFFFF if nat.hash or nat.random or kind is NatKind.SRC else 0
    attempts = min(size, MAX_ATTEMPTS)
    while True:
        for left in range(attempts, 0, -1):
            port = low + offset % size
            chosen = replace(chosen, sport=port) if at_source else replace(chosen, dport=port)
            if not taken(chosen) or (left <= _HARDER and vacated(chosen)):
                return chosen
            offset = offset + 1 & 0xFFFF
        if attempts >= size or attempts < _FEWEST_ATTEMPTS:
            return chosen
        attempts //= 2
        offset = entropy & 0xFFFF
