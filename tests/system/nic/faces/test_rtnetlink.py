# SPDX-License-Identifier: Apache-2.0
"""Links as ip(8) shows and sets them in a node."""

from __future__ import annotations

import contextlib
import json
import re
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.system.nic.faces.emulated_node import Node, NodeMaker

PF = "enp3s0f0"
UNSET = (
    "link/ether 00:00:00:00:00:00 brd ff:ff:ff:ff:ff:ff, spoof checking off, link-state auto, trust off, query_rss off"
)


@pytest.fixture
def four(node: Node) -> Node:
    """A node with four VFs."""
    node.run(f"echo 4 > /sys/class/net/{PF}/device/sriov_numvfs")
    return node


@pytest.fixture(scope="module")
def still(make_node: NodeMaker) -> Node:
    """A node with four VFs, an internal port, in switchdev mode, for the tests that change nothing."""
    node = make_node()
    node.run(f"echo 4 > /sys/class/net/{PF}/device/sriov_numvfs")
    node.tell(mode="switchdev")
    node.tell(internal="br0")
    return node


def vfs(node: Node) -> list[str]:
    return [line.strip() for line in node.run(f"ip link show {PF}").splitlines() if line.startswith("    vf ")]


def link(node: Node, name: str) -> Any:
    (shown,) = json.loads(node.run(f"ip -d -j link show {name}"))
    return shown


def test_a_pf_shows_its_vfs(four: Node) -> None:
    lines = four.run(f"ip link show {PF}").splitlines()
    assert re.match(rf"\d+: {PF}: <BROADCAST,MULTICAST> mtu 1500 .* state DOWN ", lines[0])
    assert lines[1].startswith("    link/ether ec:0d:9a:")
    assert vfs(four) == [f"vf {i}     {UNSET}" for i in range(4)]


def test_the_getting_started_pages_vf_is_shown_as_on_the_page(four: Node) -> None:
    four.run(f"ip link set {PF} vf 3 mac fa:16:3e:b9:b8:ce vlan 57")
    four.run(f"ip link set {PF} vf 3 spoofchk on")
    four.run(f"ip link set {PF} vf 3 state enable")
    assert vfs(four)[3] == (
        "vf 3     link/ether fa:16:3e:b9:b8:ce brd ff:ff:ff:ff:ff:ff, vlan 57, spoof checking on, link-state enable,"
        " trust off, query_rss off"
    )


def test_every_attribute_of_a_vf(four: Node) -> None:
    four.run(f"ip link set {PF} vf 1 trust on vlan 100 qos 3 max_tx_rate 100 min_tx_rate 10 state disable")
    assert vfs(four)[1] == (
        "vf 1     link/ether 00:00:00:00:00:00 brd ff:ff:ff:ff:ff:ff, vlan 100, qos 3, tx rate 100 (Mbps),"
        " max_tx_rate 100Mbps, min_tx_rate 10Mbps, spoof checking off, link-state disable, trust on, query_rss off"
    )
    four.run(f"ip link set {PF} vf 1 rate 50")
    assert "max_tx_rate 50Mbps, min_tx_rate 10Mbps" in vfs(four)[1]
    shown = link(four, PF)["vfinfo_list"][1]
    assert (shown["vlan_list"], shown["trust"], shown["spoofchk"]) == ([{"vlan": 100, "qos": 3}], True, False)


def test_statistics_of_vfs_are_asked_for_by_name(four: Node) -> None:
    assert four.run(f"ip -s link show {PF}").count("RX: bytes  packets  mcast   bcast   dropped") == 4


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (f"{PF} vf 4 mac 02:00:00:00:00:01", "Invalid argument"),
        (f"{PF} vf 1 mac 01:00:00:00:00:01", "Invalid argument"),
        (f"{PF} vf 1 vlan 5 qos 9", "Operation not supported"),
        (f"{PF} vf 1 vlan 5 proto 802.1ad", "Protocol not supported"),
        (f"{PF} vf 1 query_rss on", "Operation not supported"),
        (f"{PF} vf 1 node_guid 00:11:22:33:44:55:66:77", "Operation not supported"),
        (f"{PF}v1 vf 0 mac 02:00:00:00:00:01", "Operation not permitted"),
        ("lo vf 0 mac 02:00:00:00:00:01", "Operation not supported"),
    ],
)
def test_errors_are_the_kernels_and_change_nothing(still: Node, what: str, error: str) -> None:
    before = vfs(still)
    assert still.fail(f"ip link set {what}") == f"RTNETLINK answers: {error}\n"
    assert vfs(still) == before


def test_other_attributes_in_the_same_request_go_to_the_kernel(four: Node) -> None:
    four.run(f"ip link set {PF} mtu 1400 alias up0 vf 1 mac 02:00:00:00:00:01")
    shown = link(four, PF)
    assert (shown["mtu"], shown["ifalias"], shown["vfinfo_list"][1]["address"]) == (1400, "up0", "02:00:00:00:00:01")
    four.run(f"ip link set {PF} up vf 1 mac 02:00:00:00:00:02")
    shown = link(four, PF)
    assert ("UP" in shown["flags"], shown["vfinfo_list"][1]["address"]) == (True, "02:00:00:00:00:02")


def test_netdevs_are_pci_devices_and_no_veths(four: Node) -> None:
    four.tell(mode="switchdev")
    pf, vf, representor = (link(four, name) for name in (PF, f"{PF}v0", "eth0"))
    for shown in (pf, vf, representor):
        assert not {"link", "link_index", "link_netnsid", "linkinfo"} & set(shown)
        assert shown["parentbus"] == "pci"
    assert [shown["parentdev"] for shown in (pf, vf, representor)] == ["0000:03:00.0", "0000:03:00.2", "0000:03:00.0"]
    assert [shown.get("phys_port_name") for shown in (pf, vf, representor)] == ["p0", None, "pf0vf0"]
    assert (
        pf["phys_switch_id"]
        == representor["phys_switch_id"]
        == four.run(f"cat /sys/class/net/{PF}/phys_switch_id").strip()
    )
    assert "phys_switch_id" not in vf
    assert "@" not in four.run("ip link")
    assert four.run("ip link show type veth") == ""


def test_a_vfs_link_follows_its_representors(four: Node) -> None:
    four.tell(mode="switchdev")
    assert "link-state disable" in vfs(four)[0]
    four.tell(name="eth0", up=True)
    assert ["link-state enable" in line for line in vfs(four)] == [True, False, False, False]
    four.tell(name="eth0", up=False)
    assert "link-state disable" in vfs(four)[0]
    four.tell(name=f"{PF}v1", up=True)
    assert "link-state disable" in vfs(four)[1]


def test_the_vlan_of_a_vf_is_the_representors_in_switchdev_mode(four: Node) -> None:
    four.tell(mode="switchdev")
    assert four.fail(f"ip link set {PF} vf 1 vlan 5") == "RTNETLINK answers: Operation not supported\n"
    four.run(f"ip link set {PF} vf 1 vlan 0")


def test_internal_ports_are_of_open_vswitchs_kind(node: Node) -> None:
    node.tell(internal="br0")
    node.run("ip link add bridge0 type bridge")
    shown = link(node, "br0")
    assert shown["linkinfo"] == {"info_kind": "openvswitch"}
    assert "link_netnsid" not in shown
    assert [name["ifname"] for name in json.loads(node.run("ip -j link show type openvswitch"))] == ["br0"]
    assert [name["ifname"] for name in json.loads(node.run("ip -j link show type bridge"))] == ["bridge0"]


def test_ports_of_a_datapath_have_its_device_as_master(node: Node) -> None:
    node.tell(internal="ovs-system")
    node.tell(slave=PF, master="ovs-system")
    assert " master ovs-system " in node.run(f"ip link show {PF}")
    assert link(node, PF)["linkinfo"] == {"info_slave_kind": "openvswitch"}
    assert [name["ifname"] for name in json.loads(node.run("ip -j link show master ovs-system"))] == [PF]


@pytest.mark.parametrize("name", [PF, f"{PF}v1", "eth1", "br0"])
def test_our_netdevs_cannot_be_deleted_by_rtnetlink(still: Node, name: str) -> None:
    assert still.fail(f"ip link del {name}") == "RTNETLINK answers: Operation not supported\n"
    still.run(f"ip link set {name} group 77")
    assert still.fail("ip link del group 77") == "RTNETLINK answers: Operation not supported\n"
    still.run(f"ip link set {name} group default")
    assert name in still.run("ls /sys/class/net").split()


def test_other_devices_are_the_kernels_alone(node: Node) -> None:
    node.run("ip link add va type veth peer name vb")
    assert link(node, "va")["linkinfo"]["info_kind"] == "veth"
    assert "va@vb" in node.run("ip link show va")
    node.run("ip link set va group 78")
    node.run("ip link del group 78")
    assert 'Device "va" does not exist' in node.fail("ip link show va")


def test_representors_stay_in_their_namespace(four: Node) -> None:
    four.tell(mode="switchdev")
    for name in ("eth0", PF):
        assert four.fail(f"ip link set {name} netns 1") == "Error: The interface netns is immutable.\n"


def test_a_name_that_is_no_text_names_nothing(still: Node) -> None:
    for command in (r"ip link set dev $'\xff\xe9' vf 0 trust on", r"ethtool -g $'\xff\xe9'", r"ethtool -i $'\xff\xe9'"):
        said = still.run(rf"{command} 2>&1 | tr -d '\200-\377'")
        assert "No such device" in said or "Cannot find device" in said


def test_alternative_names_name_the_device_too(four: Node) -> None:
    four.run(f"ip link property add dev {PF} altname the-first-physical-function")
    assert "altname the-first" in four.run("ip link show the-first-physical-function")
    four.run("ip link set the-first-physical-function vf 0 mac 02:00:00:00:00:07")
    assert "02:00:00:00:00:07" in vfs(four)[0]
    assert "not supported" in four.fail("ip link del dev the-first-physical-function")


def test_a_vf_in_a_namespace_of_its_own_is_the_same_there(four: Node) -> None:
    with four.nested() as pid:
        four.run(f"ip link set {PF}v2 netns {pid}")
        shown = four.run(f"nsenter -t {pid} -n ip -d link show {PF}v2")
        assert f"{PF}v2: " in shown
        assert "veth" not in shown
        assert "parentdev 0000:03:00.4" in shown
        assert "not supported" in four.fail(f"nsenter -t {pid} -n ip link del {PF}v2")
        four.run(f"nsenter -t {pid} -n ip link set {PF}v2 netns {four.view}")


LISTENERS = {
    "ip": "exec stdbuf -oL ip -d monitor link",
    "pyroute2, by recv()": f"""exec {sys.executable} -u -c '
from pyroute2 import IPRoute
link = IPRoute()
link.bind()
while True:
    for one in link.get():
        if one["event"] not in ("RTM_NEWLINK", "RTM_DELLINK"): continue
        print("Deleted" if one["event"] == "RTM_DELLINK" else "", one["family"],
              *(f"{{name}} {{value}}" for name, value in one["attrs"] if name != "IFLA_AF_SPEC"))
'""",
    "a buffer of the size announced": """exec python3 -u -c '
import socket
link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
link.bind((0, 1))
while True:
    link.recv(1, socket.MSG_PEEK)
    size = link.recv_into(bytearray(1), 1, socket.MSG_PEEK | socket.MSG_TRUNC)
    buffer = bytearray(size)
    got, _, flags, sender = link.recvmsg_into([buffer])
    assert not flags & socket.MSG_TRUNC
    assert sender == (0, 1), sender
    print(buffer[16], buffer[:got])
'""",
}


@contextlib.contextmanager
def listening(node: Node, how: str) -> Iterator[Callable[[str], str]]:
    """A program that listens for links; what is given waits for a line of its output with a text in it."""
    with node.start(LISTENERS[how]) as process:
        assert process.stdout
        read = process.stdout.readline

        def line_with(text: str) -> str:
            said = [""]
            while text not in (line := read()) or not line:
                assert line, f"the listener ended: {said}"
                said.append(line)
            return line

        joined = False
        while not joined:  # until it hears
            node.run("ip link add name t-probe type bridge; ip link del t-probe")
            joined = bool(select.select([process.stdout], [], [], 0.1)[0])
        line_with("t-probe")
        yield line_with


@pytest.mark.parametrize("how", LISTENERS)
def test_what_the_kernel_tells_of_a_netdev_shows_no_veth(four: Node, how: str) -> None:
    with listening(four, how) as line_with:
        four.run(f"ip link set {PF} up")
        line = line_with(PF)
        assert "0000:03:00.0" in line or "0000:03:00.0" in line_with("0000:03:00.0")
        four.run(f"ip link set {PF} vf 1 trust on")  # the kernel knows nothing of this one
        assert "veth" not in line_with(PF)
        four.run(
            f"echo 0 > /sys/class/net/{PF}/device/sriov_numvfs; ip link add name t-end type bridge; ip link del t-end"
        )
        gone = []
        while "t-end" not in (line := line_with("")):
            gone.append(line)
        assert any(f"{PF}v3" in line for line in gone)
        assert not [line for line in gone if "veth" in line or "@if" in line or "IFLA_LINK " in line]


def test_bridges_and_ipv6_tell_of_no_peer(four: Node) -> None:
    four.run(f"sysctl -qw net.ipv6.conf.{PF}.disable_ipv6=0; ip link set {PF} up")
    assert f"{PF}: <" in four.run("bridge link show")
    assert four.run("bridge link show").rstrip().endswith("mtu 1500 hwmode VEB")
    four.run(f"ip link add name t-br type bridge; ip link set {PF}v0 master t-br")
    assert f"{PF}v0: <" in four.run("bridge link show")
    assert "@" not in four.run("bridge link show; ip -6 link show")
    four.tell(mode="switchdev")
    assert "VEB" not in four.run("bridge link show")


def test_the_largest_mtu_is_the_nics(four: Node) -> None:
    assert link(four, PF)["max_mtu"] == 9978
    assert "mtu greater than device maximum" in four.fail(f"ip link set {PF} mtu 9979")
    assert "Invalid argument" in four.fail(f"echo 9979 > /sys/class/net/{PF}/mtu")
    asked = 'struct.pack("16si20x", b"{}", {})'
    ioctl = f"python3 -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8922, {asked})'"
    assert "Invalid argument" in four.fail(ioctl.format(PF, 9979))
    four.run(ioctl.format(PF, 9000))
    four.run(f"ip link set {PF} mtu 9978; echo 9000 > /sys/class/net/{PF}v0/mtu")
    assert [link(four, name)["mtu"] for name in (PF, f"{PF}v0")] == [9978, 9000]
