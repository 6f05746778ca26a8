# SPDX-License-Identifier: Apache-2.0
"""A run as a picture: the paths beside one another, and the targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asap2.lab.bench.drawing import draw_targets, medians_and_ranges, picture
from asap2.lab.bench.stateful.paths import NAMES

PANELS = {
    "tcp_gbps": "TCP, one stream, Gbit/s",
    "packets_per_second": "small packets/s",
    "connections_per_second": "new connections/s",
}
COLOURS = dict(zip(NAMES, ("#9a9a9a", "#76b900", "#3f8f5f", "#4c78a8"), strict=True))


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw *result* (:func:`asap2.lab.bench.stateful.run.run`) into the PNG *file*."""
    heading = f"Tracked connections: medians of {result['rounds']} interleaved rounds, and their range"
    with picture(file, len(PANELS) + 1, (15, 4), heading) as (*panels, targets):
        for axis, (key, title) in zip(panels, PANELS.items(), strict=True):
            medians, ranges = medians_and_ranges([result["figures"][name][key] for name in NAMES])
            bars = axis.bar(range(len(NAMES)), medians, yerr=ranges, capsize=2, color=[COLOURS[name] for name in NAMES])
            axis.bar_label(bars, fmt="%.3g", fontsize=8)
            axis.set_title(title, fontsize=10)
            axis.set_xticks(range(len(NAMES)), NAMES, fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(y=0.15)
        draw_targets(targets, result)
