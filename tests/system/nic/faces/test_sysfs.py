# SPDX-License-Identifier: Apache-2.0
"""/sys in a node, as unmodified programs see it and write to it."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.system.nic.faces.emulated_node import Node, NodeMaker

PF = "enp3s0f0"
DEVICE = f"/sys/class/net/{PF}/device"
MLX5_CORE = "/sys/bus/pci/drivers/mlx5_core"


@pytest.fixture(scope="module")
def still(make_node: NodeMaker) -> Node:
    """A node in switchdev-less boot state for the tests that change nothing."""
    return make_node()


def test_lspci_finds_the_adapter(still: Node) -> None:
    assert still.run("lspci | grep Mellanox") == (
        "03:00.0 Ethernet controller: Mellanox Technologies MT27800 Family [ConnectX-5]\n"
    )


def test_lspci_shows_ids_driver_and_subsystem(still: Node) -> None:
    shown = still.run("lspci -nn -k -s 03:00.0")
    assert "[15b3:1017]" in shown
    assert "MCX516A-CCAT [15b3:0007]" in shown
    assert "Kernel driver in use: mlx5_core" in shown


def test_lspci_decodes_every_capability(still: Node) -> None:
    shown = still.run("lspci -vvv -s 03:00.0")
    for line in (
        "Region 0: Memory at 380300000000 (64-bit, prefetchable) [size=32M]",
        "Capabilities: [60] Express (v2) Endpoint",
        "LnkSta:\tSpeed 8GT/s, Width x16",
        "[PN] Part number: MCX516A-CCAT",
        "[RV] Reserved: checksum good",
        "MSI-X: Enable+ Count=64",
        "Single Root I/O Virtualization (SR-IOV)",
        "Initial VFs: 8, Total VFs: 8, Number of VFs: 0",
    ):
        assert line in shown
    assert "<unreadable>" not in shown


def test_the_hosts_own_pci_devices_are_not_the_nodes(still: Node) -> None:
    assert len(still.run("lspci").splitlines()) == 2
    assert still.run("ls /proc/bus/pci") == ""


def test_ls_shows_netdevs_under_their_function(still: Node) -> None:
    listed = still.run("ls -l /sys/class/net/")
    assert re.search(rf"{PF} -> ../../devices/pci0000:00/0000:00:1e.0/0000:03:00.0/net/{PF}$", listed, re.M)
    assert "lo -> ../../devices/virtual/net/lo" in listed
    assert PF not in still.run("ls /sys/devices/virtual/net").split()


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (f"echo 9 > {DEVICE}/sriov_numvfs", "Numerical result out of range"),
        (f"echo many > {DEVICE}/sriov_numvfs", "Invalid argument"),
        (f"echo 1 > {DEVICE}/vendor", "Permission denied"),
        (f"cat {MLX5_CORE}/bind", "Permission denied"),
        (f"echo 0000:03:00.0 > {MLX5_CORE}/bind", "Device or resource busy"),
        (f"echo 0000:03:00.9 > {MLX5_CORE}/unbind", "No such device"),
        (f"cat /sys/class/net/{PF}/phys_switch_id", "Operation not supported"),
        ("mkdir /sys/class/net/x", "Operation not permitted"),
        ("rm /sys/class/net/lo", "Operation not permitted"),
        (f"mv {DEVICE}/vendor {DEVICE}/x", "Operation not permitted"),
        ("touch /sys/devices/x", "Permission denied"),
        ("cat /sys/class/net/nothing/mtu", "No such file or directory"),
        (f"cat {DEVICE}/vendor/x", "Not a directory"),
        (f"cat {DEVICE}", "Is a directory"),
        ("echo 1 > /sys/devices/virtual/workqueue/cpumask", "Read-only file system"),
    ],
)
def test_errors_are_the_kernels(still: Node, command: str, error: str) -> None:
    assert still.fail(command).strip().endswith(error)


def test_the_numbers_of_vfs(node: Node) -> None:
    node.run(f"echo 4 > {DEVICE}/sriov_numvfs")
    assert node.run(f"cat {DEVICE}/sriov_numvfs") == "4\n"
    assert len(node.run("lspci | grep 'Virtual Function'").splitlines()) == 4
    assert "Number of VFs: 4" in node.run("lspci -vvv -s 03:00.0")
    assert node.fail(f"echo 2 > {DEVICE}/sriov_numvfs").endswith("Device or resource busy\n")
    node.run(f"echo 4 > {DEVICE}/sriov_numvfs")
    node.run(f"echo 0 > {DEVICE}/sriov_numvfs")
    assert node.fail(f"readlink -e {DEVICE}/virtfn0") == ""
    assert node.run("ls /sys/class/net").split() == [PF, "lo"]


def test_the_getting_started_order_of_unbinding_and_binding(node: Node) -> None:
    node.run(f"echo 4 > {DEVICE}/sriov_numvfs")
    vfs = [f"0000:03:00.{i}" for i in range(2, 6)]
    for bdf in vfs:
        node.run(f"echo {bdf} > {MLX5_CORE}/unbind")
        assert node.fail(f"echo {bdf} > {MLX5_CORE}/unbind").endswith("No such device\n")
    assert "Kernel driver" not in node.run(f"lspci -k -s {vfs[0]}")
    node.tell(mode="switchdev")
    for bdf in vfs:
        node.run(f"echo {bdf} > {MLX5_CORE}/bind")
    listed = node.run("ls -l /sys/class/net")
    for index, bdf in enumerate(vfs):
        assert f"{bdf}/net/{PF}v{index}" in listed
        assert f"0000:03:00.0/net/eth{index}" in listed


def test_what_os_vif_and_nova_read_of_a_representor(node: Node) -> None:
    node.run(f"echo 2 > {DEVICE}/sriov_numvfs")
    node.tell(mode="switchdev")
    switch = node.run(f"cat /sys/class/net/{PF}/phys_switch_id")
    assert re.fullmatch(r"[0-9a-f]{16}\n", switch)
    assert node.run("cat /sys/class/net/eth1/phys_switch_id") == switch
    assert node.run("cat /sys/class/net/eth1/phys_port_name") == "pf0vf1\n"
    assert node.run(f"cat /sys/class/net/{PF}/phys_port_name") == "p0\n"
    assert node.run("readlink /sys/class/net/eth1/device") == "../../../0000:03:00.0\n"
    assert node.run("readlink -f /sys/class/net/eth1/subsystem") == "/sys/class/net\n"
    assert node.run("ls /sys/bus/pci/devices/0000:03:00.3/physfn/net").split() == [PF, "eth0", "eth1"]
    assert node.run("ls /sys/bus/pci/devices/0000:03:00.3/net").split() == [f"{PF}v1"]
    assert node.run(f"basename $(readlink {DEVICE}/virtfn1)") == "0000:03:00.3\n"
    assert node.run(f"cat {DEVICE}/numa_node {DEVICE}/sriov_vf_device").endswith("\n1018\n")


def test_a_rename_is_followed(node: Node) -> None:
    node.run(f"ip link set {PF} name uplink0")
    assert node.run("cat /sys/class/net/uplink0/device/sriov_totalvfs") == "8\n"
    assert node.run("ls /sys/class/net").split() == ["lo", "uplink0"]


def test_a_vf_in_another_namespace_is_gone_from_this_one_and_comes_back(node: Node) -> None:
    node.run(f"echo 1 > {DEVICE}/sriov_numvfs")
    with node.nested() as pid:
        node.run(f"ip link set {PF}v0 netns {pid}")
        assert node.run("ls /sys/class/net").split() == [PF, "lo"]
        assert node.run("ls /sys/bus/pci/devices/0000:03:00.2/net") == ""
        node.run(f"nsenter -t {pid} -n ip link set {PF}v0 netns {node.view}")
    assert node.run("ls /sys/bus/pci/devices/0000:03:00.2/net") == f"{PF}v0\n"


def test_netdev_attributes_are_the_real_ones(node: Node) -> None:
    node.run(f"echo 1400 > /sys/class/net/{PF}/mtu")
    assert "mtu 1400" in node.run("ip", "link", "show", PF)
    node.run(f"ip link set {PF} mtu 1450")
    assert node.run(f"cat /sys/class/net/{PF}/mtu") == "1450\n"
    assert node.fail(f"echo 5 > /sys/class/net/{PF}/mtu").endswith("Invalid argument\n")
    assert node.run(f"ls /sys/class/net/{PF}/statistics/rx_bytes {DEVICE}/net/{PF}/queues/rx-0 -d")


def test_links_between_netdevs_lead_to_where_they_are(node: Node) -> None:
    node.run(f"ip link add bridge0 type bridge && ip link set {PF} master bridge0")
    assert node.run(f"readlink -e /sys/class/net/{PF}/master") == "/sys/devices/virtual/net/bridge0\n"
    lower = node.run(f"readlink -e /sys/class/net/bridge0/lower_{PF}")
    assert lower == f"/sys/devices/pci0000:00/0000:00:1e.0/0000:03:00.0/net/{PF}\n"


def test_an_internal_port_is_a_virtual_device_of_its_own(node: Node) -> None:
    node.tell(internal="br0")
    assert node.run("readlink /sys/class/net/br0") == "../../devices/virtual/net/br0\n"
    assert node.run("cat /sys/class/net/br0/iflink") == node.run("cat /sys/class/net/br0/ifindex")


def test_its_files_are_in_a_sysfs_as_libudev_wants_it(still: Node) -> None:
    where = f"/sys/devices {DEVICE}/ /sys/class/net/{PF}/mtu /sys /sys/kernel"
    assert still.run(f"stat -f -c %T {where}").split() == ["sysfs"] * 5
    assert still.run("stat -f -c %T /proc /tmp").split()[0] == "proc"


def test_udev_is_told_where_the_netdevs_are(node: Node) -> None:
    listen = """python3 -c '
import os, socket, sys
events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
events.bind((0, 1))
def told(action):
    while True:
        length = events.recv_into(bytearray(1), 0, socket.MSG_PEEK | socket.MSG_TRUNC)
        message = events.recv(length).decode().split(chr(0))
        if message[0].startswith(action) and "SUBSYSTEM=net" in message:
            fields = dict(line.split("=", 1) for line in message[1:-1])
            assert message[0] == action + "@" + fields["DEVPATH"]
            return fields
name = sys.argv[1]
open("/sys/class/net/" + name + "/uevent", "w").write("change")
print(told("change")["DEVPATH"])
os.system("ip link set " + name + " name other0")
moved = told("move")
print(moved["DEVPATH_OLD"], moved["DEVPATH"])
os.system("ip link set other0 name " + name + "; ip link set lo alias x; echo change > /sys/class/net/lo/uevent")
print(told("change")["DEVPATH"])
' """
    place = os.path.dirname(node.run(f"realpath /sys/class/net/{PF}").strip().removeprefix("/sys"))
    assert "/0000:03:00.0/" in place
    lines = node.run(listen + PF).splitlines()
    assert lines == [f"{place}/{PF}", f"{place}/{PF} {place}/other0", "/devices/virtual/net/lo"]


def test_two_ports(make_node: NodeMaker) -> None:
    node = make_node(ports=2, total_vfs=4)
    node.run("echo 2 > /sys/class/net/enp3s0f1/device/sriov_numvfs")
    assert len(node.run("lspci | grep Mellanox").splitlines()) == 4
    assert node.run("readlink /sys/bus/pci/devices/0000:03:00.7/physfn") == "../0000:03:00.1\n"
    assert "VF offset: 5, stride: 1" in node.run("lspci -vvv -s 03:00.1")


def test_the_process_that_serves_keeps_its_directory_and_its_signals(still: Node) -> None:
    directory, caught, ignored = still.tell(process=True)
    own = {one for one in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(one) is signal.SIG_IGN}  # by nohup, say
    taken = {number for number in (signal.SIGHUP, signal.SIGTERM) if (caught | ignored) >> (number - 1) & 1}
    assert (directory, taken) == (os.getcwd(), own)


def test_stopping_unmounts_and_leaves_a_clear_error_behind(node: Node) -> None:
    assert node.tell(stop=True) is False
    assert node.fail("ls /sys/class/net").strip().endswith("Transport endpoint is not connected")
    assert node.tell(state=True)["nic0"][0]["bound"]
