# SPDX-License-Identifier: Apache-2.0
"""Multicast groups of emulated families, which the kernel does not have: their members, and what is sent to them."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from pathlib import Path

from asap2.netlink.namespaces import Namespace, holds_socket
from asap2.netlink.peer import Peer
from asap2.netlink.request import Netns
from asap2.netlink.wire import NETLINK_GENERIC

_MOST_MEMBERS = 4096
"""Members of a group, from which on only privileged ones may join."""
_MOST_HELD = 64
"""Network namespaces that one connection may keep served by joining groups there."""


class Groups:
    """The groups of a server in namespace *home*."""

    def __init__(self, home: Namespace) -> None:
        self._home = home
        self._members: dict[int, dict[tuple[int, int], tuple[int, int]]] = {}
        self._privileged: set[int] = set()

    def add(self, groups: Iterable[int], privileged: Collection[int] = ()) -> None:
        """Have these groups, without a member yet; only privileged programs join those of *privileged*."""
        for group in groups:
            self._members[group] = {}
        self._privileged.update(privileged)

    def has_members(self, netns: Netns, group: int) -> bool:
        """Whether somebody in *netns* may be a member of *group*."""
        return any(cookie == netns.cookie for cookie, _portid in self._members[group])

    def change(self, peer: Peer, join: bool, namespace: Namespace, portid: int, group: int, inode: int) -> int:
        """A socket of *peer* joins a group or leaves it: 0, or the errno."""
        members = self._members.get(group)
        if members is None:
            return errno.EINVAL
        member = (namespace.netns.cookie, portid)
        if not join:
            members.pop(member, None)
            return 0
        if group in self._privileged and not peer.may_administer(namespace.netns):
            return errno.EPERM
        if len(members) >= _MOST_MEMBERS and not peer.privileged:
            return errno.ENOBUFS
        if namespace is not self._home and namespace not in peer.held:
            if len(peer.held) >= _MOST_HELD:
                return errno.ENOBUFS
            peer.held.add(namespace)
            namespace.holders += 1
        members[member] = (peer.pid, inode)
        return 0

    def send(self, namespace: Namespace, group: int, message: bytes) -> None:
        """Send a message to the members in a namespace; one with a full receive buffer misses it."""
        members = self._members[group]
        for (cookie, portid), (pid, inode) in list(members.items()):
            if cookie != namespace.netns.cookie:
                continue
            if not holds_socket(pid, inode) and Path(f"/proc/{pid}").exists():
                del members[cookie, portid]  # closed, and another socket may have the port id by now
                continue
            try:
                namespace.unicast(NETLINK_GENERIC, portid, message)
            except BlockingIOError:
                continue
            except OSError:
                del members[cookie, portid]
