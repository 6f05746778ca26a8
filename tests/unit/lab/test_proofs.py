# SPDX-License-Identifier: Apache-2.0
"""What the demo reads out of the outputs of ovs-appctl and iperf3, and how it judges them."""

from __future__ import annotations

import pytest

from asap2.lab.demo import counts
from asap2.lab.proofs import Figures
from asap2.lab.reading import find_flow, gbps, packets
from asap2.lab.terminal import OutputError, expect

FLOWS = """\
ufid:b7d28249-ccf2-402c-866d-0d7619618a46, skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),\
ct_label(0/0),recirc_id(0),dp_hash(0/0),in_port(p0),packet_type(ns=0/0,id=0/0),\
eth(src=02:00:00:00:00:0c,dst=02:00:00:00:00:0a),eth_type(0x8100),vlan(vid=100,pcp=0),encap(eth_type(0x0806),\
arp(sip=0.0.0.0/0.0.0.0,tip=0.0.0.0/0.0.0.0,op=0/0,sha=00:00:00:00:00:00/00:00:00:00:00:00,\
tha=00:00:00:00:00:00/00:00:00:00:00:00)), packets:1, bytes:98, used:never, offloaded:yes, dp:tc, actions:pop_vlan,p0_0
ufid:8637f5c4-1345-428d-b654-54b623e2ba00, skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),\
ct_label(0/0),recirc_id(0),dp_hash(0/0),in_port(p0),packet_type(ns=0/0,id=0/0),\
eth(src=02:00:00:00:00:0c,dst=02:00:00:00:00:0a),eth_type(0x8100),vlan(vid=100,pcp=0),encap(eth_type(0x0800),\
ipv4(src=0.0.0.0/0.0.0.0,dst=0.0.0.0/0.0.0.0,proto=0/0,tos=0/0,ttl=0/0,frag=no)), packets:7, bytes:588, \
used:0.960s, offloaded:yes, dp:tc, actions:pop_vlan,p0_0
ufid:25ca48b9-3691-4936-8543-7e77e3fd910b, skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),\
ct_label(0/0),recirc_id(0),dp_hash(0/0),in_port(p0_0),packet_type(ns=0/0,id=0/0),\
eth(src=02:00:00:00:00:0a,dst=02:00:00:00:00:0c),eth_type(0x0800),\
ipv4(src=0.0.0.0/0.0.0.0,dst=0.0.0.0/0.0.0.0,proto=0/0,tos=0/0,ttl=0/0,frag=no), packets:9, bytes:756, \
used:0.961s, offloaded:yes, dp:tc, actions:push_vlan(vid=100,pcp=0),p0
"""

IPERF = """\
[  5]   0.00-5.00   sec  6.23 GBytes  10.7 Gbits/sec    0             sender
[  5]   0.00-5.01   sec  6.22 GBytes  10.6 Gbits/sec                  receiver
"""


def test_the_flow_of_ip_packets_is_found_also_behind_a_tag() -> None:
    flow = find_flow(FLOWS, "p0", "02:00:00:00:00:0c", "02:00:00:00:00:0a")
    assert flow is not None
    assert packets(flow) == 7
    assert flow.info["offloaded"] == "yes"
    assert [list(action) for action in flow.actions] == [["pop_vlan"], ["output"]]


def test_the_flow_of_the_other_direction_is_another() -> None:
    assert packets(find_flow(FLOWS, "p0_0", "02:00:00:00:00:0a", "02:00:00:00:00:0c")) == 9
    assert find_flow(FLOWS, "p0_0", "02:00:00:00:00:0c", "02:00:00:00:00:0a") is None


def test_no_flows_are_none() -> None:
    assert find_flow("", "p0", "02:00:00:00:00:0c", "02:00:00:00:00:0a") is None
    assert packets(None) == 0


def test_throughput_is_the_receivers() -> None:
    assert gbps(IPERF) == 10.6


def test_a_run_of_iperf3_without_a_result_is_told() -> None:
    with pytest.raises(OutputError, match="iperf3 did not measure anything"):
        gbps("iperf3: error - unable to connect to server\n")


def test_an_expectation_says_what_it_found() -> None:
    line = "03:00.0 Ethernet controller: Mellanox Technologies MT27800 Family [ConnectX-4 Lx]\n"
    assert expect(r"^(\S+) .*\[(ConnectX-[^]]+)\]", "a {2} at {1}")(line) == "a ConnectX-4 Lx at 03:00.0"


def test_an_expectation_that_is_not_met_is_told() -> None:
    with pytest.raises(OutputError, match="the output does not have 'mode switchdev'"):
        expect("mode switchdev")("pci/0000:03:00.0: mode legacy")


def test_counting_wants_the_exact_number() -> None:
    assert counts(r"eth\d", 2, "representors")("eth0 eth1") == "2 representors"
    with pytest.raises(OutputError, match="there are 1 representors, and should be 2"):
        counts(r"eth\d", 2, "representors")("eth0")


def test_figures_that_were_not_measured_are_null_in_the_report() -> None:
    assert Figures().as_data() == {
        "ping_loss_percent": None,
        "packets_sent": None,
        "representor_packets": None,
        "offloaded_packets": None,
        "tcp_gbps": {"userspace": None, "software": None, "offloaded": None},
        "cpu_percent": {"vswitchd": None, "daemon": None},
        "comparison": None,
        "firewall": None,
        "packet_ways": {"1": {}, "2": {}},
    }
    assert all(result.startswith("not measured") for _, result in Figures().rows())
    assert Figures().headline(80) == []
