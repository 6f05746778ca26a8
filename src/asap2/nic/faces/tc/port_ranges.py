# SPDX-License-Identifier: Apache-2.0
"""Ranges of ports in a flower key, as matches with masks: a range is a few blocks whose sizes are powers of two.

Source: fl_set_key_port_range() of net/sched/cls_flower.c, Linux 6.1.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import product
from typing import Final, NamedTuple

from asap2.netlink.codec import Attrs
from asap2.netlink.wire import NetlinkError
from asap2.nic.rules import Masked, Match

_ALL: Final = 0xFFFF
KEYS: Final = tuple(f"key_port_{end}_{bound}" for end in ("dst", "src") for bound in ("min", "max"))
"""The attributes, in the order in which the kernel gives them back."""


class PortRange(NamedTuple):
    """The ports *least* to *most* in *field* of a match."""

    field: str
    least: int
    most: int

    def blocks(self) -> Iterator[Masked]:
        """The ports by value and mask, each once."""
        at = self.least
        while at <= self.most:
            size = at & -at or _ALL + 1
            while at + size - 1 > self.most:
                size >>= 1
            yield Masked(at, _ALL & ~(size - 1))
            at += size


def parse(options: Attrs) -> tuple[PortRange, ...]:
    """The ranges in a filter's *options*; EINVAL."""
    found = []
    for end, name in (("dst", "destination"), ("src", "source")):
        least, most = (options.get(f"key_port_{end}_{bound}", 0) for bound in ("min", "max"))
        given = [bound for bound in ("min", "max") if f"key_port_{end}_{bound}" in options]
        if len(given) == 1:
            raise NetlinkError(errno.EINVAL, f"Both min and max {name} ports must be specified")
        if given and most <= least:
            raise NetlinkError(errno.EINVAL, f"Invalid {name} port range (min must be strictly smaller than max)")
        if given:
            found.append(PortRange(f"l4_{end}", least, most))
    return tuple(found)


def number(ranges: tuple[PortRange, ...]) -> int:
    """A number that no other ranges have."""
    known = {one.field: one for one in ranges}
    number = 0
    for field in ("l4_src", "l4_dst"):
        one = known.get(field)
        number = number << 33 | (0 if one is None else 1 << 32 | one.least << 16 | one.most)
    return number


def matches(match: Match, ranges: tuple[PortRange, ...]) -> Iterator[Match]:
    """The matches that together are *match* with its ports in the *ranges*."""
    if not ranges:
        yield match
        return
    for blocks in product(*(list(one.blocks()) for one in ranges)):
        yield match.but(**{one.field: block for one, block in zip(ranges, blocks, strict=True)})
