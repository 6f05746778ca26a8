# SPDX-License-Identifier: Apache-2.0
"""One cloud for all tests of this directory that ask for it, on a lab of their own, and its operator."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from asap2.lab.namespaces import identity, kept_below
from asap2.lab.processes import inside
from asap2.lab.topology import parse
from asap2.openstack.cloud import Cloud
from asap2.openstack.virt.guest import start_time
from tests.e2e.openstack.operator import Operator, wait_for


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """A cloud that is up; nothing of it is left when it has been taken down."""
    root = Path(f"/run/t-openstack-{os.getpid()}")
    before = links()
    made = Cloud(Lab(Layout(root)), print)
    made.up(parse(resources.files("asap2.openstack").joinpath("topology.toml").read_text()))
    try:
        yield made
    finally:
        ran = {pid: start_time(pid) for pid in inside({identity(path) for path in kept_below(root)})}
        made.down()
    assert ran
    assert [pid for pid, started in ran.items() if started and start_time(pid) == started] == []
    assert not root.exists()
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
    assert links() == before


def links() -> str:
    """The machine's own network devices."""
    return subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def prepared(cloud: Cloud) -> Operator:
    """The cloud's operator, who has made an image, a flavour, and a network over VLAN."""
    operator = Operator(cloud)
    operator.prepare()
    return operator


@pytest.fixture
def operator(prepared: Operator) -> Iterator[Operator]:
    """The operator; what the test made of servers and ports is deleted after it, and then nothing must be left."""
    yield prepared
    prepared.clear()
    with contextlib.suppress(AssertionError):  # agents take away what was a server's after nova has
        wait_for(lambda: prepared.traces() == prepared.untouched, 20)
    assert prepared.traces() == prepared.untouched
