# SPDX-License-Identifier: Apache-2.0
"""The parts of verification that need no NIC: the filter, traffic over loopback, the verdict."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading

import pytest

from asap2.errors import Asap2Error, UsageError
from asap2.host.explain.flow import parse
from asap2.host.kernel import namespaces
from asap2.host.verify import traffic, watch
from asap2.host.verify.endpoint import Guest, port_of
from asap2.host.verify.verify import FlowSeen, carries, judge, through
from tests.unit.host.hosts import offloading

MACS = bytes(12)


def passes(code: list[tuple[int, int, int, int]], packet: bytes) -> bool:
    """Run a filter as the kernel's interpreter does (Documentation/networking/filter.rst)."""
    sizes = {watch.LD: 4, watch.LDH: 2, watch.LDB: 1}
    accumulator, at = 0, 0
    while True:
        op, yes, no, value = code[at]
        at += 1
        if op in sizes:
            if value + sizes[op] > len(packet):
                return False
            accumulator = int.from_bytes(packet[value : value + sizes[op]], "big")
        elif op == watch.JEQ:
            at += yes if accumulator == value else no
        else:
            return bool(value)


def packet(source: str, destination: str, protocol: int) -> bytes:
    """The headers of an IP packet."""
    one, other = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if one.version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20, 0, 0, 64, protocol, 0)
        return MACS + b"\x08\x00" + header + one.packed + other.packed
    return MACS + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, 0, protocol, 64) + one.packed + other.packed


@pytest.mark.parametrize(
    ("one", "other", "third"), [("10.0.0.1", "10.0.0.2", "10.0.0.3"), ("fd00::1", "fd00::2", "fd00::3")]
)
def test_the_filter_takes_one_protocol_between_two_addresses_either_way(one: str, other: str, third: str) -> None:
    code = watch.between(one, other, 17)
    assert passes(code, packet(one, other, 17))
    assert passes(code, packet(other, one, 17))
    assert not passes(code, packet(one, other, 6))
    assert not passes(code, packet(one, third, 17))
    assert not passes(code, packet(third, other, 17))
    assert not passes(code, packet(one, one, 17))
    assert not passes(code, MACS + b"\x08\x06" + bytes(46))
    assert all(0 <= no <= 255 for _, _, no, _ in code)


# ---- traffic over loopback


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def echo() -> int:
    """A port that echoes for a while."""
    port, ready = free_port(), threading.Event()
    threading.Thread(target=traffic.serve, args=(port, 8.0, ready.set), daemon=True).start()
    assert ready.wait(5)
    return port


def test_echoed_traffic_is_counted_both_ways(echo: int) -> None:
    sent = traffic.udp("127.0.0.1", 100, None, echo)
    assert (sent.sent, sent.received, sent.how) == (51, 51, "echo")
    sent = traffic.tcp("127.0.0.1", 100, None, echo)
    assert sent.how == "echo"
    assert 100 <= sent.sent + sent.received <= 220


def test_where_nobody_listens_traffic_is_one_way_and_handshakes() -> None:
    assert traffic.udp("127.0.0.1", 50, None, free_port()).how == "one way"
    sent = traffic.tcp("127.0.0.1", 40, None, free_port())
    assert (sent.sent, sent.received, sent.how) == (20, 20, "handshakes")


# ---- verdicts


def seen(offloaded: bool, packets: int = 500, reason: str | None = None) -> FlowSeen:
    return FlowSeen("u", "out", packets, offloaded, (), reason, "x" if reason else None)


@pytest.mark.parametrize(
    ("total", "by_host", "flows", "good", "words"),
    [
        (1000, 1, (seen(True),), True, "offloaded: 1 of 1000 packets reached the host"),
        (1000, 10, (seen(True),), True, "offloaded: 10 of 1000"),
        (1000, 11, (seen(True),), False, "came to be only meanwhile"),
        (1000, 500, (seen(True), seen(True)), False, "while a tunnel's neighbour is not known"),
        (100_000, 900, (seen(True),), True, "offloaded: 900 of 100000"),
        (1000, 998, (seen(False, reason="action.ct"),), False, "998 of 1000 packets reached the host (action.ct: x)"),
        (1000, 998, (), False, "no flow carried them"),
        (1000, 0, (), False, "not proven: 0 of 1000 packets reached the host"),
        (0, 0, (), False, "nothing was seen"),
    ],
)
def test_a_verdict_needs_few_packets_at_the_host_and_a_flow_that_counted(
    total: int, by_host: int, flows: tuple[FlowSeen, ...], good: bool, words: str
) -> None:
    offloaded, said = judge(total, by_host, flows)
    assert offloaded is good
    assert words in said


FLOW = "in_port(eth0),eth(src=02:00:00:00:00:01),eth_type(0x0800),ipv4(proto={},frag=no), actions:{}"


def test_a_flow_carries_the_protocols_that_it_matches() -> None:
    assert carries(parse(FLOW.format("17", "eth1")), 17)
    assert not carries(parse(FLOW.format("6", "eth1")), 17)
    assert carries(parse(FLOW.format("6/0", "eth1")), 17)
    assert not carries(parse("in_port(eth0),eth_type(0x0806),arp(op=1), actions:eth1"), 1)


def test_what_a_flow_goes_through_is_told() -> None:
    assert through(parse(FLOW.format(6, "push_vlan(vid=57,pcp=0),eth1"))) == ("vlan 57",)
    tagged = "in_port(eth1),eth_type(0x8100),vlan(vid=57,pcp=0/0x0),encap(eth_type(0x0800)), actions:pop_vlan,eth0"
    assert through(parse(tagged)) == ("vlan 57",)
    out = FLOW.format(6, "set(tunnel(tun_id=0x4d,dst=172.16.0.2,ttl=64,tp_dst=4789,flags(df|key))),vxlan_sys_4789")
    assert through(parse(out)) == ("tunnel 77 to 172.16.0.2 over vxlan_sys_4789",)
    into = f"tunnel(tun_id=0x4d,src=172.16.0.2,dst=172.16.0.1),{FLOW.format(6, 'eth0')}".replace(
        "(eth0)", "(vxlan_sys_4789)"
    )
    assert through(parse(into)) == ("tunnel 77 at vxlan_sys_4789",)


# ---- ends


@pytest.mark.parametrize("name", ["eth1", "0000:03:00.3", "03:00.3", "enp3s0f0v1"])
def test_a_vf_is_found_by_each_of_its_names(name: str) -> None:
    port = port_of(offloading(), name)
    assert (port.vf.index, port.representor.name) == (1, "eth1")


@pytest.mark.parametrize("name", ["enp3s0f0", "eth9", "br-int"])
def test_what_is_no_vf_is_said(name: str) -> None:
    with pytest.raises(UsageError, match="is no VF of this host"):
        port_of(offloading(), name)


def test_a_guest_sends_from_an_address_of_the_peers_kind() -> None:
    guest = Guest(None, "eth0", ("10.0.0.1", "fd00::1"))
    assert (guest.address_for("10.0.0.2"), guest.address_for("fd00::2")) == ("10.0.0.1", "fd00::1")
    with pytest.raises(Asap2Error, match="has no IPv6 address"):
        Guest(None, "eth0", ("10.0.0.1",)).address_for("fd00::2")


@pytest.mark.parametrize("name", ["nowhere", "../../proc/1/ns/net", "99999999"])
def test_a_namespace_that_is_not_there_is_said(name: str) -> None:
    with pytest.raises(UsageError, match="there is no network namespace"):
        namespaces.path_of(name)
