# SPDX-License-Identifier: Apache-2.0
"""What VXLAN packets travel on: IPv6, and routes, neighbours and addresses that change."""

from __future__ import annotations

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import Bench, until
from tests.system.offload.overlays import EACH_OFFLOADS_OR_NOT, NODES, join, offloading, tcp_crosses

OUT = ("in_port(eth3)", "eth_type(0x0800)", "set(tunnel(tun_id=0x4d,ipv6_dst=fd00:16::")
INTO = ("in_port(vxlan_sys_4789)", "eth_type(0x0800)", "ipv6_src=fd00:16::")


@pytest.fixture(scope="module")
def joined(empty: Bench) -> Bench:
    """The tunnel's ends have IPv6 addresses, on the uplinks."""
    join(empty, "fd00:16::{}")
    for node, number in NODES.items():
        empty.ok(node, f"ip addr add fd00:16::{number}/64 dev {PF} nodad")
    return empty


@pytest.fixture
def overlay(joined: Bench) -> Bench:
    """Both ends offload."""
    return offloading(joined)


def sent_in_hardware(bench: Bench, node: str, count: int) -> None:
    """*count* pings of vm1 are counted by the one flow of *node* that has them, which is in hardware."""
    (flow,) = bench.counted("vm1", "10.58.0.2", count, (node, *OUT))
    assert "offloaded:yes" in flow


def test_ipv6_carries_it_in_hardware_both_ways(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    for node in NODES:
        sent_in_hardware(overlay, node, 5)
        assert "offloaded:yes" in overlay.flow(node, *INTO)
    assert "enc_dst_ip fd00:16::1" in overlay.ok("hv1", "tc -s filter show dev vxlan_sys_4789 ingress")


@pytest.mark.parametrize(("first", "second"), EACH_OFFLOADS_OR_NOT)
def test_tcp_crosses_ipv6_whoever_offloads(joined: Bench, first: bool, second: bool) -> None:
    tcp_crosses(offloading(joined, first, second))


def test_a_neighbour_that_moves_is_followed(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    assert overlay.flow("hv1", *OUT)
    overlay.ok("hv2", f"ip link set {PF} address 02:00:00:00:aa:02")
    overlay.ok("hv1", f"ip neigh replace fd00:16::2 lladdr 02:00:00:00:aa:02 dev {PF}")
    sent_in_hardware(overlay, "hv1", 3)
    overlay.ok("hv1", f"ip neigh del fd00:16::2 dev {PF}")
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")


def neighbour(bench: Bench, address: str) -> str:
    """What hv1's kernel knows of a neighbour."""
    return bench.ok("hv1", f"ip neigh show {address} dev {PF}")


def test_a_neighbour_is_asked_for_before_a_packet_waits(overlay: Bench) -> None:
    """The kernel alone asks from a link-local address, which the uplink has none of, or for a packet."""
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    assert "fe80" not in overlay.ok("hv1", f"ip -6 addr show dev {PF}")
    for node, number in NODES.items():
        overlay.ok(node, f"ip addr add fd00:17::{number}/64 dev {PF} nodad")
    rule = "filter {} dev eth3 ingress protocol ip prio 99"
    overlay.ok(
        "hv1",
        f"tc {rule.format('add')} flower skip_sw dst_ip 10.99.0.1 action tunnel_key set id 5 src_ip fd00:17::1 "
        "dst_ip fd00:17::2 dst_port 4789 action mirred egress redirect dev vxlan_sys_4789",
    )
    until(lambda: "REACHABLE" in neighbour(overlay, "fd00:17::2"))
    overlay.ok("hv1", f"tc {rule.format('del')}")


def test_a_neighbour_that_hardware_sends_to_stays_confirmed(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    assert overlay.flow("hv1", *OUT)
    overlay.ok("hv1", f"ip neigh change $(ip neigh show fd00:16::2 dev {PF} | cut -d' ' -f1-3) dev {PF} nud stale")
    assert "STALE" in neighbour(overlay, "fd00:16::2")
    sent_in_hardware(overlay, "hv1", 5)
    until(lambda: "REACHABLE" in neighbour(overlay, "fd00:16::2"))


def test_a_route_that_goes_and_comes_is_followed(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    assert overlay.flow("hv1", *OUT)
    overlay.ok("hv1", "ip route add unreachable fd00:16::2")
    try:
        assert "100% packet loss" in overlay.run("vm1", "ping -n -c 3 -i 0.1 -W 0.3 10.58.0.2").stdout
    finally:
        overlay.ok("hv1", "ip route del unreachable fd00:16::2")
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    sent_in_hardware(overlay, "hv1", 5)


def test_a_tunnel_over_a_vlan_device_is_tagged_in_hardware(overlay: Bench) -> None:
    """The device is the kernel's, or ours where the kernel has no such kind. The first packets go through it."""
    for node, number in NODES.items():
        overlay.ok(node, f"ip link add link {PF} name under type vlan id 30 && ip link set under up")
        overlay.ok(node, f"ip addr add fd00:18::{number}/64 dev under nodad")
        overlay.ok(node, f"ovs-vsctl set interface vx0 options:remote_ip=fd00:18::{3 - number}")
    try:
        overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
        assert int(overlay.ok("hv1", "cat /sys/class/net/under/statistics/tx_packets")) > 0
        (flow,) = overlay.counted("vm1", "10.58.0.2", 5, ("hv1", "in_port(eth3)", "eth_type(0x0800)", "fd00:18::"))
        assert "offloaded:yes" in flow
    finally:
        for node, number in NODES.items():
            overlay.ok(node, f"ovs-vsctl set interface vx0 options:remote_ip=fd00:16::{3 - number}")
            overlay.ok(node, "ip link del under")
