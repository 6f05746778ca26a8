# SPDX-License-Identifier: Apache-2.0
"""What a suite of measurements comes to: medians over its rounds, ratios to peers in the same round, targets."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Figures = dict[str, float]
Round = dict[str, Figures]
"""For each thing that is measured, its figures."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """*figure* of *of* by *peer_figure* of *to*; *target* is the least that it should be, or the *most*."""

    name: str
    of: str
    figure: str
    to: str
    target: float | None = None
    peer_figure: str = ""
    most: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """The least that a figure should be, or the *most*."""

    name: str
    of: str
    figure: str
    bound: float
    most: bool = False


@dataclass(frozen=True, slots=True)
class Suite:
    """The name of a suite of measurements, and the ratios and targets that are told of a run."""

    name: str
    ratios: Sequence[Ratio]
    targets: Sequence[Target]


def summarize(suite: Suite, measured: list[Round]) -> dict[str, Any]:
    """Median, least and most over the rounds: of each figure, of each ratio, and what became of each target."""
    figures = {
        of: {figure: _spread([each[of][figure] for each in measured]) for figure in first}
        for of, first in measured[0].items()
    }
    result: dict[str, Any] = {
        "suite": suite.name,
        "rounds": len(measured),
        "figures": figures,
        "ratios": {},
        "targets": {},
    }
    for ratio in suite.ratios:
        peer = ratio.peer_figure or ratio.figure
        values = [each[ratio.of][ratio.figure] / each[ratio.to][peer] for each in measured]
        result["ratios"][ratio.name] = _spread(values)
        if ratio.target is not None:
            median = result["ratios"][ratio.name]["median"]
            result["targets"][ratio.name] = _verdict(median, ratio.target, most=ratio.most)
    for target in suite.targets:
        median = figures[target.of][target.figure]["median"]
        result["targets"][target.name] = _verdict(median, target.bound, most=target.most)
    return result


def _verdict(value: float, bound: float, *, most: bool) -> dict[str, Any]:
    met = value <= bound if most else value >= bound
    return {"value": value, "at_most" if most else "at_least": bound, "met": met}


def _spread(values: list[float]) -> dict[str, float]:
    def rounded(value: float) -> float:
        return float(f"{value:.4g}")

    return {"median": rounded(statistics.median(values)), "least": rounded(min(values)), "most": rounded(max(values))}
