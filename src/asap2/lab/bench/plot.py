# SPDX-License-Identifier: Apache-2.0
"""The ratios of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asap2.lab.bench.drawing import picture
from asap2.lab.bench.paths import NAMES

PANELS = {
    "tcp_gbps": "TCP, one stream",
    "packets_per_second": "small packets",
    "transactions_per_second": "request/response",
    "cpu_seconds_per_gbit": "CPU per gigabit\n(less is better)",
}
COLOURS = dict(zip(NAMES, ("#9a9a9a", "#76b900", "#4c78a8", "#3f8f5f", "#d08a3a"), strict=True))


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw the ratios to the direct path of *result* (:func:`asap2.lab.bench.run.summarize`) into the PNG *file*."""
    heading = f"Guest to guest on one machine: medians of {result['rounds']} interleaved rounds"
    with picture(file, len(PANELS), (11, 3.6), heading, dpi=120) as axes:
        for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
            values = [result["ratios"][name][key] for name in NAMES]
            bars = axis.bar(range(len(NAMES)), values, color=[COLOURS[name] for name in NAMES])
            axis.bar_label(bars, fmt="%.2f", fontsize=8)
            axis.axhline(1, color="#555555", linewidth=0.8, linestyle=":")
            axis.set_title(title, fontsize=10)
            axis.set_xticks(range(len(NAMES)), [name.replace("_", "\n") for name in NAMES], fontsize=8, rotation=45)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(y=0.15)
        axes[0].set_ylabel("ratio to a direct veth pair")
