# SPDX-License-Identifier: Apache-2.0
"""For whom a connection of the redirect library asks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from asap2.netlink.peer import Peer


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        yield made


def test_root_asks_for_another_process_with_the_privileges_of_that(connection: socket.socket) -> None:
    daemon = Peer(connection, os.getpid(), 0)
    daemon.ask_for(7, 1000, privileged=False)
    assert (daemon.pid, daemon.uid, daemon.privileged) == (7, 1000, False)
    assert daemon.owner == (os.getpid(), 0)
    daemon.ask_for(8, 1000, privileged=True)
    assert (daemon.pid, daemon.privileged) == (8, True)


def test_no_other_user_asks_for_another_process(connection: socket.socket) -> None:
    client = Peer(connection, os.getpid(), 1000)
    with pytest.raises(PermissionError):
        client.ask_for(1, 0, privileged=True)
    assert client.pid == os.getpid()
