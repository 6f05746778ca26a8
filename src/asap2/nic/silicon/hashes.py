# SPDX-License-Identifier: Apache-2.0
"""The hashes of Open vSwitch's datapath."""

from __future__ import annotations

from typing import Final

from asap2.nic.silicon.packet import Fields

_32_BITS: Final = 0xFFFF_FFFF
JHASH_INITIAL = 0xDEADBEEF


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> 32 - by) & _32_BITS


def jhash(words: tuple[int, int, int], initial: int) -> int:
    """Bob Jenkins' hash of three words (http://burtleburtle.net/bob/c/lookup3.c, final())."""
    mixed = [(word + initial) & _32_BITS for word in words]
    for to, other, by in ((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)):
        mixed[to] = (mixed[to] ^ mixed[other]) - _rotated(mixed[other], by) & _32_BITS
    return mixed[2]


def symmetric(fields: Fields) -> int:
    """A hash of both ends of a flow that is the same in both directions."""
    either = total = 0
    for shift in (96, 64, 32, 0):
        src, dst = (fields.get(name, 0) >> shift & _32_BITS for name in ("ip_src", "ip_dst"))
        either = _rotated(either, 7) ^ src ^ dst
        total = _rotated(total, 7) + src + dst & _32_BITS
    protocol, ports = fields.get("ip_proto", 0), 0
    if protocol in (6, 17, 132):
        src, dst = fields.get("l4_src", 0), fields.get("l4_dst", 0)
        ports = (src ^ dst) << 16 | src + dst & 0xFFFF
    return jhash((either, total, ports ^ protocol), JHASH_INITIAL)
