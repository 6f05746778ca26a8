# SPDX-License-Identifier: Apache-2.0
"""A lab of 16 nodes with OVN: it comes up, all guests reach each other, and their flows are in hardware."""

from __future__ import annotations

from tests.ovn.many import Many


def test_all_guests_of_sixteen_nodes_reach_each_other() -> None:
    with Many.running(16) as many:
        assert many.ping_all() == len(many.guests) ** 2
        assert many.offloaded() > len(many.guests)
