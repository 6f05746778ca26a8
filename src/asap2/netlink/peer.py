# SPDX-License-Identifier: Apache-2.0
"""Who asks the server: a connection of the redirect library."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from asap2.netlink.namespaces import Namespace
from asap2.netlink.request import Client

_CAP_NET_ADMIN = 12


class Peer:
    """One connection of the library, which is a thread of a client; or of redirectd, which asks for many."""

    __slots__ = ("clients", "held", "owner", "pid", "privileged", "sock", "uid", "unclaimed")

    def __init__(self, sock: socket.socket, pid: int, uid: int) -> None:
        self.sock = sock
        self.owner = pid, uid
        """Process and user at the other end of the connection."""
        self.pid, self.uid = pid, uid
        """Process and user that it asks for."""
        self.privileged = uid == 0 or has_net_admin(self.pid)
        self.unclaimed: tuple[Namespace, int, int] | None = None
        self.clients: dict[tuple[int, int, int, int], Client] = {}
        self.held: set[Namespace] = set()

    def ask_for(self, pid: int, uid: int, privileged: bool) -> None:
        """What it asks from now on it asks for another process; PermissionError when it may not."""
        if self.owner[1]:
            raise PermissionError(errno.EPERM, "only root asks for other processes")
        if (pid, privileged) != (self.pid, self.privileged):
            self.clients.clear()
        self.pid, self.uid, self.privileged = pid, uid, privileged


def has_net_admin(pid: int) -> bool:
    """Whether a process has CAP_NET_ADMIN."""
    try:
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    except (OSError, ValueError):
        pass
    return False
