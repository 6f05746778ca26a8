# SPDX-License-Identifier: Apache-2.0
"""OpenFlow pipelines that do more than forward: routing, copies, recirculation; and tc's trap. With real packets."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import Bench, packets_of
from tests.system.offload.overlays import send_tcp

TOPOLOGY = """
[[node]]
name = "hv1"
[[node.nic]]
vfs = 4
mode = "switchdev"

[[node]]
name = "hv2"
[[node.nic]]
vfs = 4
mode = "switchdev"

[[cable]]
ends = ["hv1/nic0", "hv2/nic0"]
""" + "".join(
    f"""
[[guest]]
name = "vm{number}"
node = "{node}"
vf = {vf}
mac = "02:00:00:00:01:0{number}"
address = "{address}/24"
"""
    for number, node, vf, address in (
        (1, "hv1", 1, "10.1.0.1"),
        (2, "hv1", 2, "10.2.0.2"),
        (3, "hv1", 3, "10.3.0.3"),
        (4, "hv2", 0, "10.2.0.4"),
    )
)
MAC = {number: f"02:00:00:00:01:0{number}" for number in range(1, 5)}
ROUTER = {1: "02:00:00:00:ff:01", 2: "02:00:00:00:ff:02"}
"""The router's address in each of the subnets 10.1.0.0/24 and 10.2.0.0/24."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """vm1, vm2 and vm3 on hv1, vm4 across the cable; a bridge on each hypervisor, offloading."""
    with Bench.running(TOPOLOGY) as bench:
        for node, ports in (("hv1", (PF, "eth1", "eth2", "eth3")), ("hv2", (PF, "eth0"))):
            bench.switch(node)
            bench.ok(node, "ovs-vsctl add-br br0")
            for port in ports:
                bench.ok(node, f"ovs-vsctl add-port br0 {port} && ip link set {port} up")
        for guest, subnet, own in (("vm1", 2, 1), ("vm2", 1, 2), ("vm4", 1, 2)):
            bench.ok(guest, f"ip route add 10.{subnet}.0.0/24 via 10.{own}.0.254")
            bench.ok(guest, f"ip neigh replace 10.{own}.0.254 lladdr {ROUTER[own]} dev eth0")
            bench.ok(guest, f"ip -6 addr add fd00:{own}::{guest[2]}/64 dev eth0 nodad")
            bench.ok(guest, f"ip -6 route add fd00:{subnet}::/64 via fd00:{own}::254 dev eth0")
            bench.ok(guest, f"ip -6 neigh replace fd00:{own}::254 lladdr {ROUTER[own]} dev eth0")
        yield bench


def route(number: int, out: str, before: str = "") -> str:
    """Actions that route to vm *number* out of port *out*."""
    subnet = 1 if number == 1 else 2
    return f"dec_ttl,mod_dl_src:{ROUTER[subnet]},mod_dl_dst:{MAC[number]},{before}output:{out}"


@pytest.fixture
def program(lab: Bench) -> Iterator[Bench]:
    """No OpenFlow rules and no flows on hv1."""
    lab.ok("hv1", "ovs-ofctl del-flows br0 && ovs-appctl revalidator/purge")
    yield lab
    lab.ok("hv1", "ovs-ofctl del-flows br0 && ovs-ofctl add-flow br0 actions=normal && ovs-appctl revalidator/purge")


def add(bench: Bench, *flows: str) -> None:
    for flow in flows:
        bench.ok("hv1", f"ovs-ofctl -O OpenFlow13 add-flow br0 '{flow}'")


def back(bench: Bench, client: str = "eth2") -> None:
    """What is for vm1 is routed to it."""
    for kind, match in (("ip", "nw_dst=10.1.0.0/24"), ("ipv6", "ipv6_dst=fd00:1::/64")):
        add(bench, f"priority=9,{kind},in_port={client},{match},actions={route(1, 'eth1')}")


def counted(bench: Bench, count: int, address: str, *parts: str) -> str:
    """vm1 pings; the flow with *parts* is in hardware and counts each ping; the flow."""
    (flow,) = bench.counted("vm1", address, count, ("hv1", *parts))
    assert "offloaded:yes" in flow
    return flow


def test_routing_between_two_subnets_is_in_hardware(program: Bench) -> None:
    add(program, f"priority=9,ip,nw_dst=10.2.0.2,in_port=eth1,actions={route(2, 'eth2')}")
    back(program)
    assert "ttl=63" in program.ping("vm1", "10.2.0.2", 3, "-i 0.3")
    flow = counted(program, 10, "10.2.0.2", "in_port(eth1)", "eth_type(0x0800)")
    assert f"set(eth(src={ROUTER[2]},dst={MAC[2]}))" in flow
    send_tcp(program, "vm1", "vm2", address="10.2.0.2")


def test_tcp_over_ipv6_is_routed_in_hardware_and_icmpv6_in_software(program: Bench) -> None:
    """With the hop limit Open vSwitch has the checksum of ICMPv6 mended, which mlx5 offloads for TCP and UDP alone
    (csum_offload_supported)."""
    add(program, f"priority=9,ipv6,ipv6_dst=fd00:2::2,in_port=eth1,actions={route(2, 'eth2')}")
    back(program)
    routed = ("in_port(eth1)", "eth_type(0x86dd)", f"set(eth(src={ROUTER[2]},dst={MAC[2]}))")
    assert "ttl=63" in program.ping("vm1", "fd00:2::2", 3, "-i 0.3")
    program.flow("hv1", *routed, "proto=58", kind="non-offloaded")
    send_tcp(program, "vm1", "vm2", address="fd00:2::2")
    assert packets_of(program.flow("hv1", *routed, "proto=6")) > 1000


def test_routing_across_the_cable_with_a_tag_is_in_hardware(program: Bench) -> None:
    program.ok("hv2", "ovs-vsctl set port eth0 tag=20")
    add(
        program,
        f"priority=9,ip,in_port=eth1,nw_dst=10.2.0.4,actions={route(4, PF, 'push_vlan:0x8100,mod_vlan_vid:20,')}",
        f"priority=9,ip,in_port={PF},dl_vlan=20,nw_dst=10.1.0.1,actions=strip_vlan,{route(1, 'eth1')}",
    )
    try:
        program.ping("vm1", "10.2.0.4", 3, "-i 0.3")
        counted(program, 10, "10.2.0.4", "in_port(eth1)", "push_vlan(vid=20")
        assert "offloaded:yes" in program.flow("hv1", f"in_port({PF})", "vlan(vid=20")
    finally:
        program.ok("hv2", "ovs-vsctl clear port eth0 tag")


class Seen:
    """What ``tcpdump`` sees of ICMP requests on a guest's device."""

    def __init__(self, bench: Bench, guest: str) -> None:
        self._process = bench.start(
            guest, "timeout", "60", "tcpdump", "-lnnei", "eth0", "icmp[icmptype] = 8 or (vlan and icmp)"
        )
        assert self._process.stderr is not None
        while "listening" not in self._process.stderr.readline():
            pass

    def lines(self, count: int) -> list[str]:
        """The first *count* packets."""
        with self._process as process:
            assert process.stdout is not None
            found = [process.stdout.readline() for _ in range(count)]
            process.terminate()
        return found


def test_a_mirror_gives_a_port_a_copy_of_each_packet(program: Bench) -> None:
    add(program, f"priority=9,ip,in_port=eth1,actions={route(2, 'eth2')}")
    back(program)
    program.ok(
        "hv1",
        "ovs-vsctl -- --id=@out get port eth3 -- --id=@of get port eth2 -- "
        "--id=@m create mirror name=m0 select-dst-port=@of output-port=@out -- set bridge br0 mirrors=@m",
    )
    program.ok("vm3", "ip link set eth0 promisc on")
    try:
        program.ping("vm1", "10.2.0.2", 3, "-i 0.3")
        seen = Seen(program, "vm3")
        flow = counted(program, 10, "10.2.0.2", "in_port(eth1)", "eth_type(0x0800)")
        assert flow.endswith("eth2,eth3")
        assert all(f"{ROUTER[2]} > {MAC[2]}" in line for line in seen.lines(10))
    finally:
        program.ok("hv1", "ovs-vsctl clear bridge br0 mirrors")
        program.ok("vm3", "ip link set eth0 promisc off")


@pytest.mark.parametrize("second", ["", "push_vlan:0x8100,mod_vlan_vid:30,"])
def test_each_copy_has_its_own_tag(program: Bench, second: str) -> None:
    """By one rule: untagged to vm2, as it is or with VLAN 30 to vm3, with VLAN 20 across the cable.

    The second change of tag is more than the NIC's driver takes (that would need a match on the tag): software's.
    """
    program.ok("hv2", "ovs-vsctl set port eth0 tag=20")
    third = "mod_vlan_vid:20," if second else "push_vlan:0x8100,mod_vlan_vid:20,"
    add(
        program,
        f"priority=9,ip,in_port=eth1,actions={route(2, 'eth2')},{second}output:eth3,{third}"
        f"mod_dl_dst:{MAC[4]},output:{PF}",
    )
    back(program)
    program.ok("vm3", "ip link set eth0 promisc on")
    try:
        program.ping("vm1", "10.2.0.2", 3, "-i 0.3")
        flow = program.flow("hv1", "in_port(eth1)", "eth_type(0x0800)", kind="tc")
        assert ("offloaded:yes" in flow) is not bool(second)
        there, across = Seen(program, "vm3"), Seen(program, "vm4")
        program.ping("vm1", "10.2.0.2", 5)
        assert all(("vlan 30" in line) is bool(second) for line in there.lines(5))
        assert all(f"{ROUTER[2]} > {MAC[4]}" in line and "vlan" not in line for line in across.lines(5))
        after = program.flow("hv1", "in_port(eth1)", "eth_type(0x0800)", kind="tc")
        assert packets_of(after) == packets_of(flow) + 5
    finally:
        program.ok("hv2", "ovs-vsctl clear port eth0 tag")
        program.ok("vm3", "ip link set eth0 promisc off")


def test_a_drop_is_in_hardware_and_counted(program: Bench) -> None:
    add(program, "priority=9,ip,in_port=eth1,actions=drop")
    program.run("vm1", "ping -c 5 -i 0.2 -W 0.2 10.2.0.2")
    before = program.flow("hv1", "in_port(eth1)", "eth_type(0x0800)", "actions:drop")
    program.run("vm1", "ping -c 10 -i 0.02 -W 0.2 10.2.0.2")
    after = program.flow("hv1", "in_port(eth1)", "eth_type(0x0800)", "actions:drop")
    assert "offloaded:yes" in after
    assert packets_of(after) == packets_of(before) + 10


@pytest.fixture
def plain(lab: Bench) -> Iterator[Bench]:
    """eth1 is no port of Open vSwitch, and has an ingress qdisc and the address 10.1.0.77."""
    lab.ok("hv1", "ovs-vsctl del-port eth1 && ip link set eth1 address 02:00:00:00:00:77 up")
    lab.run("hv1", "tc qdisc del dev eth1 ingress")
    lab.ok("hv1", "ip addr add 10.1.0.77/24 dev eth1 && tc qdisc add dev eth1 ingress")
    lab.ok("vm1", "ip neigh replace 10.1.0.77 lladdr 02:00:00:00:00:77 dev eth0")
    yield lab
    lab.ok("hv1", "tc qdisc del dev eth1 ingress && ip addr del 10.1.0.77/24 dev eth1 && ovs-vsctl add-port br0 eth1")


def shown(bench: Bench) -> str:
    return bench.ok("hv1", "tc -s filter show dev eth1 ingress")


def test_what_tc_traps_the_host_gets(plain: Bench) -> None:
    add = "tc filter add dev eth1 ingress protocol ip"
    plain.ok("hv1", f"{add} prio 1 flower skip_sw dst_ip 10.1.0.77 action trap")
    plain.ping("vm1", "10.1.0.77", 5)
    assert "in_hw in_hw_count 1" in shown(plain)
    assert "Sent hardware 490 bytes 5 pkt" in shown(plain)
    refused = plain.run("hv1", f"{add} prio 2 flower skip_sw action pedit ex munge ip ttl set 3 pipe action trap")
    assert "action trap is supported as a sole action only" in refused.stderr


def test_what_tc_traps_goes_through_all_filters_that_software_has(plain: Bench) -> None:
    """Those that hardware has too are among them, whether they come before the trap or after it."""
    add = "tc filter add dev eth1 ingress protocol ip"
    plain.ok("hv1", f"{add} prio 4 flower dst_ip 10.1.0.77 action mirred egress redirect dev eth2")
    plain.ok("hv1", f"{add} prio 1 flower skip_sw dst_ip 10.1.0.77 action trap")
    seen = Seen(plain, "vm2")
    plain.run("vm1", "ping -n -c 5 -i 0.05 -W 0.2 10.1.0.77")
    assert all("10.1.0.1 > 10.1.0.77" in line for line in seen.lines(5))
    assert shown(plain).count("in_hw in_hw_count 1") == 2
    plain.ok("hv1", f"{add} prio 2 flower dst_ip 10.1.0.77 ip_proto icmp action drop")
    plain.run("vm1", "ping -n -c 5 -i 0.05 -W 0.2 10.1.0.77")
    dropped = shown(plain).split("pref 2 flower chain 0 handle")[1]
    assert "5 pkt (dropped 5" in dropped.split("filter protocol")[0]


def test_a_packet_goes_on_in_software_at_the_chain_where_hardware_stopped(plain: Bench) -> None:
    add = "tc filter add dev eth1 ingress protocol ip"
    plain.ok("hv1", f"{add} prio 1 flower skip_hw dst_ip 10.1.0.77 action drop")
    plain.ok("hv1", f"{add} prio 2 flower skip_sw dst_ip 10.1.0.77 action goto chain 70000")
    plain.ok("hv1", f"{add} chain 70000 prio 1 flower skip_sw dst_ip 10.1.0.77 ip_ttl 9 action drop")
    plain.ok("hv1", f"{add} chain 70000 prio 2 flower skip_hw dst_ip 10.1.0.77 ip_proto icmp action pass")
    plain.ok("hv1", f"{add} chain 70000 prio 3 flower skip_hw action drop")
    plain.ping("vm1", "10.1.0.77", 5)
    assert len(re.findall(r"Sent hardware 490 bytes 5 pkt", shown(plain))) == 1
    passed = shown(plain).split("gact action pass")[1]
    assert "Sent 420 bytes 5 pkt" in passed.split("filter")[0]
    plain.ok("hv1", "tc filter del dev eth1 ingress chain 70000 prio 2 protocol ip flower")
    lost = plain.run("vm1", "ping -n -c 3 -i 0.05 -W 0.2 10.1.0.77").stdout
    assert "100% packet loss" in lost


def test_a_redirect_to_an_internal_port_is_as_if_the_host_sent_there(plain: Bench) -> None:
    """Open vSwitch sees the packets come in by it, and sends them on."""
    plain.ok("hv1", "ovs-ofctl del-flows br0 && ovs-ofctl add-flow br0 in_port=LOCAL,actions=output:eth2")
    plain.ok("hv1", "ip link set br0 up")
    try:
        seen = Seen(plain, "vm2")
        plain.ok(
            "hv1",
            "tc filter add dev eth1 ingress protocol ip flower dst_ip 10.1.0.77 action mirred egress redirect dev br0",
        )
        plain.run("vm1", "ping -n -c 5 -i 0.05 -W 0.2 10.1.0.77")
        assert all("10.1.0.1 > 10.1.0.77" in line for line in seen.lines(5))
        assert "Sent 420 bytes 5 pkt" in shown(plain)
    finally:
        plain.ok("hv1", "ovs-ofctl del-flows br0 && ovs-ofctl add-flow br0 actions=normal")
