# SPDX-License-Identifier: Apache-2.0
"""Packets and rules in words."""

from __future__ import annotations

import pytest

from asap2.errors import UsageError
from asap2.nic.rules import VLAN_PRESENT, Encap, Masked, Match, Output, PopVlan, PushVlan, Rule
from asap2.trace import words
from asap2.trace.filter import Filter
from asap2.trace.identity import holds, identity
from asap2.trace.known_rules import differing
from tests.unit.trace.frames import ONE, OTHER, echo, ipv4, tagged, tcp


def test_a_packet_says_who_talks_to_whom() -> None:
    assert words.frame(echo(8, 3), 98) == "ICMP echo request 10.57.0.1 > 10.57.0.2 seq 3, 98 octets"
    assert words.frame(tagged(echo(0, 3), 52), 102) == (
        "ICMP echo reply 10.57.0.2 > 10.57.0.1 seq 3, VLAN 52, 102 octets"
    )
    assert words.echo_of(tagged(tagged(echo(0, 3), 52), 7)) == words.echo_of(echo(0, 3)) == (7, 3)
    assert words.frame(tcp(), 54) == "TCP 10.57.0.1:40000 > 10.57.0.2:80 SYN, 54 octets"
    arp = OTHER + ONE + bytes.fromhex("0806 0001 0800 06 04 0001") + ONE + bytes([10, 57, 0, 1]) + bytes(6)
    assert words.frame(arp + bytes([10, 57, 0, 2]), 42) == "ARP who has 10.57.0.2, tell 10.57.0.1, 42 octets"
    assert words.frame(b"\1\2", 2) == "2 octets"


@pytest.mark.parametrize("length", range(80))
def test_a_packet_that_is_cut_anywhere_has_words(length: int) -> None:
    for frame in (echo(8, 1), tagged(tcp(), 5), ipv4(17, bytes(8))):
        assert words.frame(frame[:length], len(frame)).endswith(f"{len(frame)} octets")


def test_a_rule_says_what_it_wants_and_does() -> None:
    match = Match(
        eth_type=Masked(0x0800, 0xFFFF),
        ip_dst=Masked(0x0A390000, 0xFFFFFF00),
        vlan_tci=Masked(VLAN_PRESENT | 52, 0x1FFF),
        ct_state=Masked(0x22, 0x23),
    )
    rule = Rule(0, 1, 1, match, (PopVlan(), PushVlan(7), Encap("vxlan", 98, bytes(4), bytes([10, 0, 0, 2])), Output(5)))
    assert words.match(rule) == ("eth_type IPv4", "ip_dst 10.57.0.0/24", "vlan 52", "ct_state -new+est+trk")
    assert words.actions(rule, lambda port: f"eth{port}") == (
        *("pop VLAN", "push VLAN 7", "encapsulate in vxlan 98 to 10.0.0.2", "output eth5"),
    )
    assert words.actions(Rule(0, 1, 1), str) == ("drop",)
    assert words.match(Rule(0, 1, 1, Match(vlan_tci=Masked(0, 0x1FFF)))) == ("vlan none",)


def test_fields_that_differ_are_named_with_both_values() -> None:
    assert words.changes(echo(8, 1), tagged(echo(8, 1), 52)) == (("vlan", "none", "52"),)
    assert words.changes(echo(8, 1), echo(8, 1)) == ()
    lower = bytearray(echo(8, 1))
    lower[22] -= 1
    assert words.changes(echo(8, 1), bytes(lower)) == (("ip_ttl", "64", "63"),)


def test_why_a_rule_is_not_for_a_packet() -> None:
    match = Match(eth_type=Masked(0x0800, 0xFFFF), ip_proto=Masked(6, 0xFF), ct_state=Masked(2, 2))
    assert differing(match, echo(8, 1)) == ("ip_proto TCP",)
    assert differing(match, tcp()) == ()
    assert differing(match, tcp(), {"ct_state": 0x21}) == ("ct_state +est",)


def test_a_checksum_that_a_device_completes_is_no_difference() -> None:
    assert identity(tcp(checksum=1)) == identity(tcp(checksum=2))
    assert identity(tcp(flags=2)) != identity(tcp(flags=16))
    assert holds(ipv4(17, bytes(16) + tcp()), tcp())
    assert not holds(tcp(), tcp())


def test_a_filter_is_libpcaps() -> None:
    wanted = Filter("tcp port 80")
    assert wanted.takes(tcp())
    assert not wanted.takes(echo(8, 1))
    with pytest.raises(UsageError, match=r"'tcp prt 80' is no filter: .*; `man pcap-filter`"):
        Filter("tcp prt 80")
