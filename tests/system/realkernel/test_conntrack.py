# SPDX-License-Identifier: Apache-2.0
"""Connection tracking beside a real kernel's: state, mark, labels, original tuple and bytes of each packet, and all
that ctnetlink tells of every connection after it."""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.system.realkernel import ct_campaign
from tests.system.realkernel.ct_named import NAMED

CONVERSATIONS = ct_campaign.BATCH


@pytest.mark.parametrize("seed", [1, int(os.environ.get("ASAP2_TEST_SEED", "5"))])
def test_connections_are_a_real_kernels(seed: int) -> None:
    print(f"python -m tests.system.realkernel --conversations {CONVERSATIONS} --seed {seed}")
    tally = ct_campaign.compare(NAMED | ct_campaign.made(Random(seed), CONVERSATIONS, ct_campaign.PACKETS))
    assert not tally.differing, "\n".join(tally.differing)
    assert tally.compared > CONVERSATIONS * ct_campaign.PACKETS // 2
