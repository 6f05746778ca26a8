# SPDX-License-Identifier: Apache-2.0
"""Two nodes with OVN and the demo's logical network, for all tests of this directory."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from asap2.ovn.demo import Demo
from asap2.ovn.scenarios import Scenarios
from asap2.screen import Screen
from tests.system.offload.labs import Bench


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The lab; the guests have their addresses."""
    root = Path(f"/run/t-ovn-{os.getpid()}")
    demo = Demo(Lab(Layout(root)), Screen(file=io.StringIO()), None)
    demo.up()
    try:
        demo.begin()
        scenarios = Scenarios(demo.terminal, demo.traffic, demo.central)
        scenarios.networks()
        scenarios.dhcp()
        yield Bench(root, demo.topology)
    finally:
        demo.lab.down()
