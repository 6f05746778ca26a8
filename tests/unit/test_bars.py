# SPDX-License-Identifier: Apache-2.0
"""Bars on terminals: in proportion, never wider than the line, and readable where there are no block characters."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.bars import Bar, bar, lines, parts
from asap2.screen import Screen

AMOUNTS = st.floats(0, 1e12, allow_nan=False)


def printed(what: list[Bar], columns: int = 80, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="")
    Screen(file=file).print(*lines(what, columns))
    file.seek(0)
    return file.read().splitlines()


@given(AMOUNTS, AMOUNTS, st.integers(1, 200))
def test_a_bar_is_never_longer_than_its_room_and_never_empty_for_something(
    amount: float, most: float, width: int
) -> None:
    made = bar(amount, max(amount, most), width)
    assert len(made) <= width
    assert bool(made) == (amount > 0)


@given(AMOUNTS, AMOUNTS)
def test_more_never_has_the_shorter_bar(one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert len(bar(less, more, 30)) <= len(bar(more, more, 30))


def test_a_bar_is_in_proportion_to_an_eighth_of_a_character() -> None:
    assert [bar(amount, 16, 2) for amount in (0, 1, 4, 8, 9, 16)] == ["", "▏", "▌", "█", "█▏", "██"]


@given(st.lists(AMOUNTS, min_size=1, max_size=4), st.integers(4, 100))
def test_the_parts_of_a_bar_fill_it_and_each_is_seen(amounts: list[float], width: int) -> None:
    made = parts([(amount, "") for amount in amounts], width)
    assert sum(len(one[0]) for one in made) == (width if any(amounts) else 0)
    assert len(made) == sum(amount > 0 for amount in amounts)


@pytest.mark.parametrize("columns", [50, 80, 160])
def test_names_bars_and_numbers_are_in_columns(columns: int) -> None:
    shown = printed([Bar("the NIC", 18.8, "18.8 Gbit/s"), Bar("user space", 7.4, "7.4 Gbit/s")], columns)
    assert {len(line) for line in shown} == {min(columns, 2 + 10 + 2 + 60 + 2 + 11)}
    assert [line.split()[-2:] for line in shown] == [["18.8", "Gbit/s"], ["7.4", "Gbit/s"]]


def test_where_there_are_no_blocks_the_bars_are_of_ascii() -> None:
    shown = printed([Bar("a", 3, "3"), Bar("b", 0.1, "0.1")], 30, "ascii")
    assert shown == ["  a  ####################    3", "  b  #                     0.1"]
