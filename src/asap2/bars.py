# SPDX-License-Identifier: Apache-2.0
"""Bars of block characters, for quantities that are compared with each other on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asap2.screen import Text, styled

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEAST_WIDTH, _MOST_WIDTH = 10, 60


@dataclass(frozen=True, slots=True)
class Bar:
    """One *amount*, its name, how the number is written, and the style of its bar."""

    name: str
    amount: float
    written: str
    style: str = ""


def bar(amount: float, most: float, width: int) -> str:
    """A bar of *amount* in *width* characters, all of which *most* fills. An amount above zero is never empty."""
    if not (amount > 0 and most > 0):
        return ""
    eighths = min(8 * width, max(1, math.floor(8 * width * amount / most)))
    whole, rest = divmod(eighths, 8)
    return _EIGHTHS[-1] * whole + (_EIGHTHS[rest] if rest else "")


def parts(amounts: Sequence[tuple[float, str]], width: int) -> list[tuple[str, str]]:
    """One bar of *width* characters, whose parts are in proportion to *amounts*, each in its style; every amount above
    zero has at least one character."""
    total = sum(amount for amount, _ in amounts)
    if total <= 0:
        return []
    sizes = [max(1, math.floor(width * amount / total)) if amount > 0 else 0 for amount, _ in amounts]
    while rest := width - sum(sizes):
        sizes[sizes.index(max(sizes))] += rest if rest > 0 else -1
    return [(_EIGHTHS[-1] * size, style) for size, (_, style) in zip(sizes, amounts, strict=True) if size]


def lines(bars: Sequence[Bar], columns: int) -> list[Text]:
    """One line for each of *bars*, at most *columns* wide if that leaves room for bars: name, bar, number. The largest
    amount has the longest bar."""
    name = max((len(one.name) for one in bars), default=0)
    number = max((len(one.written) for one in bars), default=0)
    width = min(_MOST_WIDTH, max(_LEAST_WIDTH, columns - name - number - 6))
    most = max((one.amount for one in bars), default=0)
    return [
        styled(
            f"  {one.name:<{name}}  ",
            (f"{bar(one.amount, most, width):<{width}}", one.style),
            f"  {one.written:>{number}}",
        )
        for one in bars
    ]
