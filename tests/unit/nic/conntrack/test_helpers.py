# SPDX-License-Identifier: Apache-2.0
"""Helpers of connections: what FTP and TFTP tell of, and what NAT makes of it."""

from __future__ import annotations

import socket
import struct

import pytest

from asap2.nic.conntrack.ftp import IncompleteError, NoPortError
from asap2.nic.conntrack.helpers import ClashError, Expected, Sequence, ftp, help_with, tftp
from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.view import Connection, Tuple
from tests.unit.nic.conntrack.packets import datagram

INET, INET6, TCP, UDP = socket.AF_INET, socket.AF_INET6, socket.IPPROTO_TCP, socket.IPPROTO_UDP
CLIENT, SERVER, OUTSIDE = b"\x0a\1\1\1", b"\x0a\1\1\2", b"\x0a\1\1\xf0"
CLIENT6, SERVER6 = bytes(15) + b"\1", bytes(15) + b"\2"
PLAIN = Connection(
    1, Tuple(INET, TCP, CLIENT, SERVER, 4000, 21), Tuple(INET, TCP, SERVER, CLIENT, 21, 4000), helper="ftp"
)
TRANSLATED = Connection(
    2,
    PLAIN.original,
    Tuple(INET, TCP, SERVER, OUTSIDE, 21, 4000),
    status=int(Status.CONFIRMED | Status.SRC_NAT),
    helper="ftp",
)
SIX = Connection(
    3, Tuple(INET6, TCP, CLIENT6, SERVER6, 4000, 21), Tuple(INET6, TCP, SERVER6, CLIENT6, 21, 4000), helper="ftp"
)
TFTP = Connection(
    4, Tuple(INET, UDP, CLIENT, SERVER, 5000, 69), Tuple(INET, UDP, SERVER, CLIENT, 69, 5000), helper="tftp"
)
TO_CLIENT, TO_SERVER = Tuple(INET, TCP, SERVER, CLIENT, 0, 0x1234), Tuple(INET, TCP, CLIENT, SERVER, 0, 0x1234)


@pytest.mark.parametrize(
    ("data", "way", "connection", "expected"),
    [
        (b"PORT 10,1,1,1,18,52\r\n", 0, PLAIN, TO_CLIENT),
        (b"port 10,1,1,1,18,52\r\n", 0, PLAIN, TO_CLIENT),
        (b"EPRT |1|10.1.1.1|4660|\r\n", 0, PLAIN, TO_CLIENT),
        (b"EPRT !1!10.1.1.1!4660!\r\n", 0, PLAIN, TO_CLIENT),
        (b"PORT 10,1,1,1,18,52\r", 0, PLAIN, TO_CLIENT),
        (b"227 =10,1,1,2,18,52;", 1, PLAIN, TO_SERVER),
        (b"229 Yes (|||70196|)\r\n", 1, PLAIN, TO_SERVER),
        (b"227 Entering Passive Mode (10,1,1,2,18,52).\r\n", 1, PLAIN, TO_SERVER),
        (b"227 Entering Passive Mode 10,1,1,2,18,52\r\n", 1, PLAIN, TO_SERVER),
        (b"229 Entering Extended Passive Mode (|||4660|)\r\n", 1, PLAIN, TO_SERVER),
        (b"EPRT |2|::1|4660|\r\n", 0, SIX, Tuple(INET6, TCP, SERVER6, CLIENT6, 0, 0x1234)),
        (b"229 Yes (|||4660|)\r\n", 1, SIX, Tuple(INET6, TCP, CLIENT6, SERVER6, 0, 0x1234)),
    ],
)
def test_the_connection_that_an_end_tells_of_is_expected(
    data: bytes, way: int, connection: Connection, expected: Tuple
) -> None:
    assert ftp(data, connection, way) == (data, Expected(expected, None))


@pytest.mark.parametrize(
    ("data", "way"),
    [
        (b"PORT 10,1,1,9,18,52\r\n", 0),
        (b"PORT 10,1,1,1,18,52\r\n", 1),
        (b"PORT 10,1,1,256,18,52\r\n", 0),
        (b"USER anonymous\r\n", 0),
        (b"", 0),
    ],
)
def test_what_tells_of_no_connection_of_its_own_end_is_passed_over(data: bytes, way: int) -> None:
    assert ftp(data, PLAIN, way) is None


@pytest.mark.parametrize(
    ("data", "way"),
    [
        (b"PORT 10,1,1,1,18\r\n", 0),
        (b"PORT 10,1,1,1,18,52\n", 0),
        (b"PORT 10,1,1,1,18,52", 0),
        (b"PORT  10,1,1,1,18,52\r\n", 0),
        (b"PORT 1,2,3,4,5,6,7\r\n", 0),
        (b"PORT\r\n", 0),
        (b"po", 0),
        (b"EPRT |2|::1|4660|\r\n", 0),
        (b"EPRT |1|10.1.1|4660|\r\n", 0),
        (b"EPRT |1|10.1.1.1||\r\n", 0),
        (b"EPRT 1110.1.1.1|4660|\r\n", 0),
        (b"227 no\r\n", 1),
        (b"227 2 (10,1,1,2,18,52)\r\n", 1),
        (b"229 Yes (|||65536|)\r\n", 1),
        (b"229 Yes |||4660|\r\n", 1),
    ],
)
def test_a_line_that_is_nearly_an_announcement_is_dropped(data: bytes, way: int) -> None:
    with pytest.raises(IncompleteError):
        ftp(data, PLAIN, way)


def test_nat_drops_what_announces_port_0() -> None:
    assert ftp(b"PORT 10,1,1,1,0,0\r\n", PLAIN, 0) is not None
    with pytest.raises(IncompleteError):
        ftp(b"PORT 10,1,1,1,0,0\r\n", TRANSLATED, 0)


def test_an_announcement_is_read_only_at_the_start_of_a_line() -> None:
    sequence, command = Sequence(), b"PORT 10,1,1,1,18,52\r\n"

    def expects(data: bytes, number: int, *, established: bool = True) -> bool:
        frame = segment(data, number, 500, CLIENT, SERVER)
        return help_with(frame, 14, PLAIN, 0, sequence, established=established).expects is not None

    assert not expects(command, 100)  # nobody has seen the end of a line
    assert expects(command, 121)
    assert not expects(command, 121, established=False)
    assert not expects(b"x" + command, 142)
    assert expects(command, 164)
    assert not expects(command, 1000)
    assert not expects(command, 121)  # two ends of lines are remembered


def test_a_connection_that_is_picked_up_begins_with_a_line() -> None:
    sequence, command = Sequence(picked_up=True), b"PORT 10,1,1,1,18,52\r\n"
    found = [
        help_with(segment(command, number, 1, CLIENT, SERVER), 14, PLAIN, 0, sequence).expects for number in (7, 90)
    ]
    assert [one is not None for one in found] == [True, False]


def test_behind_nat_the_other_end_is_told_the_address_that_it_knows() -> None:
    told = ftp(b"PORT 10,1,1,1,18,52\r\n", TRANSLATED, 0)
    assert told is not None
    assert told[0] == b"PORT 10,1,1,240,18,52\r\n"
    assert told[1] == Expected(
        Tuple(INET, TCP, SERVER, OUTSIDE, 0, 0x1234), Tuple(INET, TCP, CLIENT, SERVER, 0x1234, 0)
    )


def test_a_server_behind_nat_is_told_of_by_the_address_that_the_client_knows() -> None:
    behind = Connection(
        4,
        Tuple(INET, TCP, CLIENT, OUTSIDE, 4000, 21),
        PLAIN.reply,
        status=int(Status.CONFIRMED | Status.DST_NAT),
        helper="ftp",
    )
    told = ftp(b"227 Passive (10,1,1,2,18,52).\r\n", behind, 1)
    assert told is not None
    assert told[0] == b"227 Passive (10,1,1,240,18,52).\r\n"
    assert told[1] == Expected(
        Tuple(INET, TCP, CLIENT, OUTSIDE, 0, 0x1234), Tuple(INET, TCP, SERVER, CLIENT, 0x1234, 0)
    )


def test_a_request_of_tftp_is_answered_from_another_port() -> None:
    original, reply = Tuple(INET, UDP, CLIENT, SERVER, 5000, 69), Tuple(INET, UDP, SERVER, CLIENT, 69, 5000)
    plain = Connection(5, original, reply, helper="tftp")
    assert tftp(b"\0\1name\0octet\0", plain) == Expected(Tuple(INET, UDP, SERVER, CLIENT, 0, 5000), None)
    assert tftp(b"\0\3\0\1", plain) is None
    behind = Connection(
        6, original, Tuple(INET, UDP, SERVER, OUTSIDE, 69, 6000), status=int(Status.SRC_NAT), helper="tftp"
    )
    told = tftp(b"\0\2name\0octet\0", behind)
    assert told == Expected(Tuple(INET, UDP, SERVER, OUTSIDE, 0, 6000), Tuple(INET, UDP, CLIENT, SERVER, 5000, 0))


@pytest.mark.parametrize("data", [b"", b"\0", b"\1\0", b"\0\5\0\1", b"\xff\xff", b"\1"])
def test_what_is_no_request_of_tftp_is_passed_over(data: bytes) -> None:
    assert tftp(data, TFTP) is None
    frame = bytes(14) + datagram("10.1.1.1", "10.1.1.2", 17, struct.pack("!HHHH", 5000, 69, 8 + len(data), 0) + data)
    for behind in (b"", b"\0\1name\0octet\0"):
        helped = help_with(frame + behind, 14, TFTP, 0, Sequence())
        assert (helped.frame, helped.expects) == (frame + behind, None)


def test_a_request_of_tftp_may_go_back() -> None:
    data = struct.pack("!HHHH", 69, 5000, 10, 0) + b"\0\1"
    frame = bytes(14) + datagram("10.1.1.2", "10.1.1.1", 17, data)
    expected = Expected(Tuple(INET, UDP, SERVER, CLIENT, 0, 5000), None)
    assert help_with(frame, 14, TFTP, 1, Sequence()).expects == expected


def test_what_another_connection_expects_is_dropped() -> None:
    with pytest.raises(ClashError):
        ftp(b"PORT 10,1,1,1,18,52\r\n", PLAIN, 0, taken=lambda one: one == TO_CLIENT)
    with pytest.raises(ClashError):
        tftp(b"\0\1", TFTP, taken=lambda _one: True)


def test_nat_announces_another_port_if_another_connection_expects_it() -> None:
    told = ftp(b"PORT 10,1,1,1,18,52\r\n", TRANSLATED, 0, taken=lambda one: one.dst_port == 0x1234)
    assert told is not None
    expected, reply = told[1]
    assert expected.dst_port > 0x1234
    assert told[0] == f"PORT 10,1,1,240,{expected.dst_port >> 8},{expected.dst_port & 0xFF}\r\n".encode()
    assert reply == Tuple(INET, TCP, CLIENT, SERVER, 0x1234, 0)
    for announced in (b"18,52", b"255,255", b"0,0"):
        with pytest.raises(NoPortError):
            ftp(b"PORT 10,1,1,1," + announced + b"\r\n", TRANSLATED, 0, taken=lambda _one: True)


def segment(data: bytes, sequence: int, acknowledged: int, src: bytes, dst: bytes) -> bytes:
    head = bytearray(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + len(data), 1, 0, 64, TCP, 0, src, dst))
    return (
        bytes(14)
        + bytes(head)
        + struct.pack("!HHIIBBHHH", 4000, 21, sequence, acknowledged, 0x50, 0x18, 999, 0, 0)
        + data
    )


def numbers(frame: bytes) -> tuple[int, int]:
    sequence, acknowledged = struct.unpack_from("!II", frame, 38)
    return sequence, acknowledged


def right(frame: bytes) -> bool:
    """Whether lengths and checksums are right."""
    ip, tcp = frame[14:34], frame[34:]

    def total(data: bytes) -> int:
        words: int = sum(struct.unpack(f"!{len(data + bytes(len(data) % 2)) // 2}H", data + bytes(len(data) % 2)))
        return words % 0xFFFF

    pseudo = ip[12:20] + struct.pack("!II", len(tcp), TCP)
    return int.from_bytes(ip[2:4], "big") == len(frame) - 14 and not total(ip) and not total(pseudo + tcp)


def test_sequence_numbers_follow_what_nat_has_made_longer() -> None:
    sequence = Sequence(picked_up=True)
    command = b"PORT 10,1,1,1,18,52\r\n"
    done = help_with(segment(command, 100, 500, CLIENT, SERVER), 14, TRANSLATED, 0, sequence)
    assert right(done.frame)
    assert (numbers(done.frame), done.lengthened) == ((100, 500), 2)
    assert done.expects is not None
    answer = help_with(
        segment(b"200 OK\r\n", 500, 100 + len(command) + 2, SERVER, OUTSIDE), 14, TRANSLATED, 1, sequence
    )
    assert numbers(answer.frame) == (500, 100 + len(command))
    following = help_with(segment(b"LIST\r\n", 100 + len(command), 508, CLIENT, SERVER), 14, TRANSLATED, 0, sequence)
    assert numbers(following.frame) == (100 + len(command) + 2, 508)
    again = help_with(segment(command, 100, 500, CLIENT, SERVER), 14, TRANSLATED, 0, sequence)
    assert numbers(again.frame) == (100, 500)
    assert right(following.frame)


@pytest.mark.parametrize("cut", range(0, 62, 3))
def test_packets_that_are_cut_short_harm_nothing(cut: int) -> None:
    frame = segment(b"PORT 10,1,1,1,18,52\r\n", 100, 500, CLIENT, SERVER)[: 14 + cut]
    assert help_with(frame, 14, PLAIN, 0, Sequence(picked_up=True)).frame == frame
