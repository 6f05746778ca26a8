# SPDX-License-Identifier: Apache-2.0
"""The tunnel's ends on internal ports of a second bridge, which tags them: encapsulated, then switched again, in the
eSwitch."""

from __future__ import annotations

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import Bench, packets_of
from tests.system.offload.overlays import NODES, join, send_tcp

VLAN = 100
OUT = ("in_port(eth3)", "eth_type(0x0800)", "set(tunnel(tun_id=0x4d,dst=172.16.5.2")
UNDER = ("in_port(vtep)", "eth_type(0x0800)", f"push_vlan(vid={VLAN},pcp=0),{PF}")
INTO = ("in_port(vxlan_sys_4789)", "eth_type(0x0800)", "src=172.16.5.")


@pytest.fixture(scope="module")
def overlay(empty: Bench) -> Bench:
    """A bridge br-ex of the uplink and the internal port vtep, an access port of VLAN 100, on each hypervisor."""
    join(empty, "172.16.5.{}")
    for node, number in NODES.items():
        empty.ok(
            node,
            f"ovs-vsctl add-br br-ex -- add-port br-ex {PF} -- add-port br-ex vtep tag={VLAN} -- "
            "set interface vtep type=internal",
        )
        empty.ok(node, f"ip link set vtep mtu 1600 up && ip addr add 172.16.5.{number}/24 dev vtep")
    return empty


def test_all_three_rules_are_in_hardware_and_count_each_packet(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 5, "-i 0.3")
    rules = [("hv1", OUT), ("hv1", UNDER), ("hv2", INTO)]
    counted = overlay.counted("vm1", "10.58.0.2", 20, *((node, *parts) for node, parts in rules))
    assert all("offloaded:yes" in flow for flow in counted)


def test_super_packets_count_as_the_wires_packets_in_every_rule(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 5, "-i 0.3")
    rules = [("hv1", OUT), ("hv1", UNDER), ("hv2", INTO)]
    before = [packets_of(overlay.flow(node, *parts)) for node, parts in rules]
    send_tcp(overlay, "vm1", "vm2")
    sent = [packets_of(overlay.flow(node, *parts)) - n for (node, parts), n in zip(rules, before, strict=True)]
    assert sent[0] > 15000  # of at most 1390 octets
    assert len(set(sent)) == 1


def test_what_is_for_the_host_reaches_the_internal_port_through_the_eswitch(overlay: Bench) -> None:
    overlay.ok("hv2", "ping -c 5 -i 0.3 172.16.5.1")
    into = ("hv1", f"in_port({PF})", f"vlan(vid={VLAN}", "eth_type(0x0800)", "actions:pop_vlan,vtep")
    (flow,) = overlay.counted("hv2", "172.16.5.1", 5, into)
    assert "offloaded:yes" in flow


def test_what_no_rule_is_for_is_switched_by_software_as_the_ports(overlay: Bench) -> None:
    """The rule on vtep goes; the next packets come from hardware, and Open vSwitch sees them come in by vtep."""
    overlay.ping("vm1", "10.58.0.2", 5, "-i 0.3")
    overlay.ok("hv1", "tc filter del dev vtep egress")
    overlay.ping("vm1", "10.58.0.2", 20, "-i 0.1")
    assert "offloaded:yes" in overlay.flow("hv1", *UNDER)
