# SPDX-License-Identifier: Apache-2.0
"""What all tests have in common."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine does: that is for no test to judge.
settings.register_profile("asap2", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("asap2")

# Tests start Python programs hundreds of times: each must find the others' byte code, whatever the environment says.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

LIMIT = 900
"""Seconds after which a test hangs, on the slowest machine too."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that hangs where it stands; what it began is taken down as after any failure."""

    def late(_number: int, _frame: FrameType | None) -> None:
        pytest.fail(f"{item.nodeid} did not end within {LIMIT} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
