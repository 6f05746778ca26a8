# SPDX-License-Identifier: Apache-2.0
"""The two builds of the eSwitch program: the one that devices run has nothing of tracing."""

from __future__ import annotations

import re

from asap2.nic.silicon import map_sizes, watching
from tests.unit.nic.silicon.stack import Stacks

TELLS = re.compile(r"watch(_\w+)?")


def test_the_plain_program_has_no_function_and_no_map_that_tells_of_packets() -> None:
    plain, traced = (Stacks(path) for path in (map_sizes.OBJECT, watching.OBJECT))
    assert [name for name in plain.names if TELLS.fullmatch(name)] == []
    assert "watch" in traced.names
    assert plain.names < traced.names
    assert b"watched\0" not in map_sizes.OBJECT.read_bytes()
    assert b"watched\0" in watching.OBJECT.read_bytes()
