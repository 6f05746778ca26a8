# SPDX-License-Identifier: Apache-2.0
"""VLAN tags of both kinds that guests send, up to four deep: they arrive as sent, and flows are offloaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.offload.labs import Bench, packets_of
from tests.system.offload.sniffer import S_TAG, Sniffer, frame, send

TOPOLOGY = """
[[node]]
name = "hv1"
[[node.nic]]
vfs = 2
mode = "switchdev"

[[guest]]
name = "vm1"
node = "hv1"
vf = 0
mac = "fa:16:3e:00:00:01"

[[guest]]
name = "vm2"
node = "hv1"
vf = 1
mac = "fa:16:3e:00:00:02"
"""
MACS = "fa:16:3e:00:00:02", "fa:16:3e:00:00:01"
STACKS = (
    (10,),
    (S_TAG | 10,),
    (10, 11),
    (10, S_TAG | 11),
    (S_TAG | 0x6005, 11),
    (S_TAG | 10, S_TAG | 11),
    (10, 11, 12),
    (S_TAG | 10, S_TAG | 11, 12),
    (S_TAG | 10, S_TAG | 11, S_TAG | 12, 13),
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """Two guests of one hypervisor, joined by flows that look at nothing."""
    with Bench.running(TOPOLOGY) as bench:
        bench.ok("hv1", "ovs-vsctl set Open_vSwitch . other_config:vlan-limit=2")
        bench.ok("hv1", "ovs-vsctl add-br br0 -- set-fail-mode br0 secure -- add-port br0 eth0 -- add-port br0 eth1")
        bench.ok("hv1", "ip link set eth0 up && ip link set eth1 up")
        yield bench


def _offload(lab: Bench, on: bool, flows: tuple[str, ...]) -> None:
    lab.switched("hv1", offload=on)
    lab.ok("hv1", "ovs-ofctl del-flows br0 && ovs-appctl revalidator/purge")
    for flow in flows:
        lab.ok("hv1", f"ovs-ofctl -O OpenFlow13 add-flow br0 {flow}")


def _missed(lab: Bench) -> int:
    return int(lab.ok("hv1", "ovs-dpctl show").split("missed:")[1].split()[0])


@pytest.mark.parametrize("inserts", [True, False])
@pytest.mark.parametrize("offload", [True, False])
def test_every_stack_of_tags_arrives_as_it_was_sent(lab: Bench, offload: bool, inserts: bool) -> None:
    """Whether or not the device that upcalls leave by puts tags into frames: its features are the user's to change."""
    _offload(lab, offload, ("in_port=eth0,actions=output:eth1", "in_port=eth1,actions=output:eth0"))
    state = "on" if inserts else "off"
    lab.ok("hv1", f"ethtool -K ovs-system tx-vlan-hw-insert {state} tx-vlan-stag-hw-insert {state}")
    seen, before = Sniffer(lab, "vm2", "eth0"), _missed(lab)
    frames = [frame(*MACS, *stack) for stack in STACKS]
    send(lab, "vm1", "eth0", *frames)  # each the first of its flow
    lab.ok("hv1", "ovs-appctl revalidator/wait")
    send(lab, "vm1", "eth0", *frames * 4)
    assert sorted(seen.seen(5 * len(STACKS))) == sorted(STACKS * 5)
    assert _missed(lab) == before + len(STACKS)
    flows = lab.flows("hv1", "in_port(eth0)", kind="all")
    assert sum(map(packets_of, flows)) == 4 * len(STACKS)
    assert len([flow for flow in flows if "offloaded:yes" in flow]) == len(STACKS) * offload


@pytest.mark.parametrize("offload", [True, False])
def test_a_service_tag_that_the_switch_puts_on_and_takes_off(lab: Bench, offload: bool) -> None:
    _offload(
        lab,
        offload,
        (
            "'in_port=eth0,actions=push_vlan:0x88a8,set_field:4196->vlan_vid,output:eth1'",
            "'in_port=eth1,vlan_tci=0x1000/0x1000,actions=pop_vlan,output:eth0'",
        ),
    )
    there, back = Sniffer(lab, "vm2", "eth0"), Sniffer(lab, "vm1", "eth0")
    stacks: tuple[tuple[int, ...], ...] = ((), (11,), (S_TAG | 11,))
    for stack in stacks:
        send(lab, "vm1", "eth0", *[frame(*MACS, *stack)] * 3)
        send(lab, "vm2", "eth0", *[frame(MACS[1], MACS[0], S_TAG | 100, *stack)] * 3)
    assert there.seen(9) == [(S_TAG | 100, *stack) for stack in stacks for _ in range(3)]
    assert back.seen(9) == [stack for stack in stacks for _ in range(3)]
    flows = lab.flows("hv1", "vlan", kind="all")
    assert len(flows) == 2 * len(stacks)
    assert all(("offloaded:yes" in flow) == offload for flow in flows)


@pytest.mark.parametrize("offload", [False, True])
def test_a_tunnel_port_carries_customers_tags_in_a_service_tag(lab: Bench, offload: bool) -> None:
    lab.ok("hv1", "ovs-vsctl set port eth0 vlan_mode=dot1q-tunnel tag=100 -- set port eth1 trunks=100")
    try:
        _offload(lab, offload, ("actions=NORMAL",))
        there, back = Sniffer(lab, "vm2", "eth0"), Sniffer(lab, "vm1", "eth0")
        stacks: tuple[tuple[int, ...], ...] = ((), (11,))
        for stack in stacks:
            send(lab, "vm1", "eth0", *[frame(*MACS, *stack)] * 3)
        assert there.seen(6) == [(S_TAG | 100, *stack) for stack in stacks for _ in range(3)]
        for stack in stacks:  # the switch knows where vm1 is by now
            send(lab, "vm2", "eth0", *[frame(MACS[1], MACS[0], S_TAG | 100, *stack)] * 3)
        assert back.seen(6) == [stack for stack in stacks for _ in range(3)]
        flows = [flow for flow in lab.flows("hv1", "88a8", kind="all") if "eth1" in flow]
        assert flows
        assert all(("offloaded:yes" in flow) == offload for flow in flows)
    finally:
        lab.ok("hv1", "ovs-vsctl clear port eth0 vlan_mode tag -- clear port eth1 trunks")


STACK = """
ip link add link eth0 name service type vlan proto 802.1ad id 100
ip link add link service name customer type vlan id 11 egress-qos-map 0:5
ip addr add 10.59.0.{}/24 dev customer
ip link set service up && ip link set customer up
"""


def test_vlan_devices_of_guests_stack_their_tags_and_outlive_the_daemon(lab: Bench) -> None:
    """The devices are the kernel's, or ours where the kernel has no such kind."""
    _offload(lab, True, ("actions=NORMAL",))
    for number in (1, 2):
        lab.ok(f"vm{number}", f"ip link set eth0 up\n{STACK.format(number)}")
    shown = lab.ok("vm1", "ip -d link show customer")
    assert "customer@service" in shown
    assert "vlan protocol 802.1Q id 11 <REORDER_HDR>" in shown
    seen = Sniffer(lab, "vm2", "eth0")
    send(lab, "vm1", "customer", frame(*MACS))
    assert seen.seen(1) == [(S_TAG | 100, 11 | 5 << 13)]
    lab.ping("vm1", "10.59.0.2")
    lab.kill_daemon("hv1")
    lab.ping("vm1", "10.59.0.2", 20)
    assert lab.ok("vm1", "ip -d link show customer") == shown
    counted = "cat /sys/class/net/customer/statistics/tx_packets"
    assert int(lab.ok("vm1", counted)) > 20
    for guest in ("vm1", "vm2"):
        lab.ok(guest, "ip link del service")
        assert "customer" not in lab.ok(guest, "ip link; ls /sys/class/net; cat /proc/net/dev")
        assert "far" not in lab.ok(guest, "ip link; ls /sys/class/net")
