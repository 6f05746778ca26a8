# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of netlink, served to programs that run with the redirect library."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from asap2.netlink.client import Connection
from asap2.netlink.request import (
    PASS,
    Client,
    GenlFamily,
    GenlHandler,
    GenlHeader,
    Handler,
    Message,
    Netns,
    Proxy,
    Request,
)
from asap2.netlink.request import Reply as Reply

__all__ = [
    "PASS",
    "Client",
    "GenlFamily",
    "GenlHandler",
    "GenlHeader",
    "Handler",
    "Message",
    "Netns",
    "Proxy",
    "Reply",
    "Request",
    "Server",
]

EthtoolHandler = Callable[[Netns, str, int, bytes], "bytes | None"]


class Server:
    """Serves the Unix socket that the redirect library asks; one for each node."""

    def __init__(self, path: Path, lock: threading.RLock) -> None:
        self.path = path
        self.lock = lock

    def route(self, types: Iterable[int], handler: Handler) -> None:
        """Serve these rtnetlink message types; the library diverts no other."""
        raise NotImplementedError

    def family(self, family: GenlFamily) -> None:
        """Serve a generic netlink family."""
        raise NotImplementedError

    def ethtool_ioctl(self, commands: Iterable[int], handler: EthtoolHandler) -> None:
        """Serve these ETHTOOL_ commands of ioctl(SIOCETHTOOL).

        The handler gets namespace, interface name, command and the caller's buffer; it gives the buffer back changed,
        or None for the kernel to answer; it raises OSError for an error.
        """
        raise NotImplementedError

    def attach(self, selector: selectors.BaseSelector) -> None:
        """Listen, and register with *selector*: call ``key.data(mask)`` for each key that it reports."""
        raise NotImplementedError

    def close(self) -> None:
        """Close everything and remove the socket."""
        raise NotImplementedError

    def unicast(
        self, netns: Netns, protocol: int, portid: int, type: int, payload: bytes, flags: int = 0, seq: int = 0
    ) -> None:
        """Send an unsolicited message (an upcall) to a client's socket, without waiting.

        Raises:
            BlockingIOError: its receive buffer is full.
            ConnectionRefusedError: it is gone.
        """
        raise NotImplementedError

    def multicast(self, family: str, group: str, payload: bytes, flags: int = 0) -> None:
        """Send a message to each member of an emulated family's multicast group."""
        raise NotImplementedError

    def notify(self, netns: Netns, group: int, message: Message) -> None:
        """Send a message to the members of an rtnetlink multicast group (RTNLGRP_*, up to 32) of the kernel's own."""
        raise NotImplementedError

    def kernel(self, netns: Netns, protocol: int) -> Connection:
        """A connection to the kernel proper in that namespace."""
        raise NotImplementedError
