# SPDX-License-Identifier: Apache-2.0
"""Translation of addresses and ports: in both directions, in errors, with ranges and when ports are taken."""

from __future__ import annotations

import pytest

from asap2.nic.conntrack.tracker import DroppedError
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct, CtState
from tests.unit.nic.conntrack.packets import (
    ACK,
    CLIENT,
    CLIENT6,
    EST,
    NEW,
    OUTSIDE,
    REL,
    ROUTER,
    RPL,
    SERVER,
    SERVER6,
    SYN,
    TRK,
    End,
    Firewall,
    address,
    datagram,
    icmp,
    ports,
    right,
    udp,
)

OUTSIDE6 = "fd00::ff"
SNAT, DNAT = CtState.SNAT, CtState.DNAT
BACK = Ct(nat=Nat(None))


def nat(kind: NatKind, first: str = OUTSIDE, last: str = "", low: int = 0, high: int = 0, **flags: bool) -> Ct:
    return Ct(commit=True, nat=Nat(kind, address(first), address(last or first), low, high or low, **flags))


def source(data: bytes) -> tuple[bytes, int]:
    return (
        (data[12:16], int.from_bytes(data[20:22])) if data[0] >> 4 == 4 else (data[8:24], int.from_bytes(data[40:42]))
    )


def destination(data: bytes) -> tuple[bytes, int]:
    return (
        (data[16:20], int.from_bytes(data[22:24])) if data[0] >> 4 == 4 else (data[24:40], int.from_bytes(data[42:44]))
    )


def sctp(src: str, dst: str, sport: int, dport: int) -> bytes:
    return datagram(src, dst, 132, ports(sport, dport) + bytes(8) + b"\1\0\0\x14\0\0\0\5" + bytes(12))


def tcp(src: str, dst: str, sport: int, dport: int) -> bytes:
    here, there = End(src, sport, 1), End(dst, dport, 1, heard=2)
    return here.segment(there, SYN)


@pytest.mark.parametrize("ends", [(CLIENT, SERVER, OUTSIDE), (CLIENT6, SERVER6, OUTSIDE6)], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("make", [udp, tcp, sctp])
def test_the_source_is_translated_there_and_back(ends: tuple[str, str, str], make) -> None:  # type: ignore[no-untyped-def]
    wall, (client, server, outside) = Firewall(), ends
    assert wall.see(make(client, server, 1000, 80), nat(NatKind.SRC, outside)) == TRK | NEW | SNAT
    assert source(wall.data) == (address(outside), 1000)
    assert right(wall.data)
    assert wall.fields["ct_src"] == int.from_bytes(address(client), "big")
    if make is udp:
        assert wall.see(make(server, outside, 80, 1000), BACK) == TRK | EST | RPL | DNAT
        assert destination(wall.data) == (address(client), 1000)
        assert right(wall.data)
        assert wall.see(make(client, server, 1000, 80), BACK) == TRK | EST | SNAT
        assert source(wall.data) == (address(outside), 1000)


@pytest.mark.parametrize("make", [udp, tcp, sctp])
def test_the_destination_is_translated_there_and_back(make) -> None:  # type: ignore[no-untyped-def]
    wall = Firewall()
    assert wall.see(make(CLIENT, OUTSIDE, 1000, 80), nat(NatKind.DST, SERVER, low=8080)) == TRK | NEW | SNAT | DNAT
    assert destination(wall.data) == (address(SERVER), 8080)
    assert right(wall.data)
    if make is udp:
        wall.see(make(SERVER, CLIENT, 8080, 1000), BACK)
        assert source(wall.data) == (address(OUTSIDE), 80)
        assert right(wall.data)


def test_without_commit_a_new_connection_is_not_translated() -> None:
    wall = Firewall()
    sent = udp(CLIENT, SERVER)
    assert wall.see(sent, BACK) == TRK | NEW
    assert wall.data == sent


def test_a_port_that_is_taken_becomes_another() -> None:
    wall = Firewall()
    one = nat(NatKind.SRC)
    wall.see(udp(CLIENT, SERVER), one)
    wall.see(udp(ROUTER, SERVER), one, entropy=5)
    assert source(wall.data) == (address(OUTSIDE), 605)
    wall.see(udp(SERVER, OUTSIDE, 53, 605), BACK)
    assert destination(wall.data) == (address(ROUTER), 1000)


def test_when_no_port_is_left_the_packet_is_dropped_and_others_live() -> None:
    wall = Firewall()
    one = nat(NatKind.SRC, low=7, high=8)
    for client in (CLIENT, ROUTER):
        wall.see(udp(client, SERVER), one)
    with pytest.raises(DroppedError):
        wall.see(udp("10.0.0.9", SERVER), one)
    assert wall.see(udp(SERVER, OUTSIDE, 53, 7), BACK) & EST
    assert wall.see(udp(SERVER, OUTSIDE, 53, 8), BACK) & EST


def test_addresses_of_a_range_are_all_used() -> None:
    wall = Firewall()
    pool = nat(NatKind.SRC, "192.0.2.1", "192.0.2.4")
    for client in range(1, 100):
        wall.see(udp(f"10.2.0.{client}", SERVER), pool)
        assert address("192.0.2.1") <= source(wall.data)[0] <= address("192.0.2.4")
    assert len({one.tuples[1].dst for one in wall.tracker.connections()}) == 4


def test_persistent_does_not_depend_on_the_destination() -> None:
    pool = nat(NatKind.SRC, "192.0.2.1", "192.0.2.200", persistent=True)
    seen = set()
    for server in range(1, 20):
        wall = Firewall()
        wall.see(udp(CLIENT, f"10.1.0.{server}"), pool)
        seen.add(source(wall.data)[0])
    assert len(seen) == 1


@pytest.mark.parametrize("flags", [{"hash": True}, {"random": True}])
def test_a_random_port_is_chosen_even_when_its_own_is_free(flags: dict[str, bool]) -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), nat(NatKind.SRC, OUTSIDE, "", 5000, 5999, **flags), entropy=123)
    assert source(wall.data)[1] == 5123


def test_an_identifier_of_icmp_is_translated() -> None:
    wall = Firewall()
    one = nat(NatKind.SRC)
    wall.see(icmp(CLIENT, SERVER, 8), one)
    wall.see(icmp(ROUTER, SERVER, 8), one, entropy=99)
    assert right(wall.data)
    assert int.from_bytes(wall.data[24:26], "big") == 99
    wall.see(icmp(SERVER, OUTSIDE, 0, 99), BACK)
    assert destination(wall.data)[0] == address(ROUTER)
    assert int.from_bytes(wall.data[24:26], "big") == 7
    assert right(wall.data)


@pytest.mark.parametrize(
    "ends", [(CLIENT, SERVER, OUTSIDE, 3, ROUTER), (CLIENT6, SERVER6, OUTSIDE6, 1, "fd00::254")], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_an_error_is_about_is_translated_too(ends: tuple[str, str, str, int, str], whole: bool) -> None:
    wall, (client, server, outside, unreachable, router) = Firewall(), ends
    sent = udp(client, server)
    wall.see(sent, nat(NatKind.SRC, outside, low=4444))
    left = wall.data
    about = left if whole else left[: 28 if unreachable == 3 else 48]
    assert wall.see(icmp(router, outside, unreachable, 0, body=about), BACK) == TRK | REL | RPL | DNAT
    assert destination(wall.data)[0] == address(client)
    assert right(wall.data)
    header = 28 if unreachable == 3 else 48
    assert wall.data[header:] == (sent if whole else sent[: len(about)])
    again = wall.data
    assert wall.see(wall.data, BACK, wall.fields, wall.seen) == TRK | REL | RPL | DNAT
    assert wall.data == again


def test_an_error_is_translated_in_the_original_direction_by_who_commits() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), nat(NatKind.SRC))
    wall.see(udp(SERVER, OUTSIDE, 53, 1000), BACK)
    about = wall.data
    error = icmp(CLIENT, SERVER, 3, 0, code=3, body=about)
    assert wall.see(error, BACK) == TRK | REL
    assert wall.data == error
    wall.see(error, nat(NatKind.SRC))
    assert source(wall.data)[0] == address(OUTSIDE)
    assert right(wall.data)


def test_a_connection_without_a_range_keeps_its_address_and_avoids_ports_that_are_taken() -> None:
    wall = Firewall()
    wall.see(udp("10.0.0.9", SERVER, 3000), nat(NatKind.SRC, CLIENT))
    wall.see(udp(CLIENT, SERVER, 3000), Ct(commit=True, nat=Nat(NatKind.SRC)), entropy=10)
    assert source(wall.data) == (address(CLIENT), 1034)


def test_a_range_of_the_other_family_is_none() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER, 3000), nat(NatKind.SRC, "2001:db8::1"))
    assert source(wall.data) == (address(CLIENT), 3000)


def test_zones_choose_ports_of_their_own() -> None:
    wall = Firewall()
    for zone in (1, 2):
        wall.see(
            udp(f"10.0.0.{zone}", SERVER),
            Ct(zone, commit=True, nat=Nat(NatKind.SRC, address(OUTSIDE), address(OUTSIDE))),
        )
        assert source(wall.data)[1] == 1000


def test_a_packet_is_translated_once_in_a_zone() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), nat(NatKind.SRC))
    left, fields = wall.data, wall.fields
    assert wall.see(left, nat(NatKind.SRC), fields) == TRK | NEW | SNAT
    assert wall.data == left
    (connection,) = wall.tracker.connections()
    assert connection.packets == [1, 0]


def test_a_redirect_of_what_is_translated_is_dropped() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), nat(NatKind.SRC))
    with pytest.raises(DroppedError):
        wall.see(icmp(ROUTER, OUTSIDE, 5, 0, body=wall.data), BACK)


def test_a_handshake_through_nat() -> None:
    wall = Firewall()
    client, outside, server = End(CLIENT, 1000, 5), End(OUTSIDE, 1000, 5), End(SERVER, 80, 9)
    wall.see(client.segment(server, SYN), nat(NatKind.SRC))
    outside.heard = client.heard
    wall.see(server.segment(outside, SYN | ACK), BACK)
    client.heard = outside.heard
    assert destination(wall.data) == (address(CLIENT), 1000)
    assert wall.see(client.segment(server, ACK), BACK) == TRK | EST | SNAT
    assert source(wall.data) == (address(OUTSIDE), 1000)
    assert right(wall.data)
