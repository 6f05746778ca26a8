# SPDX-License-Identifier: Apache-2.0
"""Removing all network devices of a namespace, so that they are gone when the command returns.

The kernel destroys a namespace that nobody uses some time later, in the background.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from asap2.netlink.client import Connection
from asap2.netlink.namespaces import own_namespace_fd, socket_in
from asap2.netlink.wire import NETLINK_ROUTE, NLM_F_DUMP, NetlinkError

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_IFINFO = struct.Struct("=BxHiII")
"""struct ifinfomsg (rtnetlink(7)): family, type, index, flags, change."""
_LOOPBACK = 1


def remove_links(namespaces: Iterable[Path]) -> None:
    """Remove every device but the loopback from the network namespaces kept at the given files.

    Devices go by their numbers: a guest may have given them any name. One that goes with another (the other end of a
    veth pair) or that cannot be removed (a namespace's built-in tunnel device) is passed over.
    """
    home = own_namespace_fd()
    try:
        for netns in namespaces:
            namespace = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                sock = socket_in(namespace, NETLINK_ROUTE, home)
            finally:
                os.close(namespace)
            with Connection(NETLINK_ROUTE, sock) as kernel:
                _remove(kernel)
    finally:
        os.close(home)


def _remove(kernel: Connection) -> None:
    everything = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for message in kernel.request(_RTM_GETLINK, NLM_F_DUMP, everything):
        index = _IFINFO.unpack_from(message.payload)[2]
        if message.type == _RTM_NEWLINK and index != _LOOPBACK:
            with contextlib.suppress(NetlinkError):
                kernel.request(_RTM_DELLINK, 0, _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0))
