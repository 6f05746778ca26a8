# SPDX-License-Identifier: Apache-2.0
"""The dispatcher of these tests."""

from __future__ import annotations

import threading

import pytest

from asap2.netlink.dispatch import Dispatcher


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher(threading.RLock())
