# SPDX-License-Identifier: Apache-2.0
"""Many random cases through both sides: what was compared, and where they differ, made small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from tests.system.realkernel import cases, compare, machine, ours, shrink
from tests.system.realkernel.describe import describe
from tests.system.realkernel.machine import Case, Result
from tests.system.realkernel.views import SetAsideError

BATCH = 2000
"""Cases in one boot of the kernel."""
_NAMED = 10
_SHOWN = 3
"""Differing cases that are made small."""


@dataclass
class Tally:
    """What was done."""

    cases: int = 0
    requests: int = 0
    refused: int = 0
    frames: int = 0
    matched: int = 0
    out: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    differing: list[tuple[int, Case, list[str]]] = field(default_factory=list)
    """Number of the case, the case, and what differs."""

    def __str__(self) -> str:
        aside = ", ".join(f"{count} because {why}" for why, count in self.set_aside.items()) or "none"
        return (
            f"{self.cases} cases: {self.requests} requests, {self.refused} of them refused; {self.frames} frames in, "
            f"{self.matched} of them matched; {self.out} frames out. "
            f"Set aside: {aside}. Differing: {len(self.differing)}"
            + "".join(f", {number}" for number, _, _ in self.differing[:_NAMED])
            + "."
        )


def made(seed: int, number: int) -> Case:
    """Case *number* of *seed*."""
    return cases.case(Random(f"{seed}/{number}"))


def campaign(seed: int, count: int, *, first: int = 0, progress: Callable[[Tally], None] | None = None) -> Tally:
    """Cases *first* to *first* + *count* of *seed*. *progress* is told after each batch."""
    tally = Tally()
    for start in range(first, first + count, BATCH):
        numbers = range(start, min(start + BATCH, first + count))
        batch = [made(seed, number) for number in numbers]
        with machine.Kernel(batch) as kernel:
            outcomes = [ours.run(case) for case in batch]  # while the kernel boots and does the same
            results = kernel.results()
        for number, case, outcome, result in zip(numbers, batch, outcomes, results, strict=True):
            _count(tally, number, case, outcome, result)
        if progress:
            progress(tally)
    return tally


def _count(tally: Tally, number: int, case: Case, outcome: ours.Outcome, result: Result) -> None:
    tally.cases += 1
    tally.requests += len(result.answers)
    tally.refused += sum(compare.error_in(answer) is not None for answer in result.answers)
    tally.frames += outcome.frames
    tally.matched += outcome.matched
    tally.out += len(result.captures)
    try:
        found = compare.differences(case, outcome, result)
    except SetAsideError as why:
        tally.set_aside[str(why)] += 1
        return
    if found:
        tally.differing.append((number, case, found))


def explained(tally: Tally) -> Iterator[str]:
    """The first differing cases, each made small and in words."""
    shown = tally.differing[:_SHOWN]
    if not shown:
        return
    small = shrink.shrink([case for _, case, _ in shown], _differs)
    results = machine.run(small)
    for (number, _, was), case, result in zip(shown, small, results, strict=True):
        outcome = ours.run(case)
        found = compare.differences(case, outcome, result)
        yield "\n".join(
            [f"Case {number}:", *describe(case, outcome, result), *(f"  => {text}" for text in found or was)]
        )


def _differs(case: Case, result: Result) -> bool:
    try:
        return bool(compare.differences(case, ours.run(case), result))
    except SetAsideError:
        return False
