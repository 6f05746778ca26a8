# SPDX-License-Identifier: Apache-2.0
"""A short campaign; ``python -m tests.system.fuzz`` runs long ones."""

from __future__ import annotations

import os
from pathlib import Path

from tests.system.fuzz.campaign import run

SEED = 1
MESSAGES, WRITES, SENDS = 6_000, 200, 300


def test_random_messages_and_writes_leave_a_node_in_order() -> None:
    outcome = run(Path(f"/run/t-fuzz-{os.getpid()}"), SEED, MESSAGES, WRITES, SENDS)
    assert outcome.complaints() == []
    assert outcome.fed["sent"] == MESSAGES
    assert outcome.fed["reached"] > MESSAGES * 0.9
    assert sum(outcome.written["ended"].values()) == WRITES
    assert sum(outcome.sent["ended"].values()) > SENDS / 2
