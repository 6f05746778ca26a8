# SPDX-License-Identifier: Apache-2.0
"""VXLAN between two hypervisors: encapsulated and decapsulated by the eSwitch, by software, and by one of each."""

from __future__ import annotations

import pytest

from tests.system.offload.conftest import PF, Bench, packets_of
from tests.system.offload.overlays import NODES, join, offload, send_tcp


@pytest.fixture(scope="module")
def overlay(empty: Bench) -> Bench:
    """The tunnel's ends are the uplinks' addresses."""
    join(empty, "172.16.0.{}")
    for node, number in NODES.items():
        empty.ok(node, f"ip addr add 172.16.0.{number}/24 dev {PF}")
    return empty


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
        for client, server in (("vm1", "vm2"), ("vm2", "vm1")):
            send_tcp(overlay, client, server)
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
