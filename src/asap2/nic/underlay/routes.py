# SPDX-License-Identifier: Apache-2.0
"""Where a tunnel's packets go: the node's routes and neighbours, and a notice when they change (rtnetlink(7))."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from dataclasses import dataclass

from asap2.netlink.client import Connection
from asap2.netlink.monitor import drained, monitor
from asap2.netlink.wire import NLA_TYPE_MASK, NLM_F_CREATE, NLM_F_REPLACE, NetlinkError, attribute, attributes
from asap2.nic.underlay import ndisc

RTM_NEWNEIGH, RTM_GETNEIGH, RTM_GETROUTE = 28, 30, 26
RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_VIA = 1, 2, 4, 5, 7, 18
RTN_UNICAST = 1
NDA_DST, NDA_LLADDR = 1, 2
NTF_USE = 1
NUD_NONE = 0
NUD_SURE = 0x80 | 0x40 | 0x02
"""PERMANENT, NOARP, REACHABLE (NUD_CONNECTED): the kernel asks no more."""
NUD_VALID = 0x80 | 0x40 | 0x02 | 0x10 | 0x04 | 0x08
"""PERMANENT, NOARP, REACHABLE, PROBE, STALE, DELAY: states with a usable address (include/net/neighbour.h)."""
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK (of VLAN devices too), NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE."""

_RTMSG = struct.Struct("=BBBBBBBBI")
_RTM_TYPE = 7
"""Where struct rtmsg has rtm_type."""
_NDMSG = struct.Struct("=BxxxiHBB")


@dataclass(frozen=True, slots=True)
class Hop:
    """The next hop: out of ``ifindex``, from ``source``, to neighbour ``gateway`` at ``mac`` (None: unknown)."""

    ifindex: int
    source: bytes
    gateway: bytes
    mac: bytes | None


class Routes:
    """The routing and neighbour tables of the network namespace that it is made in."""

    def __init__(self) -> None:
        self._kernel = Connection()
        self.monitor = monitor(_GROUPS)

    def drain(self) -> None:
        """Empty :attr:`monitor`, which is readable after a route, address, neighbour or link changed."""
        drained(self.monitor)

    def resolve(self, destination: bytes, source: bytes | None = None, lower: int = 0) -> Hop:
        """The next hop to *destination* (4 or 16 bytes), from *source* and out of device *lower* if given.

        Raises:
            NetlinkError: the kernel's, ENETUNREACH where there is no route, or none away from this host.
        """
        family = socket.AF_INET if len(destination) == 4 else socket.AF_INET6
        bits = 8 * len(destination)
        asked, from_bits = attribute(RTA_DST, destination), 0
        if source is not None and any(source):
            asked += attribute(RTA_SRC, source)
            from_bits = bits
        if lower:
            asked += attribute(RTA_OIF, lower.to_bytes(4, sys.byteorder))
        header = _RTMSG.pack(family, bits, from_bits, 0, 0, 0, 0, 0, 0)
        (answer,) = self._kernel.request(RTM_GETROUTE, 0, header + asked)
        if _RTMSG.unpack_from(answer.payload)[_RTM_TYPE] != RTN_UNICAST:
            raise NetlinkError(errno.ENETUNREACH)
        found = {kind & NLA_TYPE_MASK: value for kind, value in attributes(answer.payload, _RTMSG.size)}
        gateway = found.get(RTA_GATEWAY) or found.get(RTA_VIA, b"\0\0")[2:] or destination
        ifindex = int.from_bytes(found.get(RTA_OIF, b"\0\0\0\0"), sys.byteorder)
        chosen = source if source is not None and any(source) else found.get(RTA_PREFSRC, bytes(len(destination)))
        state, mac = self._neighbour(ifindex, gateway)
        return Hop(ifindex, chosen, gateway, mac if state & NUD_VALID and len(mac) == 6 and any(mac) else None)

    def _neighbour(self, ifindex: int, address: bytes) -> tuple[int, bytes]:
        """The state of a neighbour (NUD_*), and its address as far as it is known."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        header = _NDMSG.pack(family, ifindex, 0, 0, 0)
        try:
            (answer,) = self._kernel.request(RTM_GETNEIGH, 0, header + attribute(NDA_DST, address))
        except NetlinkError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
                return NUD_NONE, b""
            raise
        state = _NDMSG.unpack_from(answer.payload)[2]
        found = {kind & NLA_TYPE_MASK: value for kind, value in attributes(answer.payload, _NDMSG.size)}
        return state, found.get(NDA_LLADDR, b"")

    def use(self, hop: Hop, own_mac: bytes) -> None:
        """Have the kernel ask for the neighbour's address, or whether it is still right (neigh_event_send); its answer
        shows on :attr:`monitor`.

        *own_mac* is that of the hop's device. From a device without a link-local address the kernel asks only where a
        packet waits, a second later: there the question is asked here.
        """
        family = socket.AF_INET if len(hop.gateway) == 4 else socket.AF_INET6
        payload = _NDMSG.pack(family, hop.ifindex, NUD_NONE, NTF_USE, 0) + attribute(NDA_DST, hop.gateway)
        try:
            self._kernel.request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, payload)
        except NetlinkError as error:
            if error.errno not in (errno.ENODEV, errno.ENETDOWN, errno.EINVAL):
                raise
            return
        if family == socket.AF_INET6 and not ndisc.has_link_local(hop.ifindex):
            state, _ = self._neighbour(hop.ifindex, hop.gateway)
            if not state & NUD_SURE:
                ndisc.solicit(hop.ifindex, hop.source, own_mac, hop.gateway, multicast=not state & NUD_VALID)
