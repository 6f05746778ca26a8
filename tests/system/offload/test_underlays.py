# SPDX-License-Identifier: Apache-2.0
"""What VXLAN packets travel on: IPv6, and routes, neighbours and addresses that change."""

from __future__ import annotations

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import Bench, packets_of
from tests.system.offload.overlays import EACH_OFFLOADS_OR_NOT, NODES, join, offloading, tcp_crosses

OUT = ("in_port(eth3)", "eth_type(0x0800)", "set(tunnel(tun_id=0x4d,ipv6_dst=fd00:16::")
INTO = ("in_port(vxlan_sys_4789)", "eth_type(0x0800)", "ipv6_src=fd00:16::")


@pytest.fixture(scope="module")
def overlay(empty: Bench) -> Bench:
    """The tunnel's ends have IPv6 addresses, on the uplinks."""
    join(empty, "fd00:16::{}")
    for node, number in NODES.items():
        empty.ok(node, f"ip addr add fd00:16::{number}/64 dev {PF} nodad")
    return empty


def sent_in_hardware(bench: Bench, node: str, count: int) -> None:
    """*count* pings of vm1 are counted by the one flow of *node* that has them, which is in hardware."""
    before = packets_of(bench.flow(node, *OUT))
    bench.ping("vm1", "10.58.0.2", count)
    after = bench.flow(node, *OUT)
    assert "offloaded:yes" in after
    assert packets_of(after) == before + count


def test_ipv6_carries_it_in_hardware_both_ways(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    for node in NODES:
        sent_in_hardware(overlay, node, 5)
        assert "offloaded:yes" in overlay.flow(node, *INTO)
    assert "enc_dst_ip fd00:16::1" in overlay.ok("hv1", "tc -s filter show dev vxlan_sys_4789 ingress")


@pytest.mark.parametrize(("first", "second"), EACH_OFFLOADS_OR_NOT)
def test_tcp_crosses_ipv6_whoever_offloads(overlay: Bench, first: bool, second: bool) -> None:
    with offloading(overlay, first, second):
        tcp_crosses(overlay)


def test_a_neighbour_that_moves_is_followed(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    assert overlay.flow("hv1", *OUT)
    overlay.ok("hv2", f"ip link set {PF} address 02:00:00:00:aa:02")
    overlay.ok("hv1", f"ip neigh replace fd00:16::2 lladdr 02:00:00:00:aa:02 dev {PF}")
    sent_in_hardware(overlay, "hv1", 3)
    overlay.ok("hv1", f"ip neigh del fd00:16::2 dev {PF}")
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")


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
