# SPDX-License-Identifier: Apache-2.0
"""A socket receives what its filter lets through."""

from __future__ import annotations

import socket

import pytest

from asap2 import socket_filter

FIRST_IS_A = socket_filter.parsed("4\n48 0 0 0\n21 0 1 65\n6 0 0 262144\n6 0 0 0\n")
"""``ldb [0]; jeq #'A'; ret #262144; ret #0``"""


def received(program: tuple[socket_filter.Step, ...]) -> list[bytes]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        socket_filter.attach(ours, program)
        for text in (b"Apple", b"Banana", b"Avocado"):
            theirs.send(text)
        ours.setblocking(False)
        found = []
        while True:
            try:
                found.append(ours.recv(64))
            except BlockingIOError:
                return found


def test_what_the_program_lets_through_is_received_and_no_more() -> None:
    assert received(FIRST_IS_A) == [b"Apple", b"Avocado"]
    assert received(socket_filter.NOTHING) == []


def test_the_text_of_tcpdump_is_read() -> None:
    assert FIRST_IS_A == ((48, 0, 0, 0), (21, 0, 1, 65), (6, 0, 0, 262144), (6, 0, 0, 0))
    with pytest.raises(ValueError, match="not enough values"):
        socket_filter.parsed("1\n6 0 0\n")


def test_a_program_without_an_end_is_refused_by_the_kernel() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        received(((48, 0, 0, 0),))
