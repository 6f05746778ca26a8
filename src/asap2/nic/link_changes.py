# SPDX-License-Identifier: Apache-2.0
"""Asking the kernel to make, change and remove links (rtnetlink(7), RTM_NEWLINK and RTM_DELLINK)."""

from __future__ import annotations

import os
import socket
import struct

from asap2.netlink.client import Connection
from asap2.netlink.wire import NLM_F_CREATE, NLM_F_EXCL, attribute
from asap2.nic.links import (
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    RTM_NEWLINK,
)

RTM_DELLINK = 17
IFLA_MTU, IFLA_NET_NS_FD = 4, 28
VETH_INFO_PEER = 1
_IFINFO = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")


class LinkChanges:
    """Changes links of the network namespace that it was made in. OSError with the kernel's number."""

    def __init__(self) -> None:
        self._kernel = Connection()

    def add_veth(self, name: str, mtu: int, peer: str, namespace: int, mac: bytes | None) -> None:
        """Make a veth pair: *name* with *mtu* here, *peer* in the network namespace open at *namespace*, with the
        address *mac* or one that the kernel chooses."""
        far = _header() + _name(peer) + attribute(IFLA_NET_NS_FD, _U32.pack(namespace))
        if mac is not None:
            far += attribute(IFLA_ADDRESS, mac)
        kind = attribute(IFLA_INFO_KIND, b"veth\0") + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, far))
        body = _name(name) + attribute(IFLA_MTU, _U32.pack(mtu)) + attribute(IFLA_LINKINFO, kind)
        self._kernel.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _header() + body)

    def set_up(self, ifindex: int, up: bool) -> None:
        """Set a link up or down."""
        self._kernel.request(RTM_NEWLINK, 0, _header(ifindex, IFF_UP if up else 0, IFF_UP))

    def rename(self, ifindex: int, name: str) -> None:
        """Give a link, which is down, another name."""
        self._kernel.request(RTM_NEWLINK, 0, _header(ifindex) + _name(name))

    def delete(self, name: str) -> None:
        """Remove a link, and with it a veth's other end."""
        self._kernel.request(RTM_DELLINK, 0, _header() + _name(name))


def _header(ifindex: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """``struct ifinfomsg``."""
    return _IFINFO.pack(socket.AF_UNSPEC, 0, ifindex, flags, change)


def _name(name: str) -> bytes:
    return attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
