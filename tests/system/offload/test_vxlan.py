# SPDX-License-Identifier: Apache-2.0
"""VXLAN between two hypervisors: encapsulated and decapsulated by the eSwitch, by software, and by one of each."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import IPV4, Bench, packets_of, tracked_packets
from tests.system.offload.overlays import EACH_OFFLOADS_OR_NOT, NODES, join_uplinks, offloading, send_tcp, tcp_crosses
from tests.system.patience import PATIENCE


@pytest.fixture(scope="module")
def joined(empty: Bench) -> Bench:
    """The tunnel's ends are the uplinks' addresses."""
    join_uplinks(empty)
    return empty


@pytest.fixture
def overlay(joined: Bench) -> Bench:
    """Both ends offload."""
    return offloading(joined)


def test_both_ways_are_in_hardware(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    for node in ("hv1", "hv2"):
        out = overlay.flow(node, "in_port(eth3)", IPV4, "set(tunnel(tun_id=0x4d")
        into = overlay.flow(node, "in_port(vxlan_sys_4789)", IPV4)
        assert "offloaded:yes" in out
        assert "offloaded:yes" in into
    overlay.counted("vm1", "10.58.0.2", 20, ("hv1", "in_port(vxlan_sys_4789)", IPV4))
    assert "in_hw in_hw_count 1" in overlay.ok("hv1", "tc -s filter show dev vxlan_sys_4789 ingress")


def test_what_comes_out_of_the_tunnel_to_be_dropped_is_dropped_by_hardware(overlay: Bench) -> None:
    """Open vSwitch's rule says nothing of the tunnel but its key: neither that it is left, nor where packets go."""
    overlay.ok("hv2", "ovs-ofctl add-flow br-int priority=100,in_port=vx0,udp,actions=drop")
    try:
        overlay.ok("vm1", "ip neigh replace 10.58.0.9 lladdr 02:00:00:00:00:09 dev eth0")
        send = "for number in 1 2 3 4 5; do echo > /dev/udp/10.58.0.9/7; done"
        overlay.ok("vm1", f"bash -c '{send}'")
        into = overlay.flow("hv2", "in_port(vxlan_sys_4789)", "udp", "actions:drop", kind="all")
        assert "offloaded:yes" in into
        before = packets_of(into)
        overlay.ok("vm1", f"bash -c '{send}'")
        assert packets_of(overlay.flow("hv2", "in_port(vxlan_sys_4789)", "actions:drop")) == before + 5
    finally:
        overlay.ok("hv2", "ovs-ofctl del-flows --strict br-int priority=100,in_port=vx0,udp")


STATEFUL = (
    "priority=9,arp,actions=normal",
    "priority=5,ip,ct_state=-trk,actions=ct(table=1,zone=77)",
    "table=1,priority=5,ip,ct_state=+trk+est,actions=normal",
    "table=1,priority=5,ip,ct_state=+trk+new,actions=ct(commit,zone=77),normal",
)


def test_connections_are_tracked_inside_the_tunnel(overlay: Bench) -> None:
    """The chains after the first match on the tunnel again, and the last takes packets out of it."""
    device = "vxlan_sys_4789"
    try:
        overlay.program("hv2", *STATEFUL)
        overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
        send_tcp(overlay, "vm1", "vm2", "1M")  # Open vSwitch makes the flows
        into = overlay.flow("hv2", "recirc_id(0)", f"in_port({device})", "ct(zone=77)")
        out = overlay.flow("hv2", "ct_state(0x22/0x22)", f"in_port({device})", "actions:eth3")
        assert "offloaded:yes, dp:tc" in into
        assert "offloaded:yes, dp:tc" in out
        before = tracked_packets(overlay, "hv2", device)
        send_tcp(overlay, "vm1", "vm2")
        after = tracked_packets(overlay, "hv2", device)
        software, hardware = (late - early for early, late in zip(before, after, strict=True))
        # A FIN goes through software, and with it the super-packet of 46 segments that it may be the end of.
        assert software < 30 + 46 < 10000 < hardware
    finally:
        overlay.program("hv2", "priority=0,actions=normal")
        overlay.ok("hv2", "ovs-appctl dpctl/flush-conntrack")


COLLECTOR = """
import socket, sys
collector = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
collector.bind(("127.0.0.1", 4739))
print("ready", flush=True)
while bytes.fromhex(sys.argv[1]) not in collector.recv(65536):
    pass
"""
"""Takes flow records (IPFIX) until one has the octets of its argument."""


def test_flow_records_have_the_tunnel_that_packets_leave_by(overlay: Bench) -> None:
    ends_and_udp = socket.inet_aton("172.16.0.1") + socket.inet_aton("172.16.0.2") + b"\x11"
    with overlay.start("hv1", sys.executable, "-c", COLLECTOR, ends_and_udp.hex()) as collector:
        try:
            assert collector.stdout is not None
            assert collector.stdout.readline() == "ready\n"
            record = r"create IPFIX targets=\"127.0.0.1:4739\" sampling=1"
            overlay.ok("hv1", f"ovs-vsctl -- set Bridge br-int ipfix=@new -- --id=@new {record}")
            overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
            assert collector.wait(PATIENCE) == 0
        finally:
            collector.kill()
            overlay.ok("hv1", "ovs-vsctl clear Bridge br-int ipfix")


@pytest.mark.parametrize(("first", "second"), EACH_OFFLOADS_OR_NOT)
def test_tcp_crosses_whoever_offloads(joined: Bench, first: bool, second: bool) -> None:
    tcp_crosses(offloading(joined, first, second))


def test_a_neighbour_that_moves_is_followed(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    assert overlay.flow("hv1", "in_port(eth3)", IPV4, "set(tunnel")
    overlay.ok("hv2", f"ip link set {PF} address 02:00:00:00:aa:02")
    overlay.ok("hv1", f"ip neigh replace 172.16.0.2 lladdr 02:00:00:00:aa:02 dev {PF}")
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    overlay.ok("hv1", f"ip neigh del 172.16.0.2 dev {PF}")
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")


@pytest.mark.parametrize("csum", [False, True])
def test_the_outer_checksum_is_as_asked_for_and_matched(joined: Bench, csum: bool) -> None:
    """In software. (In hardware there is none: mlx5's header template has a checksum of 0.)"""
    overlay = offloading(joined, False, False)
    try:
        overlay.ok("hv1", f"ovs-vsctl set interface vx0 options:csum={str(csum).lower()}")
        overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
        sign = "+" if csum else "-"
        overlay.counted("vm1", "10.58.0.2", 10, ("hv2", "in_port(vxlan_sys_4789)", IPV4, f"{sign}csum"), kind="all")
    finally:
        overlay.ok("hv1", "ovs-vsctl remove interface vx0 options csum")


def test_a_filter_on_a_tunnel_device_is_met_in_software_too(overlay: Bench) -> None:
    """With its key for the UDP port, which the kernel's metadata does not have."""
    overlay.ok("hv2", "ethtool -K enp3s0f0 hw-tc-offload off && ethtool -K eth3 hw-tc-offload off")
    overlay.switch("hv2")
    try:
        overlay.ping("vm1", "10.58.0.2", 4, "-i 0.3")
        into = ("hv2", "in_port(vxlan_sys_4789)", IPV4, "tp_dst=4789")
        (flow,) = overlay.counted("vm1", "10.58.0.2", 10, into, kind="tc")
        assert "offloaded:yes" not in flow
    finally:
        overlay.ok("hv2", "ethtool -K enp3s0f0 hw-tc-offload on && ethtool -K eth3 hw-tc-offload on")
        overlay.switch("hv2")


def new_tunnel(bench: Bench, options: str = "") -> None:
    """The tunnel's ports anew, with more *options*. (A port whose UDP port is changed is not offloaded.)"""
    for node, number in NODES.items():
        bench.ok(node, "ovs-vsctl del-port vx0")
        bench.ok(
            node,
            "ovs-vsctl add-port br-int vx0 -- "
            f"set interface vx0 type=vxlan options:remote_ip=172.16.0.{3 - number} options:key=77 {options}",
        )


def test_a_tunnel_to_another_port_is_in_hardware_while_a_device_has_it(overlay: Bench) -> None:
    new_tunnel(overlay, "options:dst_port=8472")
    try:
        overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
        into = ("in_port(vxlan_sys_8472)", IPV4, "tp_dst=8472")
        overlay.counted("vm1", "10.58.0.2", 10, *((node, *into) for node in NODES))
        assert "in_hw in_hw_count 1" in overlay.ok("hv1", "tc filter show dev vxlan_sys_8472 ingress")
        send_tcp(overlay, "vm1", "vm2")
    finally:
        new_tunnel(overlay)
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    assert "offloaded:yes" in overlay.flow("hv1", "in_port(vxlan_sys_4789)", IPV4)


UNSET = "action tunnel_key unset action mirred egress redirect dev eth3"
REFUSED = (
    f"enc_key_id 5 enc_dst_port 8472 {UNSET}",
    f"enc_key_id 5 enc_dst_port 1234 {UNSET}",
    f"enc_key_id 5 {UNSET}",
)
UNPARSED = "mlx5_core: Failed to parse tunnel attributes"


def test_udp_ports_that_the_nic_does_not_know_are_refused_as_by_mlx5(overlay: Bench) -> None:
    """A device that is not up has no port; the eighth port beside 4789 finds no place until another goes."""
    add = "tc filter add dev vx8 ingress protocol ip flower skip_sw"
    overlay.ok("hv1", "ip link add vx8 type vxlan external dstport 8472 && tc qdisc add dev vx8 ingress")
    others = [f"vxb{number}" for number in range(7)]
    try:
        for filtered in REFUSED:
            assert UNPARSED in overlay.run("hv1", f"{add} {filtered}").stderr
        into = "action tunnel_key set id 5 src_ip 172.16.0.1 dst_ip 172.16.0.2 dst_port 8472"
        out = overlay.run(
            "hv1",
            f"tc filter add dev eth3 ingress protocol ip flower skip_sw {into} action mirred egress redirect dev vx8",
        )
        assert "mlx5_core: vxlan udp dport was not registered with the HW" in out.stderr
        for number, name in enumerate(others):
            overlay.ok(
                "hv1", f"ip link add {name} type vxlan external dstport {9000 + number} && ip link set {name} up"
            )
        overlay.ok("hv1", "ip link set vx8 up")
        eighth = f"{add} enc_key_id 5 enc_dst_port 8472 {UNSET}"
        assert UNPARSED in overlay.run("hv1", eighth).stderr
        overlay.ok("hv1", f"ip link del {others.pop()}")
        overlay.ok("hv1", eighth)
    finally:
        for name in ("vx8", *others):
            overlay.run("hv1", f"ip link del {name}")


def tunnel_port(overlay: Bench, node: str, options: str) -> None:
    """Make the port of the tunnel anew: Open vSwitch keeps its device when only an extension changes."""
    port = f"add-port br-int vx0 -- set interface vx0 type=vxlan options:key=77 {options}"
    overlay.ok(node, f"ovs-vsctl del-port vx0 && ovs-vsctl {port}")


def test_the_group_policy_is_set_and_matched_in_software(overlay: Bench) -> None:
    policies = ("hv1", "priority=10,in_port=eth3,ip,actions=load:{}->NXM_NX_TUN_GBP_ID[],normal")
    wanted = ("hv2", "priority=10,in_port=vx0,ip,tun_gbp_id=7,actions=normal", "priority=9,in_port=vx0,ip,actions=drop")
    try:
        for node, number in NODES.items():
            tunnel_port(overlay, node, f"options:remote_ip=172.16.0.{3 - number} options:exts=gbp")
        overlay.program(*wanted, "priority=0,actions=normal")
        overlay.program(policies[0], policies[1].format(7), "priority=0,actions=normal")
        overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
        out = overlay.flow("hv1", "in_port(eth3)", IPV4, "vxlan(gbp(id=7", kind="all")
        into = overlay.flow("hv2", "in_port(vxlan_sys_4789)", "vxlan(gbp(id=7", kind="all")
        assert "dp:ovs" in out
        assert "dp:ovs" in into
        overlay.program(policies[0], policies[1].format(8), "priority=0,actions=normal")
        assert overlay.run("vm1", "ping -c 2 -i 0.2 -W 1 10.58.0.2").returncode == 1
    finally:
        for node, number in NODES.items():
            overlay.program(node, "priority=0,actions=normal")
            tunnel_port(overlay, node, f"options:remote_ip=172.16.0.{3 - number}")
