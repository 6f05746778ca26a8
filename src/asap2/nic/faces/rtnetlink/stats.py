# SPDX-License-Identifier: Apache-2.0
"""RTM_GETSTATS (``ip stats``, ``ifstat``): a netdev's counters, and those of packets that the host's CPU has touched.

The kernel answers; a port of an eSwitch gets its counters as it shows them (:mod:`asap2.nic.statistics`), and
IFLA_OFFLOAD_XSTATS_CPU_HIT, what the netdev itself has seen.

Source: net/core/rtnetlink.c of Linux 6.12, rtnl_fill_statsinfo() and rtnl_offload_xstats_fill().
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Final

from asap2.netlink.request import Answer, Message, Proxy, Request
from asap2.netlink.wire import NLA_TYPE_MASK, NlMsg, attribute, attributes
from asap2.nic import statistics
from asap2.nic.netdevs import Counters, NetDev, NetDevs, Where

RTM_NEWSTATS: Final = 92
RTM_GETSTATS: Final = 94
_HEADER = 12
"""struct if_stats_msg: family, padding, ifindex, filter_mask."""
_LINK_64, _OFFLOAD_XSTATS = 1, 4
_GET_FILTERS, _CPU_HIT = 1, 1
_STATS64 = 200
"""sizeof(struct rtnl_link_stats64) since Linux 5.19."""


def stats64(counters: Counters, size: int = _STATS64) -> bytes:
    """struct rtnl_link_stats64."""
    return struct.pack("=9Q", *counters).ljust(size, b"\0")[:size]


def stats32(counters: Counters, size: int) -> bytes:
    """struct rtnl_link_stats."""
    return struct.pack("=9I", *(one & 0xFFFF_FFFF for one in counters)).ljust(size, b"\0")[:size]


class StatsFace:
    """Answers RTM_GETSTATS; *device* finds the netdev of a NIC by ifindex, in the namespace of a request, and *hides*
    says of a link there that nobody is to see it."""

    def __init__(
        self,
        netdevs: NetDevs,
        device: Callable[[int, Request], NetDev | None],
        hides: Callable[[int, Request], bool] = lambda _ifindex, _request: False,
    ) -> None:
        self._hides = hides
        self._netdevs = netdevs
        self._device = device

    def get(self, request: Request) -> Answer:
        """The kernel's answer, with our devices' counters."""
        hits = _wants_hits(request.payload)
        return Proxy(lambda message: self._listed(message, request, hits))

    def _listed(self, message: NlMsg, request: Request, hits: bool) -> list[Message]:
        payload = message.payload
        if len(payload) >= _HEADER and self._hides(int.from_bytes(payload[4:8], sys.byteorder), request):
            return []
        return [self._shown(message, request, hits)]

    def _shown(self, message: NlMsg, request: Request, hits: bool) -> Message:
        payload = message.payload
        if message.type != RTM_NEWSTATS or len(payload) < _HEADER:
            return Message(message.type, payload)
        device = self._device(int.from_bytes(payload[4:8], sys.byteorder), request)
        counters = statistics.shown(self._netdevs, device) if device is not None else None
        if device is None or counters is None:
            return Message(message.type, payload)
        found = list(attributes(payload, _HEADER))
        if hits:
            own = attribute(_CPU_HIT, stats64(self._netdevs.counted(device, Where.NETDEV)))
            others = next((value for type_, value in found if type_ & NLA_TYPE_MASK == _OFFLOAD_XSTATS), b"")
            found = [(type_, value) for type_, value in found if type_ & NLA_TYPE_MASK != _OFFLOAD_XSTATS]
            place = sum(type_ & NLA_TYPE_MASK < _OFFLOAD_XSTATS for type_, _ in found)
            found.insert(place, (_OFFLOAD_XSTATS, own + others))
        shown = b"".join(
            attribute(type_, stats64(counters, len(value)) if type_ & NLA_TYPE_MASK == _LINK_64 else value)
            for type_, value in found
        )
        return Message(message.type, payload[:_HEADER] + shown)


def _wants_hits(payload: bytes) -> bool:
    """Whether a request asks for what the CPU has touched."""
    if len(payload) < _HEADER or not int.from_bytes(payload[8:12], sys.byteorder) >> _OFFLOAD_XSTATS - 1 & 1:
        return False
    for type_, value in attributes(payload, _HEADER):
        if type_ & NLA_TYPE_MASK == _GET_FILTERS:
            for group, mask in attributes(value):
                if group & NLA_TYPE_MASK == _OFFLOAD_XSTATS and len(mask) == 4:
                    return bool(int.from_bytes(mask, sys.byteorder) & 1 << _CPU_HIT - 1)
    return True
