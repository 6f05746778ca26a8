# SPDX-License-Identifier: Apache-2.0
"""Counters of filters and actions: the total, and the part in hardware (TCA_STATS_BASIC, TCA_STATS_BASIC_HW)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

from asap2.nic.rules import Counters


@dataclass(frozen=True, slots=True)
class Counted(Counters):
    """The total, and the part that hardware has counted."""

    hardware: Counters = field(default_factory=Counters)

    @classmethod
    def by_hardware(cls, counters: Counters) -> Self:
        """Counters of hardware alone."""
        return cls(counters.packets, counters.bytes, counters.used_ns, counters)

    def plus(self, other: Counted) -> Counted:
        """The sum of both."""
        return Counted(*_sum(self, other), Counters(*_sum(self.hardware, other.hardware)))

    def since(self, before: Counted) -> Counted:
        """The difference from *before*."""
        if not before.packets:
            return self
        return Counted(*_rest(self, before), Counters(*_rest(self.hardware, before.hardware)))


NOTHING: Final = Counted()


def _sum(one: Counters, other: Counters) -> tuple[int, int, int]:
    return one.packets + other.packets, one.bytes + other.bytes, max(one.used_ns, other.used_ns)


def _rest(now: Counters, before: Counters) -> tuple[int, int, int]:
    packets = now.packets - before.packets
    return packets, now.bytes - before.bytes, now.used_ns if packets else 0
