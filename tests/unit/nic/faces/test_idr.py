# SPDX-License-Identifier: Apache-2.0
"""Numbers that the kernel chooses: always the lowest free one, as with its idr, whatever came and went before."""

from __future__ import annotations

import random

from asap2.nic.faces.idr import Idr
from asap2.nic.faces.tc.action_table import ActionTable


def test_the_lowest_free_number_is_given() -> None:
    rng = random.Random(7)
    used: dict[int, None] = {}
    idr = Idr(used)
    for _ in range(5000):
        if used and rng.random() < 0.48:
            number = rng.choice(list(used))
            del used[number]
            idr.give(number)
        elif rng.random() < 0.1:
            used[rng.randrange(1, 400)] = None  # its user chose the number
        else:
            wanted = next(number for number in range(1, 10_000) if number not in used)
            assert idr.lowest() == wanted
            used[wanted] = None


def test_freed_numbers_do_not_pile_up() -> None:
    used: dict[int, None] = {}
    idr = Idr(used)
    for _ in range(10):
        used[idr.lowest()] = None
    for _ in range(1000):  # its user chose the number
        del used[5]
        idr.give(5)
        assert idr.lowest() == 5
        used[5] = None
        del used[7]
        idr.give(7)
        used[7] = None
    assert len(idr) <= 20
    assert idr.lowest() == 11


def test_indices_of_actions_that_are_named_do_not_pile_up() -> None:
    table = ActionTable()
    for _ in range(10):
        table.take("gact")
    for _ in range(1000):
        table.give("gact", 5)
        table.take("gact", 5)
    assert len(table._kind("gact").free) <= 20
    assert table.take("gact") == 11
