# SPDX-License-Identifier: Apache-2.0
"""A run as a picture: the requests beside one another, and the targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asap2.lab.bench.drawing import draw_targets, medians_and_ranges, picture
from asap2.lab.bench.redirect.run import REQUESTS, WAYS

COLOURS = dict(zip(WAYS, ("#4c78a8", "#3f8f5f", "#76b900", "#00add8"), strict=True))


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw *result* (:func:`asap2.lab.bench.redirect.run.run`) into the PNG *file*."""
    heading = f"Redirected requests: medians of {result['rounds']} interleaved rounds, and their range"
    ways = [way for way in WAYS if way in result["figures"]]
    with picture(file, len(REQUESTS) + 1, (17, 4), heading) as (*panels, targets):
        for axis, (request, title) in zip(panels, REQUESTS.items(), strict=True):
            medians, ranges = medians_and_ranges([result["figures"][way][request] for way in ways])
            bars = axis.bar(range(len(ways)), medians, yerr=ranges, capsize=2, color=[COLOURS[way] for way in ways])
            axis.bar_label(bars, fmt="%.3g", fontsize=8)
            axis.set_title(f"{title}, µs", fontsize=9)
            axis.set_xticks(range(len(ways)), ways, fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(y=0.15)
        draw_targets(targets, result)
