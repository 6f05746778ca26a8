# SPDX-License-Identifier: Apache-2.0
"""How much waits in the receive queues of netlink sockets (NETLINK_SOCK_DIAG, linux/netlink_diag.h)."""

from __future__ import annotations

import struct

from asap2.netlink.client import Connection
from asap2.netlink.wire import NLM_F_DUMP

NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_AF_NETLINK = 16
_SHOW_MEMINFO = 1
_REQUEST = struct.Struct("=BBHIIII")
_ANSWER = struct.Struct("=4xI20xHHI")
"""struct netlink_diag_msg's port id; then the one attribute asked for, NETLINK_DIAG_MEMINFO, whose first number is
sk_rmem_alloc."""


def waiting(connection: Connection, protocol: int) -> dict[int, int]:
    """For the port id of each socket of *protocol* in the connection's network namespace, the bytes that wait to be
    read, with the kernel's overhead. *connection* is one of NETLINK_SOCK_DIAG.

    Raises:
        NetlinkError: ENOENT, the kernel has no netlink_diag.
    """
    request = _REQUEST.pack(_AF_NETLINK, protocol, 0, 0, _SHOW_MEMINFO, 0, 0)
    found = {}
    for answer in connection.request(_SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request):
        portid, _length, _kind, received = _ANSWER.unpack_from(answer.payload)
        found[portid] = received
    return found
