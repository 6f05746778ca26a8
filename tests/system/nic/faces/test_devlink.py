# SPDX-License-Identifier: Apache-2.0
"""devlink(8) in a node."""

from __future__ import annotations

import json

import pytest

from tests.system.nic.faces.emulated_node import Node, NodeMaker

PF = "pci/0000:03:00.0"
ESWITCH = f"devlink dev eswitch show {PF}"


@pytest.fixture
def two(node: Node) -> Node:
    """A node with two VFs."""
    node.run("echo 2 > /sys/class/net/enp3s0f0/device/sriov_numvfs")
    return node


def test_functions_are_devices_while_they_are_bound(two: Node) -> None:
    assert two.run("devlink dev show").split() == [PF, "pci/0000:03:00.2", "pci/0000:03:00.3"]
    two.run("echo 0000:03:00.2 > /sys/bus/pci/drivers/mlx5_core/unbind")
    assert two.run("devlink dev show").split() == [PF, "pci/0000:03:00.3"]
    assert two.run(f"devlink dev show {PF}").split() == [PF]


def test_switchdev_mode_and_back(two: Node) -> None:
    assert two.run(ESWITCH) == f"{PF}: mode legacy inline-mode none encap-mode basic\n"
    assert two.run(f"devlink dev eswitch set {PF} mode switchdev") == ""
    assert two.run(ESWITCH) == f"{PF}: mode switchdev inline-mode none encap-mode basic\n"
    assert {"eth0", "eth1"} <= set(two.run("ls /sys/class/net").split())
    two.run(f"devlink dev eswitch set {PF} mode legacy")
    assert "eth0" not in two.run("ls /sys/class/net").split()


@pytest.fixture(scope="module")
def still(make_node: NodeMaker) -> Node:
    """A node with two VFs for the tests that change nothing."""
    node = make_node()
    node.run("echo 2 > /sys/class/net/enp3s0f0/device/sriov_numvfs")
    return node


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("eswitch show pci/0000:09:00.0", "kernel answers: No such device"),
        ("eswitch show usb/0000:03:00.0", "kernel answers: No such device"),
        ("eswitch show pci/0000:03:00.2", "kernel answers: Operation not supported"),
        ("eswitch set pci/0000:03:00.2 mode switchdev", "kernel answers: Operation not supported"),
        (f"eswitch set {PF} inline-mode transport", "Error: mlx5_core: Inline mode can't be set."),
        (f"param show {PF} name nothing", "kernel answers: Invalid argument"),
        (
            f"param set {PF} name enable_roce value true cmode driverinit",
            "Error: mlx5_core: a software NIC cannot change enable_roce.",
        ),
        (
            f"reload {PF} netns 1",
            "Error: mlx5_core: a software NIC's function cannot go to another network namespace.",
        ),
        (f"reload {PF} limit no_reset", "Error: Requested limit is invalid for this action."),
    ],
)
def test_errors(still: Node, command: str, error: str) -> None:
    assert still.fail(f"devlink dev {command}").startswith(f"{error}\n")


def test_a_reload_keeps_vfs_and_mode(two: Node) -> None:
    two.run(f"devlink dev eswitch set {PF} mode switchdev")
    before = two.run("cat /sys/class/net/enp3s0f0/ifindex /sys/class/net/eth0/ifindex").split()
    two.run("ip link set enp3s0f0 mtu 1400")
    assert two.run(f"devlink dev reload {PF} action driver_reinit") == (
        "reload_actions_performed:\n    driver_reinit\n"
    )
    assert two.run(ESWITCH) == f"{PF}: mode switchdev inline-mode none encap-mode basic\n"
    after = two.run("cat /sys/class/net/enp3s0f0/ifindex /sys/class/net/eth0/ifindex").split()
    assert not set(before) & set(after)
    assert two.run("cat /sys/class/net/enp3s0f0/mtu") == "1500\n"
    assert {"eth0", "eth1", "enp3s0f0v0"} <= set(two.run("ls /sys/class/net").split())


def test_the_mode_cannot_change_while_rules_are_offloaded(two: Node) -> None:
    two.run(f"devlink dev eswitch set {PF} mode switchdev")
    two.tell(rules=1)
    error = two.fail(f"devlink dev eswitch set {PF} mode legacy")
    assert error == "Error: mlx5_core: Can't change mode, E-Switch is busy.\nkernel answers: Device or resource busy\n"
    error = two.fail(f"devlink dev eswitch set {PF} encap-mode none")
    assert error.startswith("Error: mlx5_core: Can't set encapsulation when flows are configured.\n")
    assert two.run(ESWITCH) == f"{PF}: mode switchdev inline-mode none encap-mode basic\n"


def test_an_uplink_in_another_namespace_keeps_the_mode(two: Node) -> None:
    with two.nested() as pid:
        two.run(f"ip link set enp3s0f0 netns {pid}")
        error = two.fail(f"devlink dev eswitch set {PF} mode switchdev")
        assert error.startswith("Error: mlx5_core: Can't change E-Switch mode to switchdev when netdev net namespace")
        assert two.run(f"nsenter -t {pid} -n devlink dev show") == ""
        two.run(f"nsenter -t {pid} -n ip link set enp3s0f0 netns {two.view}")
    two.run(f"devlink dev eswitch set {PF} mode switchdev")


def test_ports_in_legacy_mode(two: Node) -> None:
    assert two.run("devlink port show").splitlines() == [
        f"{PF}/65535: type eth netdev enp3s0f0 flavour physical port 0 splittable false",
        "pci/0000:03:00.2/65536: type eth netdev enp3s0f0v0 flavour virtual splittable false",
        "pci/0000:03:00.3/131072: type eth netdev enp3s0f0v1 flavour virtual splittable false",
    ]


def test_ports_in_switchdev_mode(two: Node) -> None:
    two.run(f"devlink dev eswitch set {PF} mode switchdev")
    ports = json.loads(two.run("devlink -j port show"))["port"]
    assert ports[f"{PF}/2"] == {
        "type": "eth",
        "netdev": "eth1",
        "flavour": "pcivf",
        "controller": 0,
        "pfnum": 0,
        "vfnum": 1,
        "external": False,
        "splittable": False,
        "function": {"hw_addr": "00:00:00:00:00:00"},
    }
    two.run("ip link set eth1 name rep1")
    assert two.run("devlink port show rep1").startswith(f"{PF}/2: type eth netdev rep1 flavour pcivf")
    assert two.fail(f"devlink port show {PF}/3") == "kernel answers: No such device\n"


def test_the_second_ports_indices_are_beyond_the_firsts(make_node: NodeMaker) -> None:
    node = make_node(ports=2, total_vfs=4)
    node.run("echo 1 > /sys/class/net/enp3s0f1/device/sriov_numvfs")
    node.run("devlink dev eswitch set pci/0000:03:00.1 mode switchdev")
    ports = json.loads(node.run("devlink -j port show"))["port"]
    assert ports["pci/0000:03:00.1/131071"]["port"] == 1
    assert (ports["pci/0000:03:00.1/65537"]["pfnum"], ports["pci/0000:03:00.1/65537"]["vfnum"]) == (1, 0)


def test_a_vfs_address_is_set_by_its_port(two: Node) -> None:
    two.run(f"devlink dev eswitch set {PF} mode switchdev")
    two.run("devlink port function set eth1 hw_addr fa:16:3e:b9:b8:ce")
    assert "hw_addr fa:16:3e:b9:b8:ce" in two.run(f"devlink port show {PF}/2")
    assert "vf 1     link/ether fa:16:3e:b9:b8:ce" in two.run("ip link show enp3s0f0")
    for what, error in (
        (f"{PF}/65535 hw_addr 02:00:00:00:00:01", "Error: mlx5_core: Port doesn't support set hw_addr."),
        ("eth1 hw_addr 01:00:00:00:00:01", "Error: Non-unicast hardware address unsupported."),
        ("eth1 state active", "Error: Function does not support state setting."),
    ):
        assert two.fail(f"devlink port function set {what}").startswith(f"{error}\n")


def test_versions(node: Node) -> None:
    info = json.loads(node.run(f"devlink -j dev info {PF}"))["info"][PF]
    assert info["driver"] == "mlx5_core"
    assert info["versions"]["fixed"] == {"fw.psid": "MT_0000000012"}
    assert info["versions"]["running"] == info["versions"]["stored"]
    assert info["versions"]["running"] == {"fw.version": "16.35.4030", "fw": "16.35.4030"}


def test_parameters(node: Node) -> None:
    parameters = json.loads(node.run("devlink -j dev param show"))["param"][PF]
    values = {parameter["name"]: parameter["values"][0] for parameter in parameters}
    assert values["flow_steering_mode"] == {"cmode": "runtime", "value": "dmfs"}
    assert values["enable_roce"] == {"cmode": "driverinit", "value": False}
    assert values["fdb_large_groups"] == {"cmode": "driverinit", "value": 15}
    one = node.run(f"devlink dev param show {PF} name flow_steering_mode")
    assert one.splitlines()[1:] == [
        "  name flow_steering_mode type driver-specific",
        "    values:",
        "      cmode runtime value dmfs",
    ]
    node.run(f"devlink dev param set {PF} name enable_roce value false cmode driverinit")


def test_a_connectx_4_has_neither_tunnels_nor_packets_without_inline_headers(make_node: NodeMaker) -> None:
    node = make_node(model="ConnectX-4 Lx")
    assert node.run(ESWITCH) == f"{PF}: mode legacy inline-mode link encap-mode none\n"
    node.run(f"devlink dev eswitch set {PF} inline-mode transport")
    assert node.run(ESWITCH) == f"{PF}: mode legacy inline-mode transport encap-mode none\n"
    assert "not supported" in node.fail(f"devlink dev eswitch set {PF} encap-mode basic")


def test_who_monitors_is_told_of_ports_that_come_and_go(two: Node) -> None:
    with two.start("exec stdbuf -oL devlink monitor") as monitor:
        assert monitor.stdout
        two.wait(members="devlink")
        two.run(f"devlink dev eswitch set {PF} mode switchdev")
        told = [monitor.stdout.readline().strip() for _ in range(6)]
        assert told[0].startswith(f"[port,new] {PF}/1: type eth netdev eth0 flavour pcivf")
        assert told[3].startswith(f"[port,new] {PF}/2: type eth netdev eth1 flavour pcivf")
        two.run("echo 0 > /sys/class/net/enp3s0f0/device/sriov_numvfs")
        gone = [monitor.stdout.readline().split(" type ")[0].strip(" :\n") for _ in range(6)]
        assert gone == [
            "[port,del] pci/0000:03:00.3/131072",
            "[dev,del] pci/0000:03:00.3",
            "[port,del] pci/0000:03:00.2/65536",
            "[dev,del] pci/0000:03:00.2",
            f"[port,del] {PF}/2",
            f"[port,del] {PF}/1",
        ]
