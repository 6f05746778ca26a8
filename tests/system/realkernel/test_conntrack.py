# SPDX-License-Identifier: Apache-2.0
"""Connection tracking beside a real kernel's: state, mark, labels, original tuple and bytes of each packet, and all
that ctnetlink tells of every connection after it."""

from __future__ import annotations

import os
from random import Random, SystemRandom

import pytest

from tests.system.realkernel import ct_campaign
from tests.system.realkernel.ct_cases import Step
from tests.system.realkernel.ct_named import NAMED

CONVERSATIONS = ct_campaign.BATCH
TC_CONVERSATIONS = 20
SEEDS = {"those with names, seed 1": (1, NAMED), "other seed": (int(os.environ.get("ASAP2_TEST_SEED", "5")), {})}


@pytest.mark.parametrize(("seed", "named"), SEEDS.values(), ids=SEEDS)
def test_connections_are_a_real_kernels(seed: int, named: dict[str, list[Step]]) -> None:
    print(f"python -m tests.system.realkernel --conversations {CONVERSATIONS} --seed {seed}")
    tally = ct_campaign.compare(named | ct_campaign.made(Random(seed), CONVERSATIONS, ct_campaign.PACKETS))
    assert not tally.differing, "\n".join(tally.differing)
    assert tally.compared > CONVERSATIONS * ct_campaign.PACKETS // 2


def test_the_action_ct_of_tc_does_what_a_real_kernels_does() -> None:
    seed = SystemRandom().randrange(1 << 31)
    print(f"python -m tests.system.realkernel --conversations {TC_CONVERSATIONS} --seed {seed}")
    cases = ct_campaign.made_for_tc(seed, range(TC_CONVERSATIONS), ct_campaign.PACKETS)
    tally = ct_campaign.compare_tc(ct_campaign.named_for_tc(NAMED) | cases)
    assert not tally.differing, "\n".join(tally.differing)
    assert tally.compared > TC_CONVERSATIONS * ct_campaign.PACKETS // 2
