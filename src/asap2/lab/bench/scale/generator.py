# SPDX-License-Identifier: Apache-2.0
"""Prebuilt frames out of a guest's device as fast as one processor can, and what a device has received.

A packet socket (packet(7)) past the queueing discipline, many frames for each sendmmsg(2): a frame costs no Python. The
kernel's packet generator would be faster, but is a module that few machines have loaded.
"""

from __future__ import annotations

import ctypes
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from asap2.namespaces import in_netns
from asap2.netlink.sendmmsg import IOVEC, MMSGHDR, send_prepared

_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20  # include/uapi/linux/if_packet.h
BATCH = 256
"""Frames for each system call."""


class Generator:
    """Sends *frames*, all of one length, by *device* of the network namespace open at *netns*."""

    def __init__(self, netns: int, device: str, frames: Sequence[bytes]) -> None:
        self._socket = in_netns(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        in_netns(netns, lambda: self._socket.bind((device, 0)))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self._next = 0
        size = len(frames[0])
        self._data = ctypes.create_string_buffer(b"".join(frames))
        start = ctypes.addressof(self._data)
        self._count = len(frames)
        self._vectors = ctypes.create_string_buffer(IOVEC.size * len(frames))
        self._messages = ctypes.create_string_buffer(MMSGHDR.size * len(frames))
        vectors = ctypes.addressof(self._vectors)
        for at in range(len(frames)):
            IOVEC.pack_into(self._vectors, at * IOVEC.size, start + at * size, size)
            MMSGHDR.pack_into(self._messages, at * MMSGHDR.size, 0, 0, vectors + at * IOVEC.size, 1, 0, 0, 0, 0)

    def send_for(self, seconds: float, flows: int) -> float:
        """Send the first *flows* frames in turn for so long; how many seconds it was. OSError."""
        began = time.perf_counter()
        end = began + seconds
        at = 0
        while (now := time.perf_counter()) < end:
            at = self._send(at, min(BATCH, flows - at)) % flows
        return now - began

    def rate(self, seconds: float, flows: int, device: str) -> float:
        """Packets a second that *device* of this thread's network namespace receives of :meth:`send_for`."""
        before = received(device)
        elapsed = self.send_for(seconds, flows)
        return (received(device) - before) / elapsed

    def send_some(self, count: int) -> None:
        """Send *count* frames, from where the last such call ended, round and round. OSError."""
        while count > 0:
            some = min(BATCH, count, self._count - self._next)
            sent = self._send(self._next, some) - self._next
            self._next = (self._next + sent) % self._count
            count -= sent

    def _send(self, at: int, count: int) -> int:
        """Send *count* frames from number *at* on; the number of the next."""
        return at + send_prepared(self._socket.fileno(), self._messages, at, count)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def received(device: str) -> int:
    """Packets that *device* of this thread's network namespace has received."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == device:
            return int(figures.split()[1])
    raise OSError(19, f"there is no network device {device}")
