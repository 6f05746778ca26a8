# SPDX-License-Identifier: Apache-2.0
"""What the pictures of all suites have in common."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from asap2.extras import need


@contextlib.contextmanager
def picture(file: Path, panels: int, size: tuple[float, float], title: str, dpi: int = 110) -> Iterator[Any]:
    """So many axes beside one another, to be drawn into while the context is active; it then writes the PNG *file*.
    *size* is in inches."""
    need("plot")
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, panels, figsize=size, layout="constrained")
    try:
        yield axes
        figure.suptitle(title, fontsize=11)
        figure.savefig(file, dpi=dpi)
    finally:
        pyplot.close(figure)


def medians_and_ranges(values: Sequence[dict[str, float]]) -> tuple[list[float], list[list[float]]]:
    """The medians of some figures, and how far their least and most are off these."""
    below = [each["median"] - each["least"] for each in values]
    above = [each["most"] - each["median"] for each in values]
    return [each["median"] for each in values], [below, above]


def draw_targets(axis: Any, result: dict[str, Any]) -> None:
    """Each target as how far it is met: 1 is as wanted, more is better."""
    names, shares = [], []
    for name, each in result["targets"].items():
        reached, wanted = (each["value"], each["at_least"]) if "at_least" in each else (each["at_most"], each["value"])
        names.append(textwrap.fill(name, 34))
        shares.append(reached / wanted if wanted else 1.0)
    colours = ["#76b900" if share >= 1 else "#c44e52" for share in shares]
    bars = axis.barh(range(len(names)), shares, color=colours)
    axis.bar_label(bars, fmt="%.2f", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.invert_yaxis()
    axis.axvline(1, color="#555555", linewidth=0.8, linestyle=":")
    axis.set_title("targets: reached / wanted", fontsize=10)
    axis.margins(x=0.15)
