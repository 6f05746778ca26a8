# SPDX-License-Identifier: Apache-2.0
"""Recirculation: Open vSwitch's flows with recirculation ids are TC chains, in hardware and on in software.

No OpenFlow pipeline makes such flows for the NIC (docs/architecture.md), so they are put in by hand, and the
revalidators, who remove flows that no pipeline makes, are paused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import Bench, packets_of, until

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
        """Packets that vm1's representor has received."""
        return int(self.bench.ok("hv1", "cat /sys/class/net/eth3/statistics/rx_packets"))


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


def in_port(bench: Bench) -> str:
    """The datapath's number of vm1's representor."""
    found = re.search(r"port (\d+): eth3$", bench.ok("hv1", "ovs-appctl dpctl/show"), re.MULTILINE)
    assert found
    return found[1]
