# SPDX-License-Identifier: Apache-2.0
"""The hashes of Open vSwitch's datapath."""

from __future__ import annotations

from typing import Final

from asap2.nic.jhash import INITIAL, jhash_3words, rotated
from asap2.nic.rules import HashAlgorithm
from asap2.nic.silicon.packet import Fields

_32_BITS: Final = 0xFFFF_FFFF


def symmetric(fields: Fields) -> int:
    """A hash of both ends of a flow that is the same in both directions."""
    either = total = 0
    for shift in (96, 64, 32, 0):
        src, dst = (fields.get(name, 0) >> shift & _32_BITS for name in ("ip_src", "ip_dst"))
        either = rotated(either, 7) ^ src ^ dst
        total = rotated(total, 7) + src + dst & _32_BITS
    protocol, ports = fields.get("ip_proto", 0), 0
    if protocol in (6, 17, 132):
        src, dst = fields.get("l4_src", 0), fields.get("l4_dst", 0)
        ports = (src ^ dst) << 16 | src + dst & 0xFFFF
    return jhash_3words((either, total, ports ^ protocol), INITIAL)


def dp_hash(algorithm: HashAlgorithm, basis: int, flow_hash: int, fields: Fields) -> int:
    """The hash of Open vSwitch's action "hash": of the kernel's *flow_hash*, or of a packet's *fields*."""
    value = flow_hash if algorithm is HashAlgorithm.L4 else symmetric(fields)
    return jhash_3words((value, 0, 0), basis + INITIAL + 4) or 1
