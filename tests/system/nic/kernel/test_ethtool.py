# SPDX-License-Identifier: Apache-2.0
"""ethtool(8) in a node."""

from __future__ import annotations

import os

import pytest

from tests.system.nic.kernel.emulated_node import Node

PF = "enp3s0f0"


@pytest.fixture
def switchdev(node: Node) -> Node:
    """A node with one VF and its representor."""
    node.run(f"echo 1 > /sys/class/net/{PF}/device/sriov_numvfs")
    node.tell(mode="switchdev")
    return node


def offload(node: Node, name: str) -> str:
    return node.run(f"ethtool -k {name} | grep hw-tc-offload")


def test_hw_tc_offload_is_turned_on_without_a_word(switchdev: Node) -> None:
    assert offload(switchdev, PF) == "hw-tc-offload: off\n"
    assert switchdev.run(f"ethtool -K {PF} hw-tc-offload on") == ""
    assert offload(switchdev, PF) == "hw-tc-offload: on\n"
    assert switchdev.run(f"ethtool -K {PF} hw-tc-offload on") == ""
    assert switchdev.tell(state=True)["nic0"][0]["hw_tc_offload"] == {"uplink": True}


def test_representors_have_a_setting_each(switchdev: Node) -> None:
    assert offload(switchdev, "eth0") == "hw-tc-offload: on\n"
    assert switchdev.run("ethtool -K eth0 hw-tc-offload off") == ""
    assert offload(switchdev, "eth0") == "hw-tc-offload: off\n"
    assert switchdev.tell(state=True)["nic0"][0]["hw_tc_offload"] == {"rep0": False}


def test_it_stays_on_while_rules_are_offloaded(switchdev: Node) -> None:
    switchdev.run(f"ethtool -K {PF} hw-tc-offload on")
    switchdev.tell(rules=1)
    done = switchdev.try_(f"ethtool -K {PF} hw-tc-offload off")
    assert (done.returncode, done.stderr) == (1, "Could not change any device features\n")
    assert done.stdout == "Actual changes:\nhw-tc-offload: on [requested off]\n"
    assert offload(switchdev, PF) == "hw-tc-offload: on\n"


def test_a_vf_and_other_devices_cannot_have_it(switchdev: Node) -> None:
    for name in (f"{PF}v0", "lo"):
        assert offload(switchdev, name) == "hw-tc-offload: off [fixed]\n"
        assert switchdev.fail(f"ethtool -K {name} hw-tc-offload on") == "Could not change any device features\n"


def test_other_features_are_the_kernels_in_the_same_request_too(switchdev: Node) -> None:
    switchdev.run(f"ethtool -K {PF} hw-tc-offload on gso off")
    shown = switchdev.run(f"ethtool -k {PF}")
    assert "hw-tc-offload: on\n" in shown
    assert "generic-segmentation-offload: off\n" in shown
    changed = switchdev.run(f"ethtool -K {PF} hw-tc-offload off tx off")
    assert "hw-tc-offload: off\n" in changed
    assert "tx-tcp-segmentation: off [not requested]\n" in changed
    assert "tx-checksumming: off\n" in switchdev.run(f"ethtool -k {PF}")


def test_json(switchdev: Node) -> None:
    shown = switchdev.run("ethtool --json -k eth0 | tr -d ' \n'")
    assert '"hw-tc-offload":{"active":true,"fixed":false,"requested":true}' in shown


def test_a_device_that_is_not(node: Node) -> None:
    assert node.fail("ethtool -K nothing hw-tc-offload on").endswith("netlink error: No such device\n")
    assert node.fail("ethtool -i nothing") == "Cannot get driver information: No such device\n"


@pytest.mark.parametrize(
    ("name", "driver", "firmware", "bus"),
    [
        (PF, "mlx5_core", "16.35.4030 (MT_0000000012)", "0000:03:00.0"),
        ("eth0", "mlx5e_rep", "16.35.4030 (MT_0000000012)", "0000:03:00.0"),
        (f"{PF}v0", "mlx5_core", "16.35.4030 (MT_0000000012)", "0000:03:00.2"),
        ("br0", "openvswitch", "", ""),
    ],
)
def test_driver_information(switchdev: Node, name: str, driver: str, firmware: str, bus: str) -> None:
    switchdev.tell(internal="br0")
    lines = switchdev.run(f"ethtool -i {name}").splitlines()
    assert lines[:5] == [
        f"driver: {driver}",
        f"version: {os.uname().release}",
        f"firmware-version: {firmware}",
        "expansion-rom-version: ",
        f"bus-info: {bus}",
    ]


def test_the_permanent_address_is_the_factorys(node: Node) -> None:
    factory = node.run(f"cat /sys/class/net/{PF}/address")
    node.run(f"ip link set {PF} address 02:00:00:00:00:01")
    assert node.run(f"ethtool -P {PF}") == f"Permanent address: {factory}"


def test_who_monitors_is_told_of_the_feature(switchdev: Node) -> None:
    with switchdev.start("exec stdbuf -oL ethtool --monitor") as monitor:
        assert monitor.stdout
        assert monitor.stdout.readline() == "listening...\n"
        switchdev.run(f"ethtool -K {PF} hw-tc-offload on")
        line = monitor.stdout.readline
        while not (told := line()).startswith("hw-tc-offload"):
            assert told
        assert told == "hw-tc-offload: on\n"
