# SPDX-License-Identifier: Apache-2.0
"""A flood of new flows may take half of the daemon's time."""

from __future__ import annotations

import pytest

from asap2.nic.faces.ovs.spare_time import MOST_NS, SpareTime


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0
        self.spare = SpareTime(lambda: self.now)

    def left(self) -> bool:
        return self.spare.left

    def work(self, ns: int) -> None:
        with self.spare.spent():
            self.now += ns

    def rest(self, ns: int) -> None:
        self.now += ns
        self.work(0)


def test_there_is_spare_time_until_work_has_taken_more_than_rest() -> None:
    clock = Clock()
    clock.work(MOST_NS)
    assert clock.left()
    clock.work(1000)
    assert not clock.left()
    clock.rest(999)
    assert not clock.left()
    clock.rest(1)
    assert clock.left()


def test_neither_long_rest_nor_long_work_counts_for_long() -> None:
    clock = Clock()
    clock.rest(1000 * MOST_NS)
    clock.work(MOST_NS + 1)
    assert not clock.left()
    clock.work(1000 * MOST_NS)
    clock.rest(MOST_NS)
    assert clock.left()


def test_who_works_whenever_there_is_spare_time_works_half_of_it() -> None:
    clock, jobs = Clock(), 0
    clock.work(MOST_NS)
    for _ in range(1000):
        clock.rest(10_000)
        if clock.left():
            jobs += 1
            clock.work(20_000)
    assert jobs == pytest.approx(500, abs=1)
