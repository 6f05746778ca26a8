# SPDX-License-Identifier: Apache-2.0
"""Many netlink messages by one system call: each arrives whole, in order, and what did not fit is told."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from asap2.netlink.sendmmsg import MOST, send_many

NETLINK_USERSOCK = 2
"""The protocol that processes may use among themselves without privileges (linux/netlink.h)."""


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_USERSOCK) as sock:
        sock.bind((0, 0))
        yield sock


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_USERSOCK) as sock:
        sock.bind((0, 0))
        sock.setblocking(False)
        yield sock


def received(sock: socket.socket) -> list[bytes]:
    messages = []
    while True:
        try:
            messages.append(sock.recv(65536))
        except BlockingIOError:
            return messages


def test_each_message_is_a_datagram_and_they_keep_their_order(sender: socket.socket, receiver: socket.socket) -> None:
    messages = [bytes([number]) * (16 + number) for number in range(40)]
    assert send_many(sender.fileno(), receiver.getsockname()[0], messages, socket.MSG_DONTWAIT) == 40
    assert received(receiver) == messages


def test_what_finds_no_room_is_told(sender: socket.socket, receiver: socket.socket) -> None:
    messages = [bytes(4000)] * MOST
    sent = send_many(sender.fileno(), receiver.getsockname()[0], messages, socket.MSG_DONTWAIT)
    assert 0 < sent < MOST
    with pytest.raises(BlockingIOError):
        send_many(sender.fileno(), receiver.getsockname()[0], messages, socket.MSG_DONTWAIT)
    assert received(receiver) == messages[:sent]


def test_nobody_there_is_an_error(sender: socket.socket, receiver: socket.socket) -> None:
    portid = receiver.getsockname()[0]
    receiver.close()
    with pytest.raises(OSError, match="refused") as refused:
        send_many(sender.fileno(), portid, [b"x", b"y"], socket.MSG_DONTWAIT)
    assert refused.value.errno == errno.ECONNREFUSED
