# SPDX-License-Identifier: Apache-2.0
"""Rules under many masks, and the flows that hit them: what Open vSwitch offloads when it is given many connections."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from asap2.nic.rules import Action, Masked, Match, Rule

SRC_MAC, DST_MAC = bytes.fromhex("020000000a01"), bytes.fromhex("020000000a02")
UDP, IPV4 = 17, 0x0800
DST_PORT = 4000
DESTINATIONS = 0x0A80_0000
"""10.128.0.0: the address that flows of mask 0 go to; bits 8 to 15 tell the masks apart."""
_STRIDE = 7919
"""A prime that divides no number of rules: neighbouring flows hit rules far apart."""
_MANY = 1_000_000
"""So many source addresses come to the rule that takes all."""


def rules(number: int, masks: int, in_port: int, actions: tuple[Action, ...]) -> Iterator[Rule]:
    """*number* rules for packets of *in_port*, one after another under each of at most 64 *masks*.

    One rule alone takes every flow. Otherwise rule n is for source addresses that begin with the 24 bits n, so each
    flow has one; the masks differ in the lengths of both prefixes, 25 to 32 bits.
    """
    common = {
        "eth_dst": Masked(int.from_bytes(DST_MAC, "big"), (1 << 48) - 1),
        "eth_src": Masked(int.from_bytes(SRC_MAC, "big"), (1 << 48) - 1),
        "eth_type": Masked(IPV4, 0xFFFF),
        "ip_proto": Masked(UDP, 0xFF),
        "ip_frag": Masked(0, 0xFF),
        "l4_dst": Masked(DST_PORT, 0xFFFF),
    }
    if number == 1:
        yield Rule(0, in_port, 1, Match(**common), actions)
        return
    for n in range(number):
        source, destination = addresses(n, masks)
        mask = n % masks
        used = common | {
            "ip_src": Masked(source, _prefix(32 - mask % 8)),
            "ip_dst": Masked(destination, _prefix(32 - mask // 8)),
        }
        yield Rule(0, in_port, 1, Match(**used), actions)


def _prefix(length: int) -> int:
    return 0xFFFF_FFFF << (32 - length) & 0xFFFF_FFFF


def addresses(rule: int, masks: int) -> tuple[int, int]:
    """Source and destination of a flow that hits *rule* of a table with so many *masks*."""
    return rule << 8, DESTINATIONS | (rule % masks) << 8


def flow(number: int, rule_count: int, masks: int) -> tuple[int, int, int]:
    """Source address, destination address and UDP source port of flow *number*."""
    hit = number * _STRIDE % (rule_count if rule_count > 1 else _MANY)
    return *addresses(hit, masks), 1024 + number % 60_000


def frame(source: int, destination: int, source_port: int, payload: bytes = b"") -> bytes:
    """The smallest Ethernet frame of such a flow, without a UDP checksum; room for 18 bytes of *payload*."""
    header = struct.pack(">BBHHHBBHII", 0x45, 0, 46, 0, 0x4000, 64, UDP, 0, source, destination)
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
    udp = struct.pack(">HHHH", source_port, DST_PORT, 26, 0)
    return DST_MAC + SRC_MAC + struct.pack(">H", IPV4) + header + udp + payload.ljust(18, b"\0")
