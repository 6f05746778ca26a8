# SPDX-License-Identifier: Apache-2.0
"""Columns of a table: what is in them, how wide they are, and which of them a narrow terminal does without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from asap2.output import line

Row = TypeVar("Row")
Value = float | str | None
GAP = 1
"""Spaces between two columns."""


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """A column. ``value`` is what rows are sorted by, ``show`` what its cell says. ``need`` is 0 for a column that is
    always shown; of the others, those with the largest go first where there is no room. ``most`` is how many characters
    it takes at most; one that ``stretches`` takes all that is left."""

    name: str
    heading: str
    value: Callable[[Row], Value]
    show: Callable[[Row], str]
    need: int = 0
    most: int = 16
    number: bool = False
    stretches: bool = False

    def cell(self, row: Row, width: int) -> str:
        """The cell of *row*, *width* characters wide."""
        text = line(self.show(row))
        if len(text) > width:
            text = text[: max(0, width - 1)] + "…"
        return text.rjust(width) if self.number else text.ljust(width)

    def head(self, width: int) -> str:
        """The heading, *width* characters wide."""
        return self.heading.rjust(width) if self.number else self.heading.ljust(width)


def fit(columns: Sequence[Column[Row]], rows: Sequence[Row], room: int) -> list[tuple[Column[Row], int]]:
    """The columns that fit into a line of *room* characters, with their widths."""
    widths = {
        column.name: min(column.most, max([len(column.heading), *(len(line(column.show(row))) for row in rows)]))
        for column in columns
    }
    least = {column.name: len(column.heading) if column.stretches else widths[column.name] for column in columns}
    shown = list(columns)
    while sum(least[one.name] + GAP for one in shown) - GAP > room:
        spare = [one for one in shown if one.need]
        if not spare:
            break
        shown.remove(max(spare, key=lambda one: one.need))
    left = room - sum(least[one.name] + GAP for one in shown) + GAP
    for one in shown:
        if one.stretches:
            least[one.name] += max(0, left)
    return [(one, least[one.name]) for one in shown]


def arranged(columns: Sequence[Column[Row]], rows: Sequence[Row], by: str, *, reverse: bool) -> list[Row]:
    """*rows* in the order of the column called *by*, the largest numbers or the first texts first, or the other way
    round with *reverse*; as they are where there is no such column."""
    for column in columns:
        if column.name == by:
            return ordered(rows, column, largest_first=column.number != reverse)
    return list(rows)


def ordered(rows: Sequence[Row], column: Column[Row], *, largest_first: bool) -> list[Row]:
    """*rows* by the values of *column*; those without one come last. Rows with the same value stay in their order."""
    known = [row for row in rows if column.value(row) is not None]
    unknown = [row for row in rows if column.value(row) is None]

    def key(row: Row) -> tuple[float, str]:
        value = column.value(row)
        return (value, "") if isinstance(value, int | float) else (0.0, str(value))

    return sorted(known, key=key, reverse=largest_first) + unknown
