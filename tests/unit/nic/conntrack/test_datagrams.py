# SPDX-License-Identifier: Apache-2.0
"""Connections of UDP, ICMP, SCTP, GRE and other protocols; zones, marks, labels, expiry."""

from __future__ import annotations

import pytest

from asap2.nic.conntrack.states import SctpState, Status, Timeouts
from asap2.nic.conntrack.tracker import DroppedError
from asap2.nic.rules import Ct, Masked
from tests.unit.nic.conntrack.packets import (
    CLIENT,
    CLIENT6,
    COMMIT,
    EST,
    INV,
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
    udp,
)


def test_udp_that_goes_on_in_both_directions_is_a_stream() -> None:
    wall = Firewall()
    assert wall.see(udp(CLIENT, SERVER)) == TRK | NEW
    assert wall.see(udp(CLIENT, SERVER)) == TRK | NEW
    assert wall.lifetime == 30
    assert wall.see(udp(SERVER, CLIENT, 53, 1000)) == TRK | EST | RPL
    assert wall.see(udp(CLIENT, SERVER)) == TRK | EST
    assert wall.lifetime == 30
    wall.wait(3)
    wall.see(udp(CLIENT, SERVER))
    assert wall.lifetime == 120
    (connection,) = wall.tracker.connections()
    assert connection.status & Status.ASSURED
    assert (connection.packets, connection.bytes) == ([4, 1], [4 * 33, 33])


def test_what_has_expired_is_not_there() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER))
    wall.wait(29.9)
    assert len(list(wall.tracker.connections())) == 1
    wall.wait(0.1)
    assert wall.see(udp(SERVER, CLIENT, 53, 1000)) == TRK | NEW
    assert wall.see(udp(CLIENT, SERVER)) == TRK | EST | RPL, "it is the other's answer now"


def test_expired_connections_are_swept() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER))
    wall.wait(20)
    wall.see(udp(CLIENT, SERVER, 1001))
    wall.wait(15)
    assert [one.tuples[0].sport for one in wall.tracker.sweep()] == [1000]
    assert [one.tuples[0].sport for one in wall.tracker.connections()] == [1001]


def test_of_two_first_packets_udp_makes_one_connection_and_others_lose_one() -> None:
    wall, look = Firewall(), Ct()
    segment = End(CLIENT, 1000, 5).segment(End(SERVER, 80, 9), SYN)
    for first, second, may in (
        (udp(CLIENT, SERVER), udp(CLIENT, SERVER), True),
        (udp(CLIENT, SERVER, 7, 8), udp(SERVER, CLIENT, 8, 7), True),
        (segment, segment, False),
    ):
        wall.see(second, look)
        late, fields = wall.seen, wall.fields
        wall.see(first)
        (connection,) = wall.tracker.connections()
        if may:
            wall.see(second, COMMIT, fields, late)
            assert connection.packets == [2, 0]
            assert wall.seen
            assert wall.seen.connection is connection
        else:
            with pytest.raises(DroppedError):
                wall.see(second, COMMIT, fields, late)
        wall.tracker.remove(connection)


def test_a_connection_with_itself_is_one_connection() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, CLIENT, 53, 53))
    assert wall.see(udp(CLIENT, CLIENT, 53, 53)) == TRK | EST | RPL, "the hash table has its answer first"
    assert [one.tuples[0].sport for one in wall.tracker.connections()] == [53]
    wall.wait(200)
    assert len(wall.tracker.sweep()) == 1
    assert not list(wall.tracker.connections())


@pytest.mark.parametrize("length", [7, 50])
def test_udp_whose_length_lies_is_invalid(length: int) -> None:
    wall = Firewall()
    lying = datagram(CLIENT, SERVER, 17, ports(1, 2) + length.to_bytes(2, "big") + bytes(2) + b"hello")
    assert wall.see(lying) == TRK | INV


@pytest.mark.parametrize(
    ("ends", "request_type", "answer_type"), [((CLIENT, SERVER), 8, 0), ((CLIENT6, SERVER6), 128, 129)]
)
def test_a_ping_and_its_answer(ends: tuple[str, str], request_type: int, answer_type: int) -> None:
    wall, (client, server) = Firewall(), ends
    assert wall.see(icmp(client, server, answer_type)) == TRK | INV
    assert wall.see(icmp(client, server, request_type)) == TRK | NEW
    assert (wall.fields["ct_tp_src"], wall.fields.get("ct_tp_dst", 0)) == (request_type, 0)
    assert wall.see(icmp(server, client, answer_type)) == TRK | EST | RPL
    assert wall.see(icmp(server, client, answer_type, 8)) == TRK | INV, "of another identifier"
    assert wall.see(icmp(client, server, request_type)) == TRK | EST
    assert wall.lifetime == 30


def test_neighbour_discovery_is_not_tracked() -> None:
    wall = Firewall()
    for kind in (130, 133, 134, 135, 136, 143):
        assert wall.see(icmp(CLIENT6, SERVER6, kind)) == TRK | INV
    assert not list(wall.tracker.connections())


def test_an_error_about_a_connection_is_related() -> None:
    wall = Firewall()
    sent = udp(CLIENT, SERVER)
    wall.see(sent)
    assert wall.see(icmp(ROUTER, CLIENT, 3, 0, code=3, body=sent)) == TRK | REL | RPL
    assert wall.fields["ct_dst"] == int.from_bytes(address(SERVER), "big")
    assert wall.see(icmp(ROUTER, CLIENT, 11, 0, body=sent[:28])) == TRK | REL | RPL
    assert wall.see(icmp(ROUTER, OUTSIDE, 3, 0, code=3, body=sent)) == TRK | INV, "not where that packet came from"
    assert wall.see(icmp(ROUTER, CLIENT, 3, 0, body=udp(CLIENT, SERVER, 999))) == TRK | INV
    assert wall.see(icmp(ROUTER, CLIENT, 3, 0, body=sent[:23])) == TRK | INV
    assert wall.see(icmp(ROUTER, CLIENT, 42, 0)) == TRK | INV


def test_an_error_of_ipv6_is_related() -> None:
    wall = Firewall()
    sent = udp(CLIENT6, SERVER6)
    wall.see(sent)
    assert wall.see(icmp(SERVER6, CLIENT6, 1, 0, code=4, body=sent)) == TRK | REL | RPL


def test_an_error_in_the_original_direction_is_related_too() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER))
    assert wall.see(icmp(CLIENT, SERVER, 3, 0, code=3, body=udp(SERVER, CLIENT, 53, 1000))) == TRK | REL


def test_other_protocols_have_no_ports() -> None:
    wall = Firewall()
    assert wall.see(datagram(CLIENT, SERVER, 99, b"")) == TRK | NEW
    assert wall.see(datagram(SERVER, CLIENT, 99, b"data")) == TRK | EST | RPL
    assert wall.lifetime == 600


def test_gre_in_both_directions_is_a_stream() -> None:
    wall = Firewall()
    plain = bytes(2) + b"\x08\x00"
    assert wall.see(datagram(CLIENT, SERVER, 47, plain)) == TRK | NEW
    assert wall.lifetime == 30
    assert wall.see(datagram(SERVER, CLIENT, 47, plain)) == TRK | EST | RPL
    assert wall.see(datagram(CLIENT, SERVER, 47, plain)) == TRK | EST
    assert wall.lifetime == 180
    (connection,) = wall.tracker.connections()
    assert connection.status & Status.ASSURED
    assert wall.see(datagram(CLIENT, SERVER, 47, b"\x20\x01\x88\x0b" + bytes(4))) == TRK | EST, "call 0 of PPTP"
    assert wall.see(datagram(CLIENT, SERVER, 47, b"\x20\x01\x08\x00" + bytes(4))) == TRK | INV


def chunk(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return bytes([kind, flags]) + (4 + len(body)).to_bytes(2, "big") + body


def sctp(src: str, dst: str, tag: int, *chunks: bytes) -> bytes:
    ends = ports(5000, 6000) if src == CLIENT else ports(6000, 5000)
    return datagram(src, dst, 132, ends + tag.to_bytes(4, "big") + bytes(4) + b"".join(chunks))


def init(kind: int, tag: int) -> bytes:
    return chunk(kind, tag.to_bytes(4, "big") + bytes(12))


def test_an_association_of_sctp() -> None:
    wall = Firewall()
    ours, theirs = 0x1111, 0x2222
    steps = [
        (sctp(CLIENT, SERVER, 0, init(1, ours)), TRK | NEW, SctpState.CLOSED),
        (sctp(SERVER, CLIENT, ours, init(2, theirs)), TRK | EST | RPL, SctpState.COOKIE_WAIT),
        (sctp(CLIENT, SERVER, theirs, chunk(10, b"cook")), TRK | EST, SctpState.COOKIE_ECHOED),
        (sctp(SERVER, CLIENT, ours, chunk(11)), TRK | EST | RPL, SctpState.ESTABLISHED),
        (sctp(CLIENT, SERVER, theirs, chunk(0, bytes(16))), TRK | EST, SctpState.ESTABLISHED),
        (sctp(CLIENT, SERVER, theirs, chunk(7, bytes(4))), TRK | EST, SctpState.SHUTDOWN_SENT),
        (sctp(SERVER, CLIENT, ours, chunk(8)), TRK | EST | RPL, SctpState.SHUTDOWN_ACK_SENT),
        (sctp(CLIENT, SERVER, theirs, chunk(14)), TRK | EST, SctpState.CLOSED),
    ]
    for packet, state, association in steps:
        assert wall.see(packet) == state
        (connection,) = wall.tracker.connections()
        assert connection.sctp.state is association
    assert wall.see(sctp(CLIENT, SERVER, 0x3333, chunk(0, bytes(16)))) == TRK | INV, "a tag that is not theirs"


@pytest.mark.parametrize(
    "chunks", [(), (chunk(6),), (chunk(11),), (init(1, 5), chunk(0)), (chunk(0), chunk(10)), (b"\0\0\0\0",)]
)
def test_no_association_begins_so(chunks: tuple[bytes, ...]) -> None:
    assert Firewall().see(sctp(CLIENT, SERVER, 0, *chunks)) == TRK | INV


def test_zones_are_separate() -> None:
    wall = Firewall()
    assert wall.see(udp(CLIENT, SERVER), Ct(1, commit=True)) == TRK | NEW
    assert wall.see(udp(SERVER, CLIENT, 53, 1000), Ct(2)) == TRK | NEW
    assert wall.fields["ct_zone"] == 2
    assert wall.see(udp(SERVER, CLIENT, 53, 1000), Ct(1)) == TRK | EST | RPL
    assert wall.fields["ct_zone"] == 1


def test_marks_and_labels_are_the_connections() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), Ct(commit=True, mark=Masked(5, 0xFF), labels=Masked(1 << 100, 1 << 100 | 1)))
    assert (wall.fields["ct_mark"], wall.fields["ct_labels"]) == (5, 1 << 100)
    wall.see(udp(SERVER, CLIENT, 53, 1000), Ct())
    assert (wall.fields["ct_mark"], wall.fields["ct_labels"]) == (5, 1 << 100)
    wall.see(udp(CLIENT, SERVER), Ct(commit=True, mark=Masked(0x200, 0xF0F), labels=Masked(1, 1)))
    assert (wall.fields["ct_mark"], wall.fields["ct_labels"]) == (0x200, 1 << 100 | 1)


def test_a_connection_is_tracked_once_in_a_zone() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), Ct(3))
    assert wall.see(udp(CLIENT, SERVER), Ct(3, commit=True), wall.fields, wall.seen) == TRK | NEW
    wall.see(udp(CLIENT, SERVER), Ct(3, commit=True, mark=Masked(9, 9)), wall.fields, wall.seen)
    assert wall.fields["ct_mark"] == 9
    (connection,) = wall.tracker.connections()
    assert connection.packets == [1, 0]


def test_an_upcall_loses_the_connection_and_its_fields_find_it() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER), Ct(3))
    assert wall.see(udp(CLIENT, SERVER), Ct(3, commit=True), wall.fields) == TRK | NEW
    wall.see(udp(CLIENT, SERVER), Ct(3, commit=True, mark=Masked(9, 9)), wall.fields)
    (connection,) = wall.tracker.connections()
    assert (connection.packets, connection.mark) == ([1, 0], 9)
    wall.see(udp(CLIENT, SERVER), Ct(4), wall.fields)
    assert wall.fields["ct_zone"] == 4


def test_force_turns_a_connection_round() -> None:
    wall = Firewall()
    wall.see(udp(CLIENT, SERVER))
    assert wall.see(udp(SERVER, CLIENT, 53, 1000), Ct(commit=True, force=True)) == TRK | NEW
    (connection,) = wall.tracker.connections()
    assert connection.tuples[0].src == address(SERVER)
    assert wall.see(udp(SERVER, CLIENT, 53, 1000), Ct(commit=True, force=True)) == TRK | NEW
    assert wall.see(udp(CLIENT, SERVER)) == TRK | EST | RPL


def test_a_zone_has_no_more_connections_than_its_limit() -> None:
    wall = Firewall()
    wall.tracker.limits[4] = 1
    assert wall.see(udp(CLIENT, SERVER), Ct(4, commit=True)) == TRK | NEW
    with pytest.raises(DroppedError):
        wall.see(udp(CLIENT, SERVER, 1001), Ct(4, commit=True))
    assert wall.see(udp(CLIENT, SERVER, 1001), Ct(4)) == TRK | NEW
    assert wall.see(udp(CLIENT, SERVER, 1001), COMMIT) == TRK | NEW
    wall.wait(30)
    assert wall.see(udp(CLIENT, SERVER, 1001), Ct(4, commit=True)) == TRK | NEW


def test_a_timeout_policy_is_the_connections() -> None:
    wall = Firewall()
    wall.tracker.timeouts["short"] = Timeouts(udp=3)
    wall.see(udp(CLIENT, SERVER), Ct(commit=True, timeout="short"))
    assert wall.lifetime == 3
    wall.see(udp(CLIENT, SERVER))
    assert wall.lifetime == 3


def test_what_follows_a_datagram_in_its_frame_goes() -> None:
    wall = Firewall()
    for sent in (udp(CLIENT, SERVER), udp(CLIENT6, SERVER6)):
        wall.see(sent + bytes(13))
        assert wall.data == sent


@pytest.mark.parametrize("sent", [udp(CLIENT, SERVER), udp(CLIENT6, SERVER6), icmp(CLIENT, SERVER, 8)])
def test_datagrams_that_are_cut_anywhere_are_invalid(sent: bytes) -> None:
    for length in range(len(sent)):
        wall = Firewall()
        family = sent[0] >> 4
        done = wall.tracker.execute(COMMIT, sent[:length], family, {})
        if done.fields["ct_state"] != TRK | INV:  # ICMP does not say how long it is
            assert length >= 28
            assert sent[9] == 1
