# SPDX-License-Identifier: Apache-2.0
"""Who asks the server: a connection of the redirect library."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from asap2.netlink.namespaces import Namespace
from asap2.netlink.request import Client, Netns

_CAP_NET_ADMIN = 12
_NS_GET_USERNS = 0xB701
"""include/uapi/linux/nsfs.h"""


class Peer:
    """One connection of the library, which is a thread of a client; or of redirectd, which asks for many."""

    __slots__ = ("_elsewhere", "clients", "held", "owner", "pid", "privileged", "sock", "uid", "unclaimed")

    def __init__(self, sock: socket.socket, pid: int, uid: int) -> None:
        self.sock = sock
        self.owner = pid, uid
        """Process and user at the other end of the connection."""
        self.pid, self.uid = pid, uid
        """Process and user that it asks for."""
        self.privileged = uid == 0 or has_net_admin(self.pid)
        """Whether it may administer networks, in its own user namespace at least (:meth:`may_administer`)."""
        self._elsewhere = _user_namespace(pid)
        """That user namespace, or None where it is ours."""
        self.unclaimed: tuple[Namespace, int, int] | None = None
        self.clients: dict[tuple[int, int, int, int], Client] = {}
        self.held: set[Namespace] = set()

    def ask_for(self, pid: int, uid: int, privileged: bool) -> None:
        """What it asks from now on it asks for another process; PermissionError when it may not."""
        if self.owner[1] or self._elsewhere is not None:
            raise PermissionError(errno.EPERM, "only root asks for other processes")
        if (pid, privileged) != (self.pid, self.privileged):
            self.clients.clear()
        self.pid, self.uid, self.privileged = pid, uid, privileged

    def may_administer(self, netns: Netns) -> bool:
        """Whether it may administer *netns*: being root in a user namespace of its own does not suffice, unless that
        owns the network namespace."""
        if not self.privileged or self._elsewhere is None:
            return self.privileged
        owner = fcntl.ioctl(netns.fd, _NS_GET_USERNS)
        try:
            return os.fstat(owner).st_ino == self._elsewhere
        finally:
            os.close(owner)


def _user_namespace(pid: int) -> int | None:
    """The inode of a process's user namespace (0: the process is gone); None where that is ours."""
    try:
        theirs = os.stat(f"/proc/{pid}/ns/user").st_ino
    except OSError:
        return 0
    return None if theirs == os.stat("/proc/self/ns/user").st_ino else theirs


def has_net_admin(pid: int) -> bool:
    """Whether a process has CAP_NET_ADMIN."""
    try:
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    except (OSError, ValueError):
        pass
    return False
