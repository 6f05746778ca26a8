# SPDX-License-Identifier: Apache-2.0
"""Legacy mode with real traffic: guests on VFs, PFs, and the cable; the attributes by ``ip link set PF vf N``."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.system.offload import sniffer
from tests.system.offload.conftest import PCI, PF
from tests.system.offload.labs import Bench, until
from tests.system.offload.sniffer import Sniffer, frame
from tests.system.patience import PATIENCE

TOPOLOGY = """
[[node]]
name = "hv1"
openvswitch = false
[[node.nic]]
vfs = 4

[[node]]
name = "hv2"
openvswitch = false
[[node.nic]]
ports = 2
total_vfs = 4
vfs = 2

[[cable]]
ends = ["hv1/nic0", "hv2/nic0/p0"]

[[guest]]
name = "a"
node = "hv1"
vf = 0
mac = "02:00:00:00:01:00"
address = "10.1.0.1/24"

[[guest]]
name = "b"
node = "hv1"
vf = 1
mac = "02:00:00:00:01:01"
address = "10.1.0.2/24"

[[guest]]
name = "c"
node = "hv1"
vf = 2
mac = "02:00:00:00:01:02"
address = "10.1.0.3/24"

[[guest]]
name = "d"
node = "hv2"
vf = 0
mac = "02:00:00:00:02:00"
address = "10.1.0.4/24"

[[guest]]
name = "e"
node = "hv2"
port = 1
vf = 0
mac = "02:00:00:00:03:00"
address = "10.1.0.5/24"
"""
ADDRESS = {"a": "10.1.0.1", "b": "10.1.0.2", "c": "10.1.0.3", "d": "10.1.0.4", "e": "10.1.0.5"}
ADDRESS |= {"hv1": "10.1.0.11", "hv2": "10.1.0.12"}
MAC_A, MAC_B, MAC_D, STRANGER = "02:00:00:00:01:00", "02:00:00:00:01:01", "02:00:00:00:02:00", "02:00:00:00:00:ee"
DEFAULTS = "vlan 0 spoofchk off trust off state auto"


@pytest.fixture(scope="module")
def wired() -> Iterator[Bench]:
    with Bench.running(TOPOLOGY) as bench:
        for node in ("hv1", "hv2"):
            bench.ok(node, f"ip link set {PF} up && ip addr add {ADDRESS[node]}/24 dev {PF}")
        yield bench


@pytest.fixture
def lab(wired: Bench) -> Iterator[Bench]:
    """The lab with every VF as it is at first."""
    yield wired
    wired.ok("hv1", " && ".join(f"ip link set {PF} vf {vf} {DEFAULTS}" for vf in range(4)))
    wired.ok("hv2", f"ip link set {PF} vf 0 {DEFAULTS}")
    for guest in "abcd":
        wired.ok(guest, "ip neigh flush dev eth0")


def reaches(bench: Bench, source: str, to: str) -> bool:
    """Whether *source* gets an answer of *to*."""
    return bench.run(source, f"ping -n -q -c 1 -W 0.4 {ADDRESS[to]}").returncode == 0


def come_to_reach(bench: Bench, source: str, to: str) -> None:
    """A link that has come up takes up to a second to be used (net/core/link_watch.c)."""
    until(lambda: reaches(bench, source, to), why=f"{source} does not reach {to}")


def counters(bench: Bench, vf: int) -> dict[str, int]:
    """What ``ip -s link`` shows of a VF of hv1."""
    shown = bench.ok("hv1", f"ip -s link show {PF}")
    found = re.search(rf" vf {vf} .*?\n.*\n((?: +\d+)+) *\n.*\n((?: +\d+)+)", shown)
    assert found, shown
    names = ("rx_bytes", "rx_packets", "multicast", "broadcast", "rx_dropped", "tx_bytes", "tx_packets", "tx_dropped")
    return dict(zip(names, map(int, (found[1] + found[2]).split()), strict=True))


def counted(bench: Bench, vf: int, before: dict[str, int]) -> dict[str, int]:
    """What has changed in a VF's counters."""
    return {name: value - before[name] for name, value in counters(bench, vf).items() if value != before[name]}


def device(where: str) -> str:
    return PF if where.startswith("hv") else "eth0"


def send(bench: Bench, where: str, what: bytes, times: int = 1) -> None:
    """Send a frame from a guest's VF, or from a node's PF."""
    sniffer.send(bench, where, device(where), *[what] * times)


def watch(bench: Bench, *where: str) -> dict[str, Sniffer]:
    """Watch the VFs of guests and the PFs of nodes."""
    return {one: Sniffer(bench, one, device(one)) for one in where}


def seen(watched: dict[str, Sniffer]) -> dict[str, list[tuple[int, ...]]]:
    """The tags of the frames that each received."""
    return {where: sniffer.seen() for where, sniffer in watched.items()}


# ---- who reaches whom


@pytest.mark.parametrize(
    ("source", "to"),
    [("a", "b"), ("a", "hv1"), ("hv1", "a"), ("a", "d"), ("d", "a"), ("a", "hv2"), ("hv1", "d"), ("hv1", "hv2")],
)
def test_functions_of_both_nics_reach_each_other(lab: Bench, source: str, to: str) -> None:
    come_to_reach(lab, source, to)


def test_tcp_runs_between_vfs_and_across_the_cable(lab: Bench) -> None:
    for to in ("b", "d", "hv2"):
        server = lab.start(to, "iperf3", "-s", "-1")
        until(lambda to=to: ":5201" in lab.ok(to, "ss -ltn"))  # type: ignore[misc]
        lab.ok("a", f"iperf3 -c {ADDRESS[to]} -n 20M")
        server.communicate(timeout=PATIENCE)


def test_each_port_of_a_nic_is_an_eswitch_of_its_own(lab: Bench) -> None:
    lab.ok("hv2", "ip link set enp3s0f1 up && ip link set enp3s0f1 vf 0 state enable")
    until(lambda: "NO-CARRIER" not in lab.ok("e", "ip link show eth0"))
    for source, to in (("d", "e"), ("e", "d"), ("e", "hv2"), ("a", "e")):
        assert not reaches(lab, source, to)
    lab.ok("hv2", "ip link set enp3s0f1 vf 0 state auto")


def test_a_vfs_counters_are_of_what_it_sent_and_received(lab: Bench) -> None:
    before = [counters(lab, vf) for vf in range(2)]
    send(lab, "a", frame(MAC_B, MAC_A), 20)
    sent, received = counted(lab, 0, before[0]), counted(lab, 1, before[1])
    octets, beside = 20 * len(frame(MAC_B, MAC_A)), 10  # now and then a host looks for a neighbour
    assert 20 <= sent["tx_packets"] <= 20 + beside
    assert 20 <= received["rx_packets"] <= 20 + beside
    assert octets <= sent["tx_bytes"] <= octets + 100 * beside
    assert octets <= received["rx_bytes"] <= octets + 100 * beside


def test_broadcast_and_multicast_reach_all_and_are_counted(lab: Bench) -> None:
    before = [counters(lab, vf) for vf in range(3)]
    watched = watch(lab, "a", "b", "c", "d", "hv1", "hv2")
    for to in ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:09"):
        send(lab, "a", frame(to, MAC_A))
    assert seen(watched) == {"a": [], **{who: [(), ()] for who in ("b", "c", "d", "hv1", "hv2")}}
    for vf in (1, 2):
        change = counted(lab, vf, before[vf])
        assert change["broadcast"] >= 1
        assert change["multicast"] >= 1
    assert "broadcast" not in counted(lab, 0, before[0])


def test_what_nobody_has_goes_to_the_wire_and_from_it_to_the_pf(lab: Bench) -> None:
    watched = watch(lab, "b", "d", "hv1", "hv2")
    send(lab, "a", frame(STRANGER, MAC_A))
    assert seen(watched) == {"b": [], "d": [], "hv1": [], "hv2": [()]}


@pytest.mark.parametrize(("trust", "promiscuous", "count"), [("off", True, 0), ("on", False, 0), ("on", True, 1)])
def test_only_a_trusted_vf_is_let_be_promiscuous(lab: Bench, trust: str, promiscuous: bool, count: int) -> None:
    lab.ok("hv1", f"ip link set {PF} vf 1 trust {trust}")
    watching = Sniffer(lab, "b", "eth0", promiscuous=promiscuous)
    lab.ok("hv1", f"ip link show {PF}")  # the daemon has by now seen that the device is promiscuous
    send(lab, "d", frame(STRANGER, MAC_D))
    assert watching.seen() == [()] * count


# ---- VLAN


def test_a_vf_with_a_vlan_is_tagged_outside(lab: Bench) -> None:
    lab.ok("hv1", f"ip link set {PF} vf 0 vlan 57 qos 3")
    watched = watch(lab, "a", "b", "hv1", "hv2")
    send(lab, "a", frame(STRANGER, MAC_A))
    send(lab, "a", frame("ff:ff:ff:ff:ff:ff", MAC_A))
    tagged = (3 << 13 | 57,)
    assert seen(watched) == {"a": [], "b": [tagged], "hv1": [tagged], "hv2": [tagged, tagged]}


def test_a_vf_with_a_vlan_gets_what_is_in_it_untagged_and_no_more(lab: Bench) -> None:
    lab.ok("hv1", f"ip link set {PF} vf 0 vlan 57")
    before, watched = counters(lab, 0), watch(lab, "a", "b")
    for tags in ((57,), (5 << 13 | 57,), (58,), (), (57, 12)):
        send(lab, "hv2", frame(MAC_A, STRANGER, *tags))
        send(lab, "hv2", frame(MAC_B, STRANGER, *tags))
    assert seen(watched) == {"a": [(), (), (12,)], "b": [(57,), (5 << 13 | 57,), (58,), (), (57, 12)]}
    assert counted(lab, 0, before)["rx_dropped"] >= 2


def test_vlans_keep_vfs_apart_and_join_them_across_the_cable(lab: Bench) -> None:
    come_to_reach(lab, "a", "b")
    lab.ok("hv1", f"ip link set {PF} vf 0 vlan 57")
    lab.ok("a", "ip neigh flush dev eth0")
    assert not reaches(lab, "a", "b")
    assert not reaches(lab, "a", "d")
    lab.ok("hv2", f"ip link set {PF} vf 0 vlan 57")
    come_to_reach(lab, "a", "d")
    lab.ok("hv1", f"ip link set {PF} vf 1 vlan 58")
    assert not reaches(lab, "a", "b")
    before = counters(lab, 1)
    send(lab, "a", frame(MAC_B, MAC_A))
    assert counted(lab, 1, before)["rx_dropped"] >= 1
    lab.ok("hv1", f"ip link set {PF} vf 1 vlan 57")
    come_to_reach(lab, "a", "b")


def test_a_tagging_guest_in_a_vlan_gets_a_second_tag(lab: Bench) -> None:
    lab.ok("hv1", f"ip link set {PF} vf 0 vlan 57")
    outside = Sniffer(lab, "hv2", PF)
    send(lab, "a", frame(STRANGER, MAC_A, 12))
    assert outside.seen() == [(57, 12)]


# ---- spoof check, link state


def test_a_limited_vf_is_held_back_and_loses_nothing(lab: Bench) -> None:
    def shapers() -> str:
        silicon = lab.root / "nodes" / "hv1" / "nics" / "0" / "net"
        command = ["nsenter", f"--net={silicon}", "tc", "-s", "qdisc", "show"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    lab.ok("hv1", f"ip link set {PF} vf 0 max_tx_rate 10")
    watched = watch(lab, "b")
    send(lab, "a", frame(MAC_B, MAC_A), 200)
    assert len(seen(watched)["b"]) == 200
    assert re.search(r"qdisc tbf .* rate 10Mbit .*\n Sent \d{4,} bytes \d{3,} pkt \(dropped 0", shapers())
    assert reaches(lab, "a", "d")
    lab.ok("hv1", f"ip link set {PF} vf 0 max_tx_rate 0")
    assert "tbf" not in shapers()
    assert reaches(lab, "a", "b")


def test_spoofed_frames_are_dropped_and_counted(lab: Bench) -> None:
    lab.ok("hv1", f"ip link set {PF} vf 0 spoofchk on")
    before, watching = counters(lab, 0), Sniffer(lab, "b", "eth0")
    send(lab, "a", frame(MAC_B, STRANGER), 3)
    send(lab, "a", frame(MAC_B, MAC_A))
    assert watching.seen() == [()]
    assert counted(lab, 0, before)["tx_dropped"] == 3


def test_a_guest_that_changes_its_address_is_followed(lab: Bench) -> None:
    come_to_reach(lab, "a", "d")
    lab.ok("a", "ip link set eth0 address 02:00:00:00:01:77")
    try:
        come_to_reach(lab, "a", "d")
        come_to_reach(lab, "b", "a")
        assert f"vf 0     link/ether {MAC_A}" in lab.ok("hv1", f"ip link show {PF}")
        lab.ok("hv1", f"ip link set {PF} vf 0 spoofchk on")
        assert not reaches(lab, "a", "d")
    finally:
        lab.ok("a", f"ip link set eth0 address {MAC_A}")
    come_to_reach(lab, "a", "d")


def test_a_disabled_vf_has_no_carrier_and_no_traffic(lab: Bench) -> None:
    come_to_reach(lab, "a", "b")
    lab.ok("hv1", f"ip link set {PF} vf 1 state disable")
    until(lambda: "NO-CARRIER" in lab.ok("b", "ip link show eth0"))
    assert not reaches(lab, "a", "b")
    assert not reaches(lab, "b", "c")
    come_to_reach(lab, "a", "c")
    lab.ok("hv1", f"ip link set {PF} vf 1 state auto")
    come_to_reach(lab, "a", "b")


def test_without_the_cable_only_enabled_vfs_have_a_link(lab: Bench) -> None:
    silicon = lab.root / "nodes" / "hv2" / "nics" / "0" / "net"

    def cable(state: str) -> None:
        subprocess.run(["nsenter", f"--net={silicon}", "ip", "link", "set", "p0", state], check=True)

    cable("down")
    try:
        for guest, node in (("a", "hv1"), ("d", "hv2")):
            until(lambda guest=guest: "NO-CARRIER" in lab.ok(guest, "ip link show eth0"))  # type: ignore[misc]
            until(lambda node=node: "NO-CARRIER" in lab.ok(node, f"ip link show {PF}"))  # type: ignore[misc]
        lab.ok("hv1", f"ip link set {PF} vf 0 state enable && ip link set {PF} vf 1 state enable")
        come_to_reach(lab, "a", "b")
        assert not reaches(lab, "a", "c")
    finally:
        cable("up")
    until(lambda: "NO-CARRIER" not in lab.ok("c", "ip link show eth0"))
    come_to_reach(lab, "a", "c")
    come_to_reach(lab, "a", "d")


# ---- changes, modes, deaths


def test_no_packet_of_another_flow_is_lost_while_attributes_change(lab: Bench) -> None:
    come_to_reach(lab, "a", "d")
    with lab.flooding("a", ADDRESS["d"]):
        lab.ok(
            "hv1",
            "set -e; for i in $(seq 10 24); do "
            f"ip link set {PF} vf 1 vlan $i spoofchk on; ip link set {PF} vf 2 trust on state disable; "
            f"ip link set {PF} vf 3 mac 02:00:00:00:01:$i; "
            f"ip link set {PF} vf 1 vlan 0 spoofchk off; ip link set {PF} vf 2 trust off state auto; done",
        )


def test_switchdev_and_back_keeps_what_the_kernel_keeps(lab: Bench) -> None:
    come_to_reach(lab, "a", "d")
    mac = MAC_A
    lab.ok("hv1", f"ip link set {PF} vf 0 mac {mac} vlan 57 qos 3 spoofchk on trust on max_tx_rate 100 state enable")
    lab.ok("hv1", f"devlink dev eswitch set pci/{PCI} mode switchdev")
    try:
        shown = lab.ok("hv1", f"ip link show {PF}")
        assert re.search(
            rf"vf 0 +link/ether {mac} brd \S+, vlan 57, qos 3, spoof checking on, link-state disable, trust on", shown
        )
        until(lambda: "NO-CARRIER" in lab.ok("a", "ip link show eth0"))
        lab.ok("hv1", "ip link set eth0 up && ip addr add 10.9.0.1/24 dev eth0")
        lab.ok("a", "ip addr add 10.9.0.2/24 dev eth0")
        until(lambda: "NO-CARRIER" not in lab.ok("a", "ip link show eth0"))
        until(lambda: lab.run("a", "ping -n -q -c 1 -W 0.4 10.9.0.1").returncode == 0)
        assert not reaches(lab, "a", "b")
    finally:
        lab.run("a", "ip addr del 10.9.0.2/24 dev eth0")
        lab.ok("hv1", f"devlink dev eswitch set pci/{PCI} mode legacy")
    shown = lab.ok("hv1", f"ip link show {PF}")
    assert re.search(
        rf"vf 0 +link/ether {mac} brd \S+, vlan 57, qos 3, spoof checking on, link-state auto, trust on", shown
    )
    assert "tx rate" not in shown
    lab.ok("hv2", f"ip link set {PF} vf 0 vlan 57")
    come_to_reach(lab, "a", "d")


def test_traffic_goes_on_while_the_daemon_is_dead_and_the_next_one_takes_over(lab: Bench) -> None:
    lab.ok("hv1", f"ip link set {PF} vf 0 vlan 57 && ip link set {PF} vf 1 vlan 57")
    come_to_reach(lab, "a", "b")
    send(lab, "a", frame("ff:ff:ff:ff:ff:ff", MAC_A))
    before = counters(lab, 1)
    old = lab.kill_daemon("hv1")
    lab.ping("a", ADDRESS["b"], 20)
    until(lambda: lab.daemon("hv1") not in (0, old), why="no daemon came up")
    assert counters(lab, 1)["broadcast"] >= before["broadcast"] >= 1
    lab.ping("a", ADDRESS["b"])
    lab.ok("hv1", f"ip link set {PF} vf 0 vlan 58")
    assert not reaches(lab, "a", "b")


def test_a_pf_in_another_namespace_still_is_the_nics(lab: Bench) -> None:
    lab.ok("hv2", "ip netns add holder && ip link set enp3s0f1 netns holder")
    try:
        lab.ok("hv2", "ip netns exec holder ip link set enp3s0f1 up")
        come_to_reach(lab, "a", "d")
        assert f"{PF}v1" in lab.ok("hv2", "ls /sys/class/net")
    finally:
        lab.ok("hv2", "ip netns del holder")
    until(lambda: "enp3s0f1\n" in lab.ok("hv2", "ls /sys/class/net"))
    assert "vf 0 " in lab.ok("hv2", "ip link show enp3s0f1")


def test_a_vf_in_a_nested_namespace_is_told_from_others_with_its_number(lab: Bench) -> None:
    index = lab.ok("hv1", f"cat /sys/class/net/{PF}v3/ifindex").strip()
    lab.ok("hv1", f"ip netns add holder && ip link set {PF}v3 netns holder && ip netns add other")
    try:
        lab.ok("hv1", f"ip netns exec other ip link add name dull0 index {index} type veth peer name dull1")
        assert "veth" in lab.ok("hv1", "ip netns exec other ip -d link show dull0")
        shown = lab.ok("hv1", f"ip netns exec holder ip -d link show {PF}v3")
        assert "veth" not in shown
        assert "parentdev 0000:03:00.5" in shown
    finally:
        lab.ok("hv1", "ip netns del other; ip netns del holder")
    until(lambda: f"{PF}v3" in lab.ok("hv1", "ip -br link"))


def test_what_a_pf_receives_is_for_hardwares_rules_too(lab: Bench) -> None:
    """Without an eSwitch, filters of a PF are for its receive side (mlx5e_tc_add_nic_flow)."""
    lab.ok("hv1", f"ethtool -K {PF} hw-tc-offload on && tc qdisc add dev {PF} ingress")
    try:
        add = f"tc filter add dev {PF} ingress protocol ip"
        lab.ok("hv1", f"{add} pref 1 flower skip_sw ip_proto icmp src_ip {ADDRESS['a']} action drop")
        assert not reaches(lab, "a", "hv1")
        assert reaches(lab, "b", "hv1")
        lab.ok("hv1", f"{add} pref 2 flower skip_sw dst_mac {STRANGER} action mirred egress redirect dev {PF}v3")
        refused = lab.run("hv1", f"{add} pref 3 flower skip_sw action vlan push id 5 action drop")
        assert "Error: mlx5_core: Not implemented offload action." in refused.stderr
        old = lab.kill_daemon("hv1")
        until(lambda: lab.daemon("hv1") not in (0, old), why="no daemon came up")
        shown = lab.ok("hv1", f"tc -s filter show dev {PF} ingress")
        assert shown.count("in_hw in_hw_count 1") == 2
        assert "Sent hardware 98 bytes 1 pkt" in shown
        lab.ok("hv1", f"tc filter del dev {PF} ingress pref 1")
        come_to_reach(lab, "a", "hv1")
    finally:
        lab.ok("hv1", f"tc qdisc del dev {PF} ingress; ethtool -K {PF} hw-tc-offload off")


@pytest.fixture
def reloaded(wired: Bench) -> Bench:
    """hv2's driver has been unloaded and loaded: for tests at the end, since it takes the guests' VFs away."""
    assert {"mlx5_core", "openvswitch"} <= {line.split()[0] for line in wired.ok("hv2", "lsmod").splitlines()}
    wired.ok("hv2", "modprobe -r mlx5_core && modprobe -r openvswitch")
    assert PF not in wired.ok("hv2", "ls /sys/class/net")
    assert "driver in use: mlx5_core" not in wired.ok("hv2", "lspci -k")
    wired.ok("hv2", "modprobe mlx5_core && modprobe -a openvswitch mlx5_core act_ct && modprobe -n mlx5_core")
    return wired


def test_a_loaded_driver_has_the_physical_functions(reloaded: Bench) -> None:
    assert reloaded.ok("hv2", f"cat /sys/class/net/{PF}/device/sriov_numvfs").strip() == "0"
    assert reloaded.ok("hv2", "ls -d /sys/bus/pci/drivers/mlx5_core/0000:*").split() == [
        f"/sys/bus/pci/drivers/mlx5_core/0000:03:00.{port}" for port in (0, 1)
    ]
    assert reloaded.run("hv2", "modprobe -q mlx_compat").returncode == 1


def test_a_vfs_rule_sends_to_a_vf_of_the_other_port(reloaded: Bench) -> None:
    """The two eSwitches of a NIC are merged for VFs, not for the wire (is_merged_eswitch_vfs)."""
    for port in (0, 1):
        device = f"/sys/class/net/enp3s0f{port}/device"
        reloaded.ok("hv2", f"echo 0 > {device}/sriov_drivers_autoprobe && echo 1 > {device}/sriov_numvfs")
        reloaded.ok("hv2", f"devlink dev eswitch set pci/0000:03:00.{port} mode switchdev")
        reloaded.ok("hv2", f"echo $(basename $(readlink {device}/virtfn0)) > /sys/bus/pci/drivers/mlx5_core/bind")
        reloaded.ok("hv2", f"ip link set eth{port} up && ip link set enp3s0f{port}v0 up")
    to = "tc filter add dev eth0 ingress pref {} protocol all flower skip_sw action mirred egress redirect dev {}"
    reloaded.ok("hv2", f"tc qdisc add dev eth0 ingress && {to.format(1, 'eth1')}")
    until(lambda: "LOWER_UP" in reloaded.ok("hv2", "ip link show enp3s0f0v0"))
    there = Sniffer(reloaded, "hv2", "enp3s0f1v0")
    sniffer.send(reloaded, "hv2", "enp3s0f0v0", frame(STRANGER, MAC_A))
    assert there.seen() == [()]
    refused = reloaded.run("hv2", to.format(2, "enp3s0f1"))
    assert "devices are not on same switch HW, can't offload forwarding" in refused.stderr
