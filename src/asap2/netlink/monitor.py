# SPDX-License-Identifier: Apache-2.0
"""Sockets on which the kernel tells that something has changed, for those who then look themselves (rtnetlink(7))."""

from __future__ import annotations

import errno
import socket

from asap2.netlink.wire import SOL_NETLINK

NETLINK_LISTEN_ALL_NSID = 8


def monitor(groups: int, *, everywhere: bool = False) -> socket.socket:
    """A socket that hears notifications of rtnetlink *groups* (RTMGRP_*) in this thread's network namespace; with
    *everywhere*, of all namespaces that have an id there, too."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    if everywhere:
        opened.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
    opened.bind((0, groups))  # without groups too: a socket without a port id hears nothing
    return opened


def drained(sock: socket.socket) -> bool:
    """Empty a :func:`monitor`; whether anything was there, or was lost because it was full (ENOBUFS). OSError."""
    changed = False
    while True:
        try:
            sock.recv(1)
        except BlockingIOError:
            return changed
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
        changed = True
