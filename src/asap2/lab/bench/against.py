# SPDX-License-Identifier: Apache-2.0
"""What offload must gain over Open vSwitch that forwards every packet itself: the verdict of demo and benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asap2.quantities import significant


@dataclass(frozen=True, slots=True)
class Gain:
    """A *figure* of the offloaded path, as a multiple of that of a path without offload: at least, or at
    most, *bound*."""

    figure: str
    name: str
    bound: float
    unit: str = ""
    most: bool = False

    def show(self, *values: float) -> str:
        """Values of the figure, and their unit."""
        return ", ".join(significant(value) for value in values) + self.unit

    def met(self, value: float) -> bool:
        """Whether *value* is within the bound."""
        return value <= self.bound if self.most else value >= self.bound

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"at {'most' if self.most else 'least'} {self.bound:g}"


GAINS = (
    Gain("tcp_gbps", "TCP", 1.25, " Gbit/s"),
    Gain("packets_per_second", "small packets", 1.25, "/s"),
    Gain("transactions_per_second", "request and response", 1.25, "/s"),
    Gain("host_cpu_seconds_per_gbit", "CPU of the hosts' processes per gigabit", 0.1, " s", most=True),
    Gain("host_packets", "packets that the host saw", 0.01, most=True),
)
"""Over the userspace switch. Far from what a machine with nothing else to do gives, so that other work beside it seldom
changes a verdict."""

SOFTWARE_GAINS = (Gain("host_packets", "packets that the host saw", 0.01, most=True),)
"""Over the software datapath, which is the NIC's own program and as fast as the NIC: see docs/architecture.md."""


def targets(
    offloaded: Mapping[str, float], without: Mapping[str, float], gains: Sequence[Gain] = GAINS
) -> dict[str, dict[str, Any]]:
    """What became of each of *gains* over a path *without* offload, as plain data. What that path did not do at all has
    no ratio: it counts as missed."""
    found: dict[str, dict[str, Any]] = {}
    for gain in gains:
        peer = without[gain.figure]
        value = round(offloaded[gain.figure] / peer, 5) if peer else None
        bound = "at_most" if gain.most else "at_least"
        found[gain.name] = {"value": value, bound: gain.bound, "met": value is not None and gain.met(value)}
    return found


def missed(
    found: Mapping[str, Mapping[str, Any]], peer: str = "Open vSwitch in user space", gains: Sequence[Gain] = GAINS
) -> str | None:
    """One sentence about those of *gains* over *peer* that were missed, if any."""
    words = [
        f"{gain.name} {'without a ratio' if value is None else f'{value:g} times'} ({gain.wanted})"
        for gain in gains
        for value in [found[gain.name]["value"]]
        if not found[gain.name]["met"]
    ]
    return f"offload gains too little over {peer}: {', '.join(words)}" if words else None
