# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from asap2.host.explain.flow import parse
from asap2.testing.flows import Wanted, brief

FLOW = parse(
    "ufid:89288d36-30f3-4e1a-b5c5-5c4765cc7846, skb_priority(0/0),ct_state(0/0),ct_label(0/0),recirc_id(0),"
    "in_port(eth1),packet_type(ns=0/0,id=0/0),eth(src=fa:16:3e:00:00:02,dst=00:00:00:00:00:00/00:00:00:00:00:00),"
    "eth_type(0x8100),vlan(vid=57,pcp=0/0x0),encap(eth_type(0x0800),ipv4(src=0.0.0.0/0.0.0.0,proto=6,frag=no)), "
    "packets:19, bytes:1862, used:0.130s, offloaded:yes, dp:tc, actions:pop_vlan,eth0"
)


def test_a_message_shows_what_a_flow_matches_on_and_no_more() -> None:
    assert brief(FLOW) == (
        "recirc_id(0),in_port(eth1),eth(src=fa:16:3e:00:00:02),eth_type(0x8100),vlan(vid=57)"
        " encap: eth_type(0x0800),ipv4(proto=6), packets:19, actions:pop_vlan,eth0"
    )


def test_flows_are_found_by_their_text_and_port_and_place() -> None:
    assert Wanted(("eth_type(0x0800)", "vid=57"), "eth1", True).matches(FLOW)
    assert not Wanted(("eth_type(0x0806)",)).matches(FLOW)
    assert not Wanted((), "eth0").matches(FLOW)
    assert not Wanted((), "eth1", False).matches(FLOW)


def test_what_is_wanted_is_said_in_words() -> None:
    assert str(Wanted(("eth_type(0x0800)", "tcp"), "eth1", True)) == (
        "offloaded flow from eth1 with eth_type(0x0800) and tcp"
    )
    assert str(Wanted()) == "flow"
