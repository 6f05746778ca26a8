# SPDX-License-Identifier: Apache-2.0
"""Sockets that tell that something has changed."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from asap2.netlink.monitor import drained, monitor


class Told(socket.socket):
    """A socket that *gives* this: notifications, and errors of the kernel."""

    def __init__(self, *gives: int) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.gives: Iterator[int] = iter(gives)

    def recv(self, _size: int, _flags: int = 0) -> bytes:
        """One of them; then there is nothing."""
        number = next(self.gives, errno.EAGAIN)
        if number:
            raise OSError(number, "")
        return b"\0"


def test_a_monitor_to_which_nothing_was_told_has_nothing() -> None:
    with monitor(1) as sock:
        assert not drained(sock)


@pytest.mark.parametrize("gives", [(0,), (0, 0), (errno.ENOBUFS,), (errno.ENOBUFS, 0)])
def test_what_was_told_or_lost_is_a_change_and_is_read_once(gives: tuple[int, ...]) -> None:
    with Told(*gives) as sock:
        assert drained(sock)
        assert not drained(sock)


def test_another_error_is_raised() -> None:
    with Told(errno.EBADF) as sock, pytest.raises(OSError, match=str(errno.EBADF)):
        drained(sock)
