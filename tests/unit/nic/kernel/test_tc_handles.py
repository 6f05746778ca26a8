# SPDX-License-Identifier: Apache-2.0
"""Handles that TC chooses: always the lowest free one, as with the kernel's idr, whatever came and went before."""

from __future__ import annotations

import random
from typing import Any, cast

from asap2.nic.kernel.tc_filters import Filter, Proto


def test_the_lowest_free_handle_is_given() -> None:
    rng, proto = random.Random(7), Proto(1, 0x0800, "flower")
    filters = cast("dict[int, Any]", proto.filters)
    for _ in range(5000):
        if filters and rng.random() < 0.48:
            handle = rng.choice(list(filters))
            del filters[handle]
            proto.give_back(handle)
        elif rng.random() < 0.1:
            filters[rng.randrange(1, 400)] = cast(Filter, object())  # its user chose the handle
        else:
            wanted = next(number for number in range(1, 10_000) if number not in filters)
            assert proto.new_handle() == wanted
            filters[wanted] = cast(Filter, object())


def test_freed_handles_do_not_pile_up() -> None:
    proto = Proto(1, 0x0800, "flower")
    filters = cast("dict[int, Any]", proto.filters)
    for _ in range(10):
        filters[proto.new_handle()] = cast(Filter, object())
    for _ in range(1000):  # its user chose the handle
        del filters[5]
        proto.give_back(5)
        assert proto.new_handle() == 5
        filters[5] = cast(Filter, object())
        del filters[7]
        proto.give_back(7)
        filters[7] = cast(Filter, object())
    assert len(proto.freed) <= 20
    assert proto.new_handle() == 11
