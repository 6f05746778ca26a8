# SPDX-License-Identifier: Apache-2.0
"""Asking the kernel to make, change and remove links (rtnetlink(7), RTM_NEWLINK and RTM_DELLINK)."""

from __future__ import annotations

import errno
import os
import socket
import struct

from asap2.netlink.client import Connection
from asap2.netlink.tables.tc import RTM_NEWQDISC, TC, TC_H_ROOT, Tcmsg
from asap2.netlink.wire import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkError, attribute
from asap2.nic.links import (
    IFF_PROMISC,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    RTM_GETLINK,
    RTM_NEWLINK,
)

RTM_DELLINK = 17
IFLA_NET_NS_FD = 28
VETH_INFO_PEER = 1
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
_HANDLE = 1 << 16
_LINKLAYER_ETHERNET = 1
_MOST = 0xFFFF_FFFF
_TBF = struct.Struct("=BBHhHI BBHhHI III")
"""struct tc_tbf_qopt."""
_IFINFO = struct.Struct("=BxHiII")
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")


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

    def close(self) -> None:
        """Close the socket."""
        self._kernel.close()

    def add(self, kind: str, name: str) -> None:
        """Make a link of a *kind* without settings of its own."""
        body = _name(name) + attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode() + b"\0"))
        self._kernel.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _header() + body)

    def set(
        self,
        ifindex: int,
        *,
        up: bool | None = None,
        mtu: int | None = None,
        address: bytes | None = None,
        promiscuous: bool | None = None,
    ) -> None:
        """Change what is given of a link."""
        wanted = {IFF_UP: up, IFF_PROMISC: promiscuous}
        flags = sum(flag for flag, on in wanted.items() if on)
        change = sum(flag for flag, on in wanted.items() if on is not None)
        body = attribute(IFLA_MTU, _U32.pack(mtu)) if mtu is not None else b""
        if address is not None:
            body += attribute(IFLA_ADDRESS, address)
        self._kernel.request(RTM_NEWLINK, 0, _header(ifindex, flags, change) + body)

    def delete_index(self, ifindex: int) -> None:
        """As :meth:`delete`, by ifindex."""
        self._kernel.request(RTM_DELLINK, 0, _header(ifindex))

    def set_up(self, ifindex: int, up: bool) -> None:
        """Set a link up or down."""
        self._kernel.request(RTM_NEWLINK, 0, _header(ifindex, IFF_UP if up else 0, IFF_UP))

    def rename(self, ifindex: int, name: str) -> None:
        """Give a link, which is down, another name."""
        self._kernel.request(RTM_NEWLINK, 0, _header(ifindex) + _name(name))

    def find(self, name: str) -> int | None:
        """The ifindex of a link; None: there is none such."""
        try:
            (link,) = self._kernel.request(RTM_GETLINK, 0, _header() + _name(name))
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        ifindex: int = _IFINFO.unpack_from(link.payload)[2]
        return ifindex

    def shape(self, ifindex: int, rate: int, burst: int, queue: int) -> None:
        """Let a link send *rate* octets a second, in bursts of so many octets, and hold *queue* octets back: a token
        bucket filter (tc-tbf(8), net/sched/sch_tbf.c)."""
        most, burst, queue = (min(number, _MOST) for number in (rate, burst, queue))
        spec = _TBF.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, most, 0, 0, 0, 0, 0, 0, queue, 0, 0)
        options = attribute(TCA_TBF_PARMS, spec) + attribute(TCA_TBF_BURST, _U32.pack(burst))
        if rate > _MOST:
            options += attribute(TCA_TBF_RATE64, _U64.pack(rate))
        body = TC.encode(Tcmsg(ifindex=ifindex, handle=_HANDLE, parent=TC_H_ROOT), {"kind": "tbf", "options": options})
        self._kernel.request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body)

    def delete(self, name: str) -> None:
        """Remove a link, and with it a veth's other end."""
        self._kernel.request(RTM_DELLINK, 0, _header() + _name(name))


def _header(ifindex: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """``struct ifinfomsg``."""
    return _IFINFO.pack(socket.AF_UNSPEC, 0, ifindex, flags, change)


def _name(name: str) -> bytes:
    return attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
