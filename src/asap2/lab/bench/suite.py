# SPDX-License-Identifier: Apache-2.0
"""A run of a suite in its lab: everything in turn, round after round."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from asap2.lab.bench.ratios import Figures, Round, Suite, summarize
from asap2.lab.lab import Lab

Measurement = Callable[[], Round]


def named(name: str, measurement: Callable[[], Figures]) -> Measurement:
    """A measurement of one thing, called *name* in the result."""
    return lambda: {name: measurement()}


def run(
    suite: Suite,
    lab: Lab,
    built: AbstractContextManager[list[Measurement]],
    rounds: int,
    tell: Callable[[str], object],
) -> dict[str, Any]:
    """Measure what *built* brings up in *lab* so many times, and :func:`.summarize`; *tell* is called with a line about
    each thing that was measured. The lab is taken down after it."""
    load = os.getloadavg()[0]
    measured: list[Round] = []
    try:
        with built as things:
            for number in range(rounds):
                measured.append({})
                for measurement in things:
                    for name, figures in measurement().items():
                        measured[-1].setdefault(name, {}).update(figures)
                        words = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
                        tell(f"round {number + 1} of {rounds}: {name}: {words}")
    finally:
        lab.down()
    return summarize(suite, measured) | {"load_average_before": round(load, 2)}
