# SPDX-License-Identifier: Apache-2.0
"""Network namespaces, veth pairs and raw frames for the tests of the pipeline. Nothing has a name on the host."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pyroute2 import IPRoute

from asap2.namespaces import in_netns
from tests.system.patience import PATIENCE

T = TypeVar("T")

_CLONE_NEWNET = 0x4000_0000
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_VNET_HDR = 263, 8, 15  # include/uapi/linux/if_packet.h
_SO_RCVMARK, _SO_MARK, _SO_RCVBUFFORCE = 75, 36, 33  # include/uapi/asm-generic/socket.h
_TP_STATUS_VLAN_VALID, _TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
_OUTGOING = 4
ETH_P_ALL = 3


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether *holds* comes true: a packet may still wait in a queue of the kernel's."""
    deadline = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < deadline:
        pass
    return holds()


class Namespace:
    """A network namespace that ends when it is closed and nothing else holds it."""

    def __init__(self) -> None:
        self.fd = -1
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            in_netns(here, self._make)
        finally:
            os.close(here)

    def _make(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    def run(self, function: Callable[[], T]) -> T:
        """Call *function* in here."""
        return in_netns(self.fd, function)

    def links(self, function: Callable[[Any], T]) -> T:
        """Call *function* with an IPRoute of this namespace."""

        def body() -> T:
            with IPRoute() as ipr:
                return function(ipr)

        return self.run(body)

    def ifindex(self, name: str) -> int:
        """The number of a device."""
        return self.run(lambda: socket.if_nametoindex(name))

    def mac(self, name: str) -> bytes:
        """A device's address."""
        text = self.links(lambda ipr: ipr.link("get", ifname=name)[0].get_attr("IFLA_ADDRESS"))
        return bytes.fromhex(text.replace(":", ""))

    def received(self, name: str) -> int:
        """Packets that a device has received."""
        stats = self.links(lambda ipr: ipr.link("get", ifname=name)[0].get_attr("IFLA_STATS64"))
        return int(stats["rx_packets"])

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def veth(near: Namespace, name: str, far: Namespace, far_name: str, mac: bytes | None = None) -> None:
    """A pair of devices, both up; *mac* is the near end's address."""

    def make(ipr: Any) -> None:
        address = {"address": mac.hex(":")} if mac else {}
        ipr.link("add", ifname=name, kind="veth", peer={"ifname": far_name, "net_ns_fd": far.fd}, **address)
        ipr.link("set", ifname=name, state="up")

    near.links(make)
    far.links(lambda ipr: ipr.link("set", ifname=far_name, state="up"))


class Tap:
    """Raw frames in and out of one device, tags in their place in the frame."""

    def __init__(self, namespace: Namespace, name: str, *, outgoing: bool = False, mark: int = 0) -> None:
        self._socket = namespace.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)))
        namespace.run(lambda: self._socket.bind((name, ETH_P_ALL)))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVMARK, 1)
        if mark:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        self._namespace = namespace
        self._name = name
        self._outgoing = outgoing
        self.mark = 0
        self.protocol = 0

    def send(self, *frames: bytes) -> None:
        """Transmit each frame."""
        for frame in frames:
            self._socket.send(frame)

    def send_super_packet(self, frame: bytes, segment: int) -> None:
        """Transmit a TCP packet without options or tags in segments of *segment* octets, its checksum incomplete."""
        version4 = frame[12:14] == b"\x08\x00"
        start, kind = (34, 1) if version4 else (54, 4)  # VIRTIO_NET_HDR_GSO_TCPV4, _TCPV6
        vnet = struct.pack("=BBHHHH", 1, kind, start + 20, segment, start, 16)  # VIRTIO_NET_HDR_F_NEEDS_CSUM
        with self._namespace.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as raw:
            raw.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            raw.bind((self._name, 0))
            raw.send(vnet + frame)

    def fileno(self) -> int:
        """To be waited for."""
        return self._socket.fileno()

    def receive(self, timeout: float = PATIENCE) -> bytes:
        """The next frame; its mark is in ``mark``, the type that the kernel gives it in ``protocol``. TimeoutError."""
        while True:
            if not select.select([self._socket], [], [], timeout)[0]:
                raise TimeoutError("no packet came")
            data, messages, _, address = self._socket.recvmsg(65536, 256)
            if (address[2] == _OUTGOING) is not self._outgoing:
                continue
            self.protocol = address[1]
            for level, kind, content in messages:
                if level == socket.SOL_SOCKET and kind == _SO_MARK:
                    self.mark = int(struct.unpack("=I", content[:4])[0])
                if level == _SOL_PACKET and kind == _PACKET_AUXDATA:
                    status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", content[:20])
                    if status & _TP_STATUS_VLAN_VALID:
                        tpid = tpid if status & _TP_STATUS_VLAN_TPID_VALID else 0x8100
                        data = data[:12] + struct.pack(">HH", tpid, tci) + data[12:]
            return data

    def receive_all(self, last: bytes) -> list[bytes]:
        """The frames that come before *last* does."""
        frames = []
        while (frame := self.receive()) != last:
            frames.append(frame)
        return frames

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def ethernet(
    dst: bytes, src: bytes, payload: bytes = b"", ethertype: int = 0x88B5, tags: tuple[tuple[int, int], ...] = ()
) -> bytes:
    """A frame of at least 60 bytes; *tags* are (TPID, TCI), the outer first. 0x88b5 is for local experiments."""
    header = dst + src + b"".join(struct.pack(">HH", *tag) for tag in tags) + struct.pack(">H", ethertype)
    return (header + payload).ljust(60, b"\0")
