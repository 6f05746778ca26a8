# SPDX-License-Identifier: Apache-2.0
"""The counters of all network devices of a network namespace, read by one request (RTM_GETSTATS, Linux 4.7).

A socket stays open and a request is always the same, so that hundreds of readings per second cost little.

Source: include/uapi/linux/if_link.h, struct if_stats_msg, IFLA_STATS_LINK_64, IFLA_STATS_LINK_OFFLOAD_XSTATS,
IFLA_OFFLOAD_XSTATS_CPU_HIT; include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Final, NamedTuple

from asap2.namespaces import in_netns
from asap2.netlink.wire import (
    HEADER,
    HEADER_LEN,
    NETLINK_ROUTE,
    NLA_TYPE_MASK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes,
    build,
)

RTM_NEWLINK: Final = 16
RTM_GETLINK: Final = 18
RTM_NEWSTATS: Final = 92
RTM_GETSTATS: Final = 94
_LINK_64, _OFFLOAD_XSTATS, _CPU_HIT = 1, 4, 1
_IFLA_STATS64, _IFLA_TARGET_NETNSID = 23, 46
_STATS_HEADER, _LINK_HEADER = 12, 16
_STATS = struct.Struct("=4Q16x2Q")
"""The counters of struct rtnl_link_stats64 that are used; errors are passed over."""
_ATTRIBUTE = struct.Struct("=HH")
_PATIENCE: Final = 5.0
"""Seconds that an answer of the kernel, or of a node's daemon in its place, may take."""
_BUFFER: Final = 1 << 18


class Stats(NamedTuple):
    """Counters of a device, as the device names directions."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


NOTHING: Final = Stats()


class Read(NamedTuple):
    """A device's counters, and those of the packets that the host's CPU saw; None where the driver does not tell."""

    all: Stats
    cpu: Stats | None


class StatsReader:
    """A socket in one network namespace: that open at *netns*, or this process's own. Not for two threads at once."""

    def __init__(self, netns: int | None = None, *, cpu: bool = False) -> None:
        """With *cpu*, also ask what the host's CPU saw."""
        self._socket = in_netns(netns, _open)
        self._socket.settimeout(_PATIENCE)
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._sequence = 0
        wanted = 1 << _LINK_64 - 1 | (1 << _OFFLOAD_XSTATS - 1 if cpu else 0)
        self._dump = struct.pack("=BxxxiI", socket.AF_UNSPEC, 0, wanted)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def all(self) -> dict[int, Read]:
        """The counters of every device, by interface index; OSError."""
        sequence = self._send(RTM_GETSTATS, NLM_F_DUMP, self._dump)
        found: dict[int, Read] = {}
        while True:
            size = self._socket.recv_into(self._buffer)
            at = 0
            while at + HEADER_LEN <= size:
                length, type_, _flags, answered, _pid = HEADER.unpack_from(self._buffer, at)
                if length < HEADER_LEN or at + length > size:
                    break
                if answered == sequence:
                    if type_ == RTM_NEWSTATS:
                        index, read = self._read(at + HEADER_LEN, at + length)
                        found[index] = read
                    elif type_ == NLMSG_DONE:
                        return found
                    elif type_ == NLMSG_ERROR:
                        raise self._error(at)
                at += length + 3 & ~3

    def _read(self, at: int, end: int) -> tuple[int, Read]:
        index = int.from_bytes(self._view[at + 4 : at + 8], sys.byteorder)
        whole, cpu = NOTHING, None
        at += _STATS_HEADER
        while at + _ATTRIBUTE.size <= end:
            length, type_ = _ATTRIBUTE.unpack_from(self._buffer, at)
            if length < _ATTRIBUTE.size or at + length > end:
                break
            kind = type_ & NLA_TYPE_MASK
            if kind == _LINK_64 and length >= _STATS.size + 4:
                whole = Stats._make(_STATS.unpack_from(self._buffer, at + 4))
            elif kind == _OFFLOAD_XSTATS:
                for inner, value in attributes(bytes(self._view[at + 4 : at + length])):
                    if inner & NLA_TYPE_MASK == _CPU_HIT and len(value) >= _STATS.size:
                        cpu = Stats._make(_STATS.unpack_from(value))
            at += length + 3 & ~3
        return index, Read(whole, cpu)

    def one(self, index: int, nsid: int) -> Stats | None:
        """The counters of the device *index* of the namespace that has the id *nsid* in this reader's; None when there
        is no such device. RTM_GETSTATS has no way to ask for another namespace, so this is RTM_GETLINK; OSError."""
        payload = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)
        payload += attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", nsid))
        sequence = self._send(RTM_GETLINK, 0, payload)
        while True:
            size = self._socket.recv_into(self._buffer)
            if size < HEADER_LEN:
                continue
            length, type_, _flags, answered, _pid = HEADER.unpack_from(self._buffer)
            if answered != sequence:
                continue
            return self._stats64(HEADER_LEN + _LINK_HEADER, min(length, size)) if type_ == RTM_NEWLINK else None

    def _stats64(self, at: int, end: int) -> Stats:
        while at + _ATTRIBUTE.size <= end:
            length, type_ = _ATTRIBUTE.unpack_from(self._buffer, at)
            if type_ == _IFLA_STATS64 and at + 4 + _STATS.size <= end:
                return Stats._make(_STATS.unpack_from(self._buffer, at + 4))
            if length < _ATTRIBUTE.size:
                break
            at += length + 3 & ~3
        return NOTHING

    def _send(self, type: int, flags: int, payload: bytes) -> int:
        self._sequence = self._sequence % 0xFFFF_FFFF + 1
        self._socket.send(build(type, flags | NLM_F_REQUEST, self._sequence, 0, payload))
        return self._sequence

    def _error(self, at: int) -> OSError:
        (number,) = struct.unpack_from("=i", self._buffer, at + HEADER_LEN)
        return OSError(-number, os.strerror(-number))


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
