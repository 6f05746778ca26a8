# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.netlink import admission
from asap2.netlink.admission import Admission
from asap2.netlink.listener import listen


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Only a few more may be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_user_and_a_process_get_their_share_and_no_more() -> None:
    gate = Admission()
    try:
        assert [gate.enter(7, 0) for _ in range(admission.MOST_OF_PROCESS + 1)].count(False) == 1
        taken = sum(gate.enter(pid, 1000) for pid in range(100, 100 + 2 * admission.MOST_OF_USER))
        assert taken <= admission.MOST_OF_USER
        assert not gate.enter(99, 1000)
        assert gate.enter(99, 1001)
        assert gate.enter(99, 0)
        gate.leave(100, 1000)
        assert gate.enter(99, 1000)
    finally:
        gate.close()


def test_those_who_leave_are_forgotten() -> None:
    gate = Admission()
    for pid in range(1000):
        assert gate.enter(pid, pid)
        gate.leave(pid, pid)
    assert not gate._of_process
    assert not gate._of_user
    gate.close()


@pytest.mark.usefixtures("few_descriptors")
def test_without_descriptors_connections_are_ended_and_not_reported_again(tmp_path: Path) -> None:
    with listen(tmp_path / "sock") as listener:
        listener.setblocking(False)
        gate = Admission()
        clients = []
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            client.connect(str(tmp_path / "sock"))
            clients.append(client)
        held = []
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/", os.O_PATH))
        with pytest.raises(OSError, match="Too many open files") as full:
            listener.accept()
        assert [gate.refuse(listener, full.value) for _ in range(4)] == [True, True, True, False]
        assert [client.recv(1) for client in clients] == [b""] * 3
        assert not gate.refuse(listener, OSError(errno.ECONNABORTED, ""))
        for descriptor in held:
            os.close(descriptor)
        for client in clients:
            client.close()
        gate.close()
