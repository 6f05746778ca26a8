# SPDX-License-Identifier: Apache-2.0
"""Linux 6.1 takes the programs: what of its verifier's rules this kernel's verifier does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.nic.kinds import programs, tunnel_programs
from asap2.nic.silicon import map_sizes, watching
from tests.unit.nic.silicon.stack import Stacks

MAX_BPF_STACK = 512


@pytest.mark.parametrize(
    "object_", [map_sizes.OBJECT, watching.OBJECT, programs.OBJECT, tunnel_programs.OBJECT], ids=lambda one: one.name
)
def test_no_chain_of_calls_takes_more_stack_than_there_is(object_: Path) -> None:
    taken, chain = Stacks(object_).deepest()
    assert taken <= MAX_BPF_STACK, chain
