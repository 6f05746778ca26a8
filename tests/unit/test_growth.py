# SPDX-License-Identifier: Apache-2.0
"""What a long fuzz campaign calls growth of memory."""

from __future__ import annotations

import math

from tests.system.fuzz.campaign import growth

LOOKS = 50
RECORDS = [int(33_000 + 4_000 * math.log(look + 1)) for look in range(LOOKS)]
STEADY = [(157_000, 16_000), (159_000, 16_300)]


def test_what_follows_the_records_of_use_is_flat() -> None:
    assert growth(RECORDS, STEADY) == []


def test_memory_that_grows_in_the_second_half_is_growth() -> None:
    leaking = [33_000 + 300 * look for look in range(LOOKS)]
    assert [found.split(":")[0] for found in growth(leaking, STEADY)] == ["memory grows"]


def test_a_leak_is_seen_in_what_is_in_use_long_before_it_shows_in_the_whole() -> None:
    (objects, heap), _ = STEADY
    more = growth(RECORDS, [(objects, heap), (objects * 11 // 10, heap)])
    longer = growth(RECORDS, [(objects, heap), (objects, heap * 11 // 10)])
    assert [found.split(":")[0] for found in more + longer] == [
        "objects that nothing takes back",
        "heap that nothing gives back",
    ]
