# SPDX-License-Identifier: Apache-2.0
"""VXLAN between two hypervisors: encapsulated and decapsulated by the eSwitch, by software, and by one of each."""

from __future__ import annotations

import re

import pytest

from tests.system.offload.conftest import PCI, PF, VFS, Bench, packets_of, until


@pytest.fixture(scope="module")
def overlay(empty: Bench) -> Bench:
    """A guest on VF 3 of each hypervisor, joined by a VXLAN tunnel between the uplinks' addresses."""
    for node, number in (("hv1", 1), ("hv2", 2)):
        other, guest = 3 - number, f"vm{number}"
        empty.ok(node, f"echo {VFS} > /sys/class/net/{PF}/device/sriov_numvfs")
        empty.ok(node, f"devlink dev eswitch set pci/{PCI} mode switchdev && ethtool -K {PF} hw-tc-offload on")
        empty.ok(
            node, f"ip link set {PF} mtu 1600 up && ip addr add 172.16.0.{number}/24 dev {PF} && ip link set eth3 up"
        )
        empty.ok(node, "systemctl start openvswitch && ovs-vsctl set Open_vSwitch . other_config:hw-offload=true")
        empty.ok(node, "systemctl restart openvswitch && ovs-vsctl set Open_vSwitch . other_config:max-idle=30000")
        empty.ok(
            node,
            "ovs-vsctl add-br br-int -- add-port br-int eth3 -- add-port br-int vx0 -- "
            f"set interface vx0 type=vxlan options:remote_ip=172.16.0.{other} options:key=77",
        )
        empty.ok(node, f"ip link set {PF}v3 netns {guest}")
        empty.ok(guest, f"ip link set {PF}v3 name eth0 && ip addr add 10.58.0.{number}/24 dev eth0")
        empty.ok(guest, "ip link set eth0 mtu 1450 up")
    return empty


def offload(bench: Bench, node: str, on: bool) -> None:
    bench.ok(node, f"ovs-vsctl set Open_vSwitch . other_config:hw-offload={str(on).lower()}")
    bench.ok(node, "systemctl restart openvswitch")


def test_both_ways_are_in_hardware(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    for node in ("hv1", "hv2"):
        out = overlay.flow(node, "in_port(eth3)", "eth_type(0x0800)", "set(tunnel(tun_id=0x4d")
        into = overlay.flow(node, "in_port(vxlan_sys_4789)", "eth_type(0x0800)")
        assert "offloaded:yes" in out
        assert "offloaded:yes" in into
    before = packets_of(overlay.flow("hv1", "in_port(vxlan_sys_4789)", "eth_type(0x0800)"))
    overlay.ping("vm1", "10.58.0.2", 20)
    assert packets_of(overlay.flow("hv1", "in_port(vxlan_sys_4789)", "eth_type(0x0800)")) == before + 20
    assert "in_hw in_hw_count 1" in overlay.ok("hv1", "tc -s filter show dev vxlan_sys_4789 ingress")


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True), (False, False)])
def test_tcp_crosses_whoever_offloads(overlay: Bench, first: bool, second: bool) -> None:
    offload(overlay, "hv1", first)
    offload(overlay, "hv2", second)
    try:
        overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
        for client, server, address in (("vm1", "vm2", "10.58.0.2"), ("vm2", "vm1", "10.58.0.1")):
            listening = overlay.start(server, "iperf3", "-s", "-1")
            until(lambda server=server: ":5201" in overlay.ok(server, "ss -ltn"))  # type: ignore[misc]
            done = overlay.ok(client, f"iperf3 -c {address} -n 30M")
            listening.communicate(timeout=20)
            assert re.search(r"receiver", done)
    finally:
        offload(overlay, "hv1", True)
        offload(overlay, "hv2", True)


def test_a_neighbour_that_moves_is_followed(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    assert overlay.flow("hv1", "in_port(eth3)", "eth_type(0x0800)", "set(tunnel")
    overlay.ok("hv2", f"ip link set {PF} address 02:00:00:00:aa:02")
    overlay.ok("hv1", f"ip neigh replace 172.16.0.2 lladdr 02:00:00:00:aa:02 dev {PF}")
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    overlay.ok("hv1", f"ip neigh del 172.16.0.2 dev {PF}")
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
