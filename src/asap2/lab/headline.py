# SPDX-License-Identifier: Apache-2.0
"""The demo's headline: what users have without offload beside the NIC, in bars, with the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asap2 import bars
from asap2.bars import Bar
from asap2.lab.bench.against import GAINS, SOFTWARE_GAINS, Gain
from asap2.quantities import significant
from asap2.screen import Text, styled

WAYS = {
    "userspace": ("Open vSwitch in user space", "yellow"),
    "software": ("software datapath", "yellow"),
    "offloaded": ("NIC", "green"),
}
"""What each path is called, and the colour of its bars: yellow where the host forwards."""
_MOST_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Group:
    """Bars of one figure of all paths."""

    figure: str
    title: str
    write: Callable[[float], str]


GROUPS = (
    Group("tcp_gbps", "Throughput of one TCP stream", lambda value: f"{significant(value)} Gbit/s"),
    Group(
        "host_cpu_seconds_per_gbit",
        "CPU time of both hosts for each gigabit",
        lambda value: f"{significant(1000 * value)} ms",
    ),
    Group("host_packets", "Packets that the first host handled", lambda value: f"{value:,.0f}"),
)


def lines(comparison: Mapping[str, Any], columns: int) -> list[Text]:
    """The headline of what :class:`~asap2.lab.comparison.Comparison` found, in lines of at most *columns*."""
    rounds = comparison["rounds"]
    made = [styled(f"With offload and without, {rounds} round{'s' if rounds > 1 else ''}", style="bold")]
    for group in GROUPS:
        made.append(styled(group.title))
        shown = [
            Bar(name, comparison[way][group.figure], group.write(comparison[way][group.figure]), style)
            for way, (name, style) in WAYS.items()
        ]
        made += bars.lines(shown, min(columns, _MOST_COLUMNS))
        for key, peer, gains in (("targets", "userspace", GAINS), ("software_targets", "software", SOFTWARE_GAINS)):
            found = next((gain for gain in gains if gain.figure == group.figure), None)
            if found:
                made.append(_verdict(found, comparison[key][found.name], WAYS[peer][0]))
    return made


def _verdict(gain: Gain, found: Mapping[str, Any], peer: str) -> Text:
    mark = ("✓", "green") if found["met"] else ("✗", "red")
    times = "no ratio" if found["value"] is None else f"{significant(found['value'], 2)} times"
    return styled("  ", mark, f" NIC: {times} that of {peer}, {gain.wanted} wanted")
