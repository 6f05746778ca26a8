# SPDX-License-Identifier: Apache-2.0
"""Who asks the server: a connection of the redirect library."""

from __future__ import annotations

import socket
from pathlib import Path

from asap2.netlink.namespaces import Namespace
from asap2.netlink.request import Client

_CAP_NET_ADMIN = 12


class Peer:
    """One connection of the library: a thread of a client."""

    __slots__ = ("clients", "held", "pid", "privileged", "sock", "uid", "unclaimed")

    def __init__(self, sock: socket.socket, pid: int, uid: int) -> None:
        self.sock = sock
        self.pid, self.uid = pid, uid
        self.privileged = uid == 0 or has_net_admin(self.pid)
        self.unclaimed: tuple[Namespace, int, int] | None = None
        self.clients: dict[tuple[int, int, int, int], Client] = {}
        self.held: set[Namespace] = set()


def has_net_admin(pid: int) -> bool:
    """Whether a process has CAP_NET_ADMIN."""
    try:
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    except (OSError, ValueError):
        pass
    return False
