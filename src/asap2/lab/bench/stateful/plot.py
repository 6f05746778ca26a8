# SPDX-License-Identifier: Apache-2.0
"""A run as a picture: the paths beside one another, and the targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asap2.errors import Asap2Error
from asap2.lab.bench.scale.plot import draw_targets
from asap2.lab.bench.stateful.paths import NAMES

PANELS = {
    "tcp_gbps": "TCP, one stream, Gbit/s",
    "packets_per_second": "small packets/s",
    "connections_per_second": "new connections/s",
}
COLOURS = dict(zip(NAMES, ("#9a9a9a", "#76b900", "#3f8f5f", "#4c78a8"), strict=True))


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw *result* (:func:`asap2.lab.bench.stateful.run.run`) into the PNG *file*."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise Asap2Error("the plot needs matplotlib; `make setup` installs it") from None
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (*panels, targets) = pyplot.subplots(1, len(PANELS) + 1, figsize=(15, 4), layout="constrained")
    for axis, (key, title) in zip(panels, PANELS.items(), strict=True):
        spread = [result["figures"][name][key] for name in NAMES]
        medians = [each["median"] for each in spread]
        ranges = [
            [each["median"] - each["least"] for each in spread],
            [each["most"] - each["median"] for each in spread],
        ]
        bars = axis.bar(range(len(NAMES)), medians, yerr=ranges, capsize=2, color=[COLOURS[name] for name in NAMES])
        axis.bar_label(bars, fmt="%.3g", fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(NAMES)), NAMES, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.15)
    draw_targets(targets, result)
    figure.suptitle(
        f"Tracked connections: medians of {result['rounds']} interleaved rounds, and their range", fontsize=11
    )
    try:
        figure.savefig(file, dpi=110)
    finally:
        pyplot.close(figure)
