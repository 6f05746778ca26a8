# SPDX-License-Identifier: Apache-2.0
"""VF LAG: a bond has both uplinks of a NIC, and its VFs send and receive by both in hardware."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from asap2.namespaces import in_netns
from asap2.nic.link_changes import LinkChanges
from tests.system.offload.conftest import PF
from tests.system.offload.labs import IPV4, Bench, until

TOPOLOGY = """
[[node]]
name = "hv1"
[[node.nic]]
ports = 2
total_vfs = 4
vfs = 1
mode = "switchdev"

[[node]]
name = "hv2"
[[node.nic]]
total_vfs = 4
vfs = 1
mode = "switchdev"

[[switch]]
name = "rack"
ends = ["hv1/nic0/p0", "hv1/nic0/p1", "hv2/nic0"]

[[guest]]
name = "a"
node = "hv1"
vf = 0
address = "10.58.0.1/24"

[[guest]]
name = "b"
node = "hv1"
port = 1
vf = 0
address = "10.58.0.2/24"

[[guest]]
name = "c"
node = "hv2"
vf = 0
address = "10.58.0.3/24"
"""
PORTS = ("enp3s0f0", "enp3s0f1")
GUESTS = ("a", "b")


@pytest.fixture(scope="module")
def bonded() -> Iterator[Bench]:
    """hv1's uplinks are in bond0, a port of its bridge."""
    with Bench.running(TOPOLOGY) as bench:
        for port in PORTS:
            bench.ok("hv1", f"ethtool -K {port} hw-tc-offload on")
        bench.ok("hv2", f"ethtool -K {PF} hw-tc-offload on && ip link set {PF} mtu 1600 up")
        bench.ok("hv1", "ip link add bond0 mtu 1600 type bond mode active-backup miimon 100")
        for port in PORTS:
            bench.ok("hv1", f"ip link set {port} down && ip link set {port} master bond0")
        bench.ok("hv1", "ip link set bond0 up")
        for node, uplink in (("hv1", "bond0"), ("hv2", PF)):
            bench.switch(node)
            bench.ok(node, "ovs-vsctl add-br br-int")
            for port in (uplink, *representors(bench, node)):
                bench.ok(node, f"ovs-vsctl add-port br-int {port} && ip link set {port} up")
        yield bench


def representors(bench: Bench, node: str) -> list[str]:
    return bench.ok(node, "ls /sys/class/net | grep ^eth").split()


def connect(bench: Bench, port: int, up: bool) -> None:
    """Plug the cable of a port of hv1 in, or pull it."""
    netns = os.open(bench.root / "nodes" / "hv1" / "nics" / "0" / "net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        changes = in_netns(netns, LinkChanges)
        ifindex = changes.find(f"p{port}")
        assert ifindex is not None
        changes.set_up(ifindex, up)
        changes.close()
    finally:
        os.close(netns)


def active(bench: Bench) -> str:
    return bench.ok("hv1", "cat /sys/class/net/bond0/bonding/active_slave").strip()


def sent(bench: Bench) -> list[int]:
    """Packets that each port of hv1 has sent."""
    counter = "ethtool -S {} | sed -n 's/.* tx_packets_phy: //p'"
    return [int(bench.ok("hv1", counter.format(port))) for port in PORTS]


def carried(bench: Bench) -> tuple[int, int]:
    """Packets that each port of hv1 sends while both its guests send 100."""
    before = sent(bench)
    for guest in GUESTS:
        bench.ping(guest, "10.58.0.3", 100, "-i 0.001")
    first, second = (now - then for now, then in zip(sent(bench), before, strict=True))
    return first, second


def all_in_hardware(bench: Bench, within: str) -> None:
    """Both guests of hv1 reach hv2's, and every packet but the first is in hardware, whose flows are of *within*."""
    for guest in GUESTS:
        bench.ping(guest, "10.58.0.3", 3)  # the bridge learns where the guests are
    bench.forget("hv1")
    for guest in GUESTS:
        bench.ping(guest, "10.58.0.3", 3)
    flows = bench.flows("hv1", IPV4, within)
    assert sorted(f"in_port({within})" in flow for flow in flows) == [False, False, True, True], flows
    assert not bench.flows("hv1", IPV4, kind="ovs")


def test_vfs_of_both_ports_are_carried_by_the_active_one(bonded: Bench) -> None:
    all_in_hardware(bonded, "bond0")
    block = bonded.ok("hv1", "tc filter show block $(cat /sys/class/net/bond0/ifindex)")
    assert "in_hw in_hw_count 2" in block
    first, second = carried(bonded)
    assert (first >= 200, second) == (True, 0)


def test_a_pulled_cable_moves_all_to_the_other_port(bonded: Bench) -> None:
    all_in_hardware(bonded, "bond0")
    flows = len(bonded.flows("hv1", IPV4))
    connect(bonded, 0, False)
    until(lambda: active(bonded) == PORTS[1])
    first, second = carried(bonded)
    assert (first, second >= 200) == (0, True)
    assert len(bonded.flows("hv1", IPV4)) == flows
    connect(bonded, 0, True)


def test_devices_on_ports_of_a_nic_have_its_switch_id(bonded: Bench) -> None:
    """dev_get_port_parent_id(): not those that stand on a port and on something else."""
    shown = f"switchid {bonded.ok('hv1', f'cat /sys/class/net/{PORTS[0]}/phys_switch_id').strip()} "
    port = representors(bonded, "hv1")[0]
    bonded.ok("hv1", f"ip link add link {port} name tagged type vlan id 5; ip link add plain type dummy")
    bonded.ok("hv1", "ip link add bridge0 type bridge; ip link set tagged master bridge0")
    for device in ("bond0", "tagged", "bridge0"):
        assert shown in bonded.ok("hv1", f"ip -d link show {device}")
    bonded.ok("hv1", "ip link set plain master bridge0")
    assert "switchid" not in bonded.ok("hv1", "ip -d link show bridge0; ip -d link show plain")
    bonded.ok("hv1", "ip link del tagged; ip link del bridge0; ip link del plain")


def test_a_tunnel_over_the_bond_is_in_hardware(bonded: Bench) -> None:
    for node, number, uplink in (("hv1", 1, "bond0"), ("hv2", 2, PF)):
        bonded.ok(node, f"ovs-vsctl del-port {uplink} && ip addr add 172.16.0.{number}/24 dev {uplink}")
        bonded.ok(
            node,
            "ovs-vsctl add-port br-int vx0 -- set interface vx0 type=vxlan "
            f"options:remote_ip=172.16.0.{3 - number} options:key=77",
        )
    all_in_hardware(bonded, "vxlan_sys_4789")
    assert "in_hw in_hw_count 2" in bonded.ok("hv1", "tc filter show dev vxlan_sys_4789 ingress")


def test_bonds_at_both_ends_of_two_cables_speak_lacp(bonded: Bench) -> None:
    """They agree to use both cables; where nobody speaks any more, one port is used."""
    commands = [
        *(f"ip link add la{at} type veth peer name lb{at}" for at in (0, 1)),
        *(f"ip link add lag{side} type bond mode 802.3ad miimon 100 lacp_rate fast" for side in "ab"),
        *(f"ip link set l{side}{at} master lag{side}" for side in "ab" for at in (0, 1)),
        *(f"ip link set lag{side} up" for side in "ab"),
    ]
    try:
        for command in commands:
            bonded.ok("hv1", command)
        theirs = bonded.ok("hv1", "cat /sys/class/net/lagb/address").strip()
        until(lambda: "port state: 63" in bonded.ok("hv1", "cat /proc/net/bonding/laga"))
        until(lambda: "ad_num_ports 2" in bonded.ok("hv1", "ip -d link show laga"))
        assert f"ad_partner_mac {theirs}" in bonded.ok("hv1", "ip -d link show laga")
        bonded.ok("hv1", "ip link del lagb")
        bonded.ok("hv1", "ip link set lb0 up && ip link set lb1 up")
        until(lambda: "ad_partner_mac 00:00:00:00:00:00" in bonded.ok("hv1", "ip -d link show laga"))
        assert "ad_num_ports 1" in bonded.ok("hv1", "ip -d link show laga")
    finally:
        bonded.run("hv1", "ip link del lagb; ip link del laga; ip link del la0; ip link del la1")
