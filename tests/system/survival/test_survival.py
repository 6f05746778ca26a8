# SPDX-License-Identifier: Apache-2.0
"""A few rounds of the campaigns. The long ones: ``python -m tests.system.survival``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from asap2.lab.topology import parse
from tests.system.survival import cycles, kills
from tests.system.survival.__main__ import TOPOLOGY


@pytest.fixture(scope="module")
def node() -> Iterator[kills.Node]:
    """A node whose guests' packets are offloaded."""
    lab = Lab(Layout(Path(f"/run/t-survival-{os.getpid()}")))
    lab.up(parse(TOPOLOGY.read_text()))
    try:
        made = kills.Node(lab.layout)
        made.prepare()
        yield made
    finally:
        lab.down()


@pytest.mark.parametrize("killed", [("supervisor",), ("daemon", "supervisor"), ("supervisor", "standby")])
def test_offloaded_packets_do_not_notice_kills(node: kills.Node, killed: tuple[str, ...]) -> None:
    assert kills.one_round(node, killed, 0.005).lost == 0


@pytest.mark.parametrize("killed", [("ovs-vswitchd",), ("ovsdb-server", "daemon")])
def test_open_vswitch_comes_back_as_systemd_brings_it_back(node: kills.Node, killed: tuple[str, ...]) -> None:
    done = kills.one_round(node, killed, 0.005)
    assert done.lost < done.sent / 2  # it flushes its flows when it starts, on a real kernel, too


def test_labs_that_are_broken_off_leave_nothing(tmp_path: Path) -> None:
    root = Path(f"/run/t-cycles-{os.getpid()}")
    topology = tmp_path / "lab.toml"
    topology.write_text(TOPOLOGY.read_text())
    assert cycles.campaign(root, topology, 3, os.getpid(), lambda *_: None, alone=False) == []
