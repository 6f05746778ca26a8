# SPDX-License-Identifier: Apache-2.0
"""A few rounds of the campaigns. The long ones: ``python -m tests.system.survival``."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.errors import Asap2Error
from asap2.lab.background import Program
from asap2.lab.execute import run
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


def test_who_looks_at_sys_waits_while_the_daemon_is_dead(node: kills.Node) -> None:
    looks = "while readlink /sys/class/net/eth0 && test -f /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs; do :; done"
    with Program(node.bundle, ["sh", "-c", looks]) as looking:
        for _ in range(3):
            looking.output = ""
            looking.read_until("net/eth0\n")
            before = {"daemon": node.pid_of("daemon")}
            os.kill(before["daemon"], signal.SIGKILL)
            kills.wait_for(lambda before=before: node.whole(before), looking)  # type: ignore[misc]
        looking.output = ""
        looking.read_until("net/eth0\n")
        assert looking.process.poll() is None
        assert not re.search("[Ss]tale|not connected|abort", looking.output)


def test_a_daemon_that_dies_while_a_supervisor_takes_over_is_seen_to_be_dead(node: kills.Node) -> None:
    before = {part: node.pid_of(part) for part in ("daemon", "supervisor")}
    with Program(node.bundle, ["sleep", "600"]) as meanwhile:
        os.kill(before["daemon"], signal.SIGSTOP)
        os.kill(before["supervisor"], signal.SIGKILL)
        kills.wait_for(lambda: node.pid_of("supervisor") != before["supervisor"], meanwhile)
        meanwhile.read_more(0.1)  # a supervisor that looks into the daemon's file system now would do so for ever
        os.kill(before["daemon"], signal.SIGKILL)
        kills.wait_for(lambda: node.whole({"daemon": before["daemon"]}), meanwhile)


def test_with_all_dead_nothing_reaches_the_kernel_and_the_next_command_mends_it(node: kills.Node) -> None:
    parts = ("supervisor", "standby", "daemon")
    with Program(node.bundle, ["sleep", "600"]) as meanwhile:
        node.kill_at_once(parts, meanwhile)
    for command in ("ip link del eth0", "ip link show eth0", "tc qdisc show dev eth0", "ethtool -i eth0"):
        with pytest.raises(Asap2Error, match=r"No such device|Operation not supported"):
            run(node.bundle, "env", "ASAP2_NETLINK_WAIT=50", *command.split())
    refused = int(run(node.bundle, "systemctl", "show", "-p", "MainPID", "--value", "ovs-vswitchd"))
    with pytest.raises(Asap2Error, match="not connected"):
        run(node.bundle, "cat", "/sys/class/net/eth0/phys_port_name")
    node.mend()
    assert "driver: mlx5e_rep" in run(node.bundle, "ethtool", "-i", "eth0")
    with kills.stream(node, 0.01) as sending:
        kills.wait_for(lambda: node.runs("ovs-vswitchd") and node.pid_of("ovs-vswitchd") != refused, sending)
        kills.wait_for(lambda: node.active() and node.offloaded(), sending)


def test_the_state_of_another_version_is_refused_and_nobody_waits(node: kills.Node) -> None:
    version, refused = node.directory / "state" / "version", node.directory / "refused"
    ours = version.read_text()
    version.write_text("another")
    with Program(node.bundle, ["sleep", "600"]) as meanwhile:
        os.kill(node.pid_of("daemon"), signal.SIGKILL)
        kills.wait_for(refused.exists, meanwhile)
        with pytest.raises(Asap2Error, match=r"No such device|Operation not supported"):
            run(node.bundle, "ip", "link", "show", "eth0")
        with pytest.raises(Asap2Error, match=r"not connected|abort"):
            run(node.bundle, "cat", "/sys/class/net/eth0/phys_port_name")
        assert "asap2: hv1: the node was made by another version of asap2: `asap2 lab down`" in node.mend()
        version.write_text(ours)
        refused.unlink()
        node.kill_at_once(("supervisor", "standby"), meanwhile)
        node.mend()
        kills.wait_for(lambda: (node.directory / "ready").exists() and node.active(), meanwhile)


@pytest.mark.parametrize("killed", [("ovs-vswitchd",), ("ovsdb-server", "daemon")])
def test_open_vswitch_comes_back_as_systemd_brings_it_back(node: kills.Node, killed: tuple[str, ...]) -> None:
    done = kills.one_round(node, killed, 0.005)
    assert done.lost < done.sent / 2  # it flushes its flows when it starts, on a real kernel, too


def test_labs_that_are_broken_off_leave_nothing(tmp_path: Path) -> None:
    root = Path(f"/run/t-cycles-{os.getpid()}")
    topology = tmp_path / "lab.toml"
    topology.write_text(TOPOLOGY.read_text())
    assert cycles.campaign(root, topology, 3, os.getpid(), lambda *_: None) == []
