# SPDX-License-Identifier: Apache-2.0
"""Recirculation: Open vSwitch's flows with recirculation ids are TC chains, in hardware and on in software.

No OpenFlow pipeline makes such flows for the NIC (docs/architecture.md), so they are put in by hand, and the
revalidators, who remove flows that no pipeline makes, are paused. What pipelines recirculate is left to the software
datapath: hashes, labels, lengths.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import Bench, packets_of, until
from tests.system.patience import PATIENCE

RECIRCULATED = 0x77
LOG = "/var/log/openvswitch/ovs-vswitchd.log"


class Flows:
    """Flows of vm1's packets to vm2, put in by hand on hv1."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        own, other = (bench.ok(vm, "cat /sys/class/net/eth0/address").strip() for vm in ("vm1", "vm2"))
        bench.ok("vm1", f"ip neigh replace 10.57.0.2 lladdr {other} dev eth0")  # no ARP meanwhile: packets are counted
        bench.ok("vm2", f"ip neigh replace 10.57.0.1 lladdr {own} dev eth0")
        self._packet = f"in_port(eth3),eth(src={own},dst={other}),eth_type(0x0800)"
        ports = bench.ok("hv1", "ovs-appctl dpctl/show")
        found = re.search(rf"port (\d+): {PF}$", ports, re.MULTILINE)
        assert found, ports
        self.wire = found[1]

    def add(self, number: int, recirculation: int, ip: str, actions: str) -> None:
        """Put one in; *ip* is what it matches on of IPv4."""
        flow = f"{ufid(number)},recirc_id({recirculation:#x}),{self._packet},ipv4({ip})"
        self.bench.ok("hv1", f"ovs-appctl dpctl/add-flow '{flow}' '{actions}'")

    def remove(self, number: int) -> None:
        """Take one out."""
        self.bench.ok("hv1", f"ovs-appctl dpctl/del-flow {ufid(number)}")

    def counted(self, number: int, kind: str) -> int:
        """Packets of one that is where it should be: ``offloaded``, or ``ovs`` (the software datapath)."""
        return packets_of(self.bench.flow("hv1", ufid(number), kind=kind))

    def reached_the_host(self) -> int:
        """Packets that the host has received on vm1's representor."""
        shown = self.bench.ok("hv1", "ip -j stats show dev eth3 group offload subgroup cpu_hit")
        packets: int = json.loads(shown)[0]["stats64"]["rx"]["packets"]
        return packets


def ufid(number: int) -> str:
    """The name of a flow."""
    return f"ufid:{number:08x}-0000-0000-0000-000000000000"


@pytest.fixture
def flows(idle: Bench) -> Iterator[Flows]:
    """The first flow recirculates; nobody removes flows."""
    idle.ping("vm1", "10.57.0.2", 3, "-i 0.2")
    idle.ok("hv1", "ovs-appctl revalidator/purge && ovs-appctl revalidator/pause")
    made = Flows(idle)
    made.add(1, 0, "frag=no", f"recirc({RECIRCULATED})")
    yield made
    idle.ok("hv1", "ovs-appctl vlog/set dpif:file:info && ovs-appctl dpctl/del-flows && ovs-appctl revalidator/resume")


def test_both_chains_are_in_hardware(flows: Flows) -> None:
    flows.add(2, RECIRCULATED, "dst=10.57.0.2,frag=no", f"push_vlan(vid=57,pcp=0),{flows.wire}")
    shown = flows.bench.ok("hv1", "tc filter show dev eth3 ingress")
    assert f"gact action goto chain {RECIRCULATED}" in shown
    assert f"flower chain {RECIRCULATED} handle" in shown
    assert "not_in_hw" not in shown
    flows.bench.ping("vm1", "10.57.0.2", 3)
    before = flows.counted(1, "offloaded"), flows.counted(2, "offloaded"), flows.reached_the_host()
    flows.bench.ping("vm1", "10.57.0.2", 20)
    after = flows.counted(1, "offloaded"), flows.counted(2, "offloaded"), flows.reached_the_host()
    assert after == (before[0] + 20, before[1] + 20, before[2])


def test_what_finds_nothing_in_the_second_chain_goes_on_there_in_software(flows: Flows) -> None:
    """By a flow that TC does not take (it cuts packets); without one as an upcall with the recirculation id."""
    flows.add(3, RECIRCULATED, "dst=10.57.0.2,frag=no", f"push_vlan(vid=57,pcp=0),trunc(1500),{flows.wire}")
    flows.bench.ping("vm1", "10.57.0.2", 3)
    before = flows.counted(1, "offloaded"), flows.counted(3, "ovs"), flows.reached_the_host()
    flows.bench.ping("vm1", "10.57.0.2", 20)
    after = flows.counted(1, "offloaded"), flows.counted(3, "ovs"), flows.reached_the_host()
    assert after == tuple(count + 20 for count in before)
    flows.remove(3)
    flows.bench.ok("hv1", f"ovs-appctl vlog/set dpif:file:dbg && truncate -s 0 {LOG}")
    assert "100% packet loss" in flows.bench.run("vm1", "ping -n -c 3 -i 0.1 -W 0.3 10.57.0.2").stdout
    told = rf"miss upcall:\n.*recirc_id\({RECIRCULATED:#x}\).*in_port\({in_port(flows.bench)}\),"
    until(lambda: re.search(told, flows.bench.ok("hv1", f"cat {LOG}")) is not None)


def test_a_chain_that_comes_later_is_followed_and_one_that_goes_is_left(flows: Flows) -> None:
    flows.add(2, RECIRCULATED, "dst=10.57.0.2,frag=no", f"push_vlan(vid=57,pcp=0),{flows.wire}")
    flows.bench.ping("vm1", "10.57.0.2", 3)
    flows.remove(2)
    assert "100% packet loss" in flows.bench.run("vm1", "ping -n -c 3 -i 0.1 -W 0.3 10.57.0.2").stdout
    flows.add(2, RECIRCULATED, "dst=10.57.0.2,frag=no", f"push_vlan(vid=57,pcp=0),{flows.wire}")
    flows.bench.ping("vm1", "10.57.0.2", 3)


def test_a_flow_that_names_no_port_takes_the_packets_of_all(flows: Flows) -> None:
    flows.remove(1)
    anywhere = f"{ufid(4)},recirc_id(0),eth(),eth_type(0x0800),ipv4(dst=10.57.0.2,frag=no)"
    flows.bench.ok("hv1", f"ovs-appctl dpctl/add-flow '{anywhere}' 'push_vlan(vid=57,pcp=0),{flows.wire}'")
    flows.bench.ping("vm1", "10.57.0.2", 3)
    assert flows.counted(4, "ovs") == 3


def in_port(bench: Bench) -> str:
    """The datapath's number of vm1's representor."""
    found = re.search(r"port (\d+): eth3$", bench.ok("hv1", "ovs-appctl dpctl/show"), re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture
def pipelines(lab: Bench) -> Iterator[Bench]:
    """Whatever OpenFlow rules and groups a test adds to the two bridges go again."""
    for vm, address in (("vm1", "10.57.0.2"), ("vm2", "10.57.0.1")):
        lab.ping(vm, address, 3, "-i 0.2")
    yield lab
    for node in ("hv1", "hv2"):
        lab.ok(node, "ovs-ofctl del-flows br-int && ovs-ofctl add-flow br-int priority=0,actions=normal")
        lab.ok(node, "ovs-ofctl -O OpenFlow15 del-groups br-int")


def rules(bench: Bench, node: str, *made: str) -> None:
    """Add OpenFlow rules, which every packet from now on sees."""
    for rule in made:
        bench.ok(node, f"ovs-ofctl -O OpenFlow15 add-flow br-int '{rule}'")
    bench.ok(node, "ovs-appctl revalidator/purge")


def test_a_select_group_spreads_connections_by_their_hash(pipelines: Bench) -> None:
    buckets = (
        f"bucket=bucket_id:{tos},weight:50,actions=set_field:{tos}->ip_dscp,push_vlan:0x8100,"
        f"set_field:{0x1000 | 57}->vlan_vid,output:{PF}"
        for tos in (8, 16)
    )
    group = f"group_id=1,type=select,selection_method=dp_hash,{','.join(buckets)}"
    pipelines.ok("hv1", f"ovs-ofctl -O OpenFlow15 add-group br-int '{group}'")
    rules(pipelines, "hv1", "priority=9,udp,in_port=eth3,actions=group:1")
    seen = []
    with pipelines.socket("vm2", socket.AF_INET, socket.SOCK_DGRAM, ("10.57.0.2", 5700)) as listener:
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        listener.settimeout(PATIENCE)
        for port in range(20000, 20032):
            with pipelines.socket("vm1", socket.AF_INET, socket.SOCK_DGRAM, ("10.57.0.1", port)) as sender:
                for _ in range(2):  # the first is Open vSwitch's own to do, the second its flow's
                    sender.sendto(port.to_bytes(2, "big"), ("10.57.0.2", 5700))
                    data, control, _flags, _from = listener.recvmsg(2, 64)
                    seen.append((data, control[0][2][0] >> 2))
    assert {tos for _data, tos in seen} == {8, 16}
    assert len(set(seen)) == 32, "a connection has one bucket"
    flows = pipelines.flows("hv1", kind="ovs")
    assert any("hash(" in flow and "recirc(" in flow for flow in flows)
    assert any("dp_hash(" in flow for flow in flows)


def test_labels_are_put_on_and_taken_off(pipelines: Bench) -> None:
    rules(pipelines, "hv1", f"priority=9,ip,in_port=eth3,actions=push_mpls:0x8847,set_field:57->mpls_label,output:{PF}")
    rules(pipelines, "hv2", f"priority=9,mpls,mpls_label=57,in_port={PF},actions=pop_mpls:0x0800,output:eth3")
    pipelines.ping("vm1", "10.57.0.2", 20)
    assert "pop_mpls(eth_type=0x800)" in pipelines.flow("hv2", "eth_type(0x8847)", "label=57", kind="all")


def test_long_packets_may_go_another_way(pipelines: Bench) -> None:
    rules(
        pipelines,
        "hv1",
        "priority=9,icmp,in_port=eth3,actions=check_pkt_larger(300)->NXM_NX_REG0[0],resubmit(,1)",
        "table=1,priority=1,actions=normal",
        "table=1,priority=9,reg0=1,actions=drop",
    )
    pipelines.ping("vm1", "10.57.0.2", 20, "-i 0.01 -s 258")
    assert "100% packet loss" in pipelines.run("vm1", "ping -n -c 3 -i 0.1 -W 0.3 -s 259 10.57.0.2").stdout

    def counted() -> bool:
        """Whether one flow does, in TC or in the datapath."""
        pipelines.ping("vm1", "10.57.0.2", 20, "-i 0.01 -s 258")
        flows = pipelines.flows("hv1", "check_pkt_len(size=300", kind="all")
        return len(flows) == 1 and packets_of(flows[0]) >= 20

    until(counted, why="no flow counts the packets whose length it looks at")


def test_the_datapath_answers_what_open_vswitch_asks_of_it(pipelines: Bench) -> None:
    assert "does not support meters" not in pipelines.ok("hv1", "ovs-dpctl show 2>&1")
    resize = "ovs-dpctl cache-set-size system@ovs-system masks-cache"
    assert "Numerical result out of range" in pipelines.ok("hv1", f"{resize} 80000 2>&1 || true")
    for size in (0, 256):
        pipelines.ok("hv1", f"{resize} {size}")
        assert pipelines.ok("hv1", "ovs-dpctl cache-get-size").split()[-2:] == ["masks-cache:", f"size:{size}"]
