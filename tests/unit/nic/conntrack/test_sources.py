# SPDX-License-Identifier: Apache-2.0
"""A source keeps its translation for other connections, and the port of a closed connection is used again."""

from __future__ import annotations

import pytest

from asap2.nic.conntrack.tracker import DroppedError
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct
from tests.unit.nic.conntrack.packets import (
    ACK,
    CLIENT,
    CLIENT6,
    FIN,
    OUTSIDE,
    ROUTER,
    RST,
    SERVER,
    SERVER6,
    SYN,
    End,
    Firewall,
    address,
    icmp,
    udp,
)

SERVERS = ("10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4")


def nat(low: int = 2000, high: int = 2999, first: str = OUTSIDE, last: str = "", **flags: bool) -> Ct:
    return Ct(commit=True, nat=Nat(NatKind.SRC, address(first), address(last or first), low, high, **flags))


def source(data: bytes) -> tuple[bytes, int]:
    start, size, header = (12, 4, 20) if data[0] >> 4 == 4 else (8, 16, 40)
    return data[start : start + size], int.from_bytes(data[header : header + 2])


def test_another_connection_of_a_source_is_translated_as_the_first() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), nat(), entropy=5)
    assert source(wall.data) == (address(OUTSIDE), 2005)
    for entropy, server in enumerate(SERVERS):
        wall.see(udp(CLIENT, server), nat(), entropy=entropy)
        assert source(wall.data) == (address(OUTSIDE), 2005)


def test_another_connection_of_a_source_keeps_its_address_of_the_pool() -> None:
    wall = Firewall()
    chosen = set()
    for server in SERVERS:
        wall.see(udp(CLIENT, server), nat(0, 0, "192.0.2.1", "192.0.2.200"))
        chosen.add(source(wall.data))
    assert len(chosen) == 1


def test_an_identifier_is_kept_too() -> None:
    wall = Firewall()
    for entropy, server in enumerate(SERVERS):
        wall.see(icmp(CLIENT, server, 8), nat(), entropy=entropy)
        assert int.from_bytes(wall.data[24:26]) == 2000


@pytest.mark.parametrize(
    ("other", "action"),
    [
        (udp(ROUTER, SERVERS[0]), nat()),
        (udp(CLIENT, SERVERS[0], 1001), nat()),
        (udp(CLIENT, SERVERS[0]), Ct(3, commit=True, nat=nat().nat)),
        (udp(CLIENT, SERVERS[0]), nat(random=True)),
        (udp(CLIENT, SERVERS[0]), nat(2000, 2004)),
        (End(CLIENT, 1000, 1).segment(End(SERVERS[0], 53, 1), SYN), nat()),
    ],
    ids=["address", "port", "zone", "random", "range", "protocol"],
)
def test_a_source_keeps_nothing_where_something_else_is_wanted(other: bytes, action: Ct) -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), nat(), entropy=5)
    wall.see(other, action, entropy=1)
    assert source(wall.data)[1] == 2001


def test_a_mapping_that_is_taken_for_this_server_is_not_kept() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), nat(), entropy=5)
    wall.see(udp(ROUTER, SERVERS[0]), nat(), entropy=5)
    wall.see(udp(CLIENT, SERVERS[0]), nat(), entropy=9)
    assert source(wall.data)[1] == 2009


def test_the_mapping_lives_as_long_as_a_connection_that_has_it() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), nat(), entropy=5)
    wall.see(udp(CLIENT, SERVERS[0]), nat())
    _first, second = wall.tracker.connections()
    wall.tracker.remove(second)
    wall.see(udp(CLIENT, SERVERS[1]), nat())
    assert source(wall.data)[1] == 2005
    for one in list(wall.tracker.connections()):
        wall.tracker.remove(one)
    wall.see(udp(CLIENT, SERVERS[1]), nat())
    assert source(wall.data)[1] == 2000


def test_of_two_mappings_the_one_given_last_is_kept_and_a_third_is_not_known() -> None:
    wall = Firewall()
    for port, server in zip((2001, 2002, 2003), SERVERS, strict=False):
        wall.see(udp(CLIENT, server), nat(port, port))
    wall.see(udp(CLIENT, SERVERS[3]), nat(), entropy=9)
    assert source(wall.data)[1] == 2002
    second = list(wall.tracker.connections())[1]
    wall.tracker.remove(second)
    wall.see(udp(CLIENT, SERVERS[1], dport=54), nat(2001, 2001))
    wall.see(udp(CLIENT, SERVERS[3], dport=54), nat())
    assert source(wall.data)[1] == 2001


def test_over_ipv6() -> None:
    wall = Firewall()
    for entropy, port in enumerate((53, 54, 55)):
        wall.see(udp(CLIENT6, SERVER6, dport=port), nat(first="fd00::ff"), entropy=entropy)
        assert source(wall.data) == (address("fd00::ff"), 2000)


def closed(wall: Firewall, *, reset: bool = False, seq: int = 1000) -> None:
    """A connection from the client to port 80 that is translated, and over."""
    here, there = End(CLIENT, 1000, seq), End(SERVER, 80, 9000)
    back = Ct(nat=Nat(None))

    def answer(flags: int) -> None:
        there.segment(here, flags)
        outside = End(SERVER, 80, there.seq - bool(flags & (SYN | FIN)), heard=there.heard)
        wall.see(outside.segment(End(OUTSIDE, 2000, 0), flags), back)

    wall.see(here.segment(there, SYN), nat(2000, 2001))
    answer(SYN | ACK)
    wall.see(here.segment(there, ACK), back)
    if reset:
        wall.see(here.segment(there, RST | ACK), back)
        return
    wall.see(here.segment(there, FIN | ACK), back)
    answer(FIN | ACK)
    wall.see(here.segment(there, ACK), back)


def begins(wall: Firewall, client: str, seq: int, flags: int = SYN) -> int:
    """Another client's segment to the same server: the port that it is given."""
    wall.see(End(client, 1000, seq, heard=1).segment(End(SERVER, 80, 1), flags), nat(2000, 2001))
    return source(wall.data)[1]


@pytest.mark.parametrize("reset", [False, True])
def test_the_port_of_a_connection_that_is_over_is_used_again(reset: bool) -> None:
    wall = Firewall()
    closed(wall, reset=reset)
    assert begins(wall, ROUTER, 5000) == 2000
    assert [one.tuples[0].src for one in wall.tracker.connections()] == [address(ROUTER)]


def test_a_port_is_not_used_again_by_numbers_that_the_old_connection_has_had() -> None:
    wall = Firewall()
    closed(wall, seq=7000)
    assert begins(wall, ROUTER, 5000) == 2001
    with pytest.raises(DroppedError):
        begins(wall, "10.0.0.9", 5000)


def test_a_port_is_not_used_again_by_a_connection_that_is_picked_up() -> None:
    wall = Firewall()
    closed(wall)
    assert begins(wall, ROUTER, 5000, ACK) == 2001


def test_an_open_connection_keeps_its_port() -> None:
    wall = Firewall()
    assert begins(wall, CLIENT, 1000) == 2000
    assert begins(wall, ROUTER, 5000) == 2001
    with pytest.raises(DroppedError):
        begins(wall, "10.0.0.9", 9000)
