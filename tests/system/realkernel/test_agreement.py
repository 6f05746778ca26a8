# SPDX-License-Identifier: Apache-2.0
"""TC rules do in the software NIC what they do in a real kernel's TC software: answers, frames out, counters."""

from __future__ import annotations

from random import SystemRandom

import pytest

from tests.system.realkernel.campaign import campaign, explained

CASES = 1000


@pytest.mark.parametrize("seed", [1, SystemRandom().randrange(1 << 31)], ids=["fixed seed", "new seed"])
def test_rules_do_what_they_do_in_a_real_kernel(seed: int) -> None:
    print(f"python -m tests.system.realkernel --seed {seed} --cases {CASES}")
    tally = campaign(seed, CASES)
    print(tally)
    assert not tally.differing, "\n".join([f"seed {seed}: {tally}", *explained(tally)])
    assert tally.matched > tally.frames // 4, f"seed {seed}: too few frames find a rule: {tally}"
    assert tally.set_aside.total() <= CASES // 100, f"seed {seed}: too many cases are not compared: {tally}"
