# SPDX-License-Identifier: Apache-2.0
"""Packets between the node's pipeline and user space: upcalls in, executed packets out.

The pipeline sends a packet that user space must see to the egress of ``ovs-system``, its context in a slot that the
mark names. That device has no transmit offloads, so the kernel has cut super-packets into segments and completed
checksums by the time a packet socket there sees it, as its datapath does before an upcall. A VLAN tag that is not in
line by then, the socket tells of.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from asap2 import socket_filter
from asap2.nic.ethertypes import ETH_P_ALL
from asap2.nic.model import UPCALL_MTU
from asap2.nic.silicon.abi import UPCALL_MAGIC, UPCALL_MAGIC_MASK
from asap2.nic.silicon.events import UpcallContext
from asap2.nic.silicon.pipeline import Pipeline

log = logging.getLogger(__name__)

SO_RCVBUFFORCE = 33
SO_RCVMARK = 75
SOL_PACKET = 263
PACKET_OUTGOING = 4
BATCH = 256
_RECEIVE_BUFFER = 32 << 20
_MAX_FRAME = 1 << 16
_ANCILLARY = 256
PACKET_AUXDATA = 8
TP_STATUS_VLAN_VALID = 1 << 4
_AUXDATA = struct.Struct("=3I4H")
"""``struct tpacket_auxdata``."""


class PacketPath:
    """The packet sockets of one datapath: reads upcalls on *upcall_device*, and hands packets in there."""

    def __init__(self, pipeline: Pipeline, upcall_device: str) -> None:
        self._pipeline = pipeline
        self.receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        self.receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self.receiver.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
        self.receiver.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        _attach_filter(self.receiver)
        self.receiver.bind((upcall_device, ETH_P_ALL))
        self._sender = _sender()
        self._device, self._mark = upcall_device, 0

    def close(self) -> None:
        """Close the sockets."""
        for sock in (self.receiver, self._sender):
            sock.close()

    def upcalls(self) -> Iterator[tuple[UpcallContext, bytes]]:
        """Packets that wait, at most a batch: context and frame."""
        for _ in range(BATCH):
            try:
                packet, ancillary, _flags, address = self.receiver.recvmsg(_MAX_FRAME, _ANCILLARY)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ENETDOWN:
                    break
                raise
            if address[2] != PACKET_OUTGOING:
                continue
            mark = 0
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SO_MARK:
                    (mark,) = struct.unpack("=I", data[:4])
                elif level == SOL_PACKET and kind == PACKET_AUXDATA:
                    status, _, _, _, _, tci, tpid = _AUXDATA.unpack(data[: _AUXDATA.size])
                    if status & TP_STATUS_VLAN_VALID:
                        packet = packet[:12] + struct.pack("!HH", tpid, tci) + packet[12:]
            context = self._pipeline.read_upcall(mark)
            if context is not None:
                yield context, packet

    def hand_in(self, frame: bytes, mark: int) -> None:
        """Give *frame* to the program at the upcall device, which does with it what *mark* says before this returns."""
        if mark != self._mark:
            self._sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
            self._mark = mark
        try:
            self._sender.sendto(frame, (self._device, ETH_P_ALL))
        except OSError as error:
            log.debug("%d bytes are not handed in at %s: %s", len(frame), self._device, error)


def _sender() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)


_MARK = 0xFFFF_F000 + 20  # SKF_AD_OFF + SKF_AD_MARK
_ONLY_UPCALLS = (
    (0x20, 0, 0, _MARK),
    (0x54, 0, 0, UPCALL_MAGIC_MASK),
    (0x15, 0, 1, UPCALL_MAGIC),
    (0x06, 0, 0, 0xFFFF_FFFF),
    (0x06, 0, 0, 0),
)
"""A classic BPF program (linux/filter.h): packets with the mark of an upcall, and no others."""


def _attach_filter(sock: socket.socket) -> None:
    """Let *sock* receive upcalls only: packets for internal ports in other network namespaces use the device too."""
    socket_filter.attach(sock, _ONLY_UPCALLS)


SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFMTU, SIOCSIFMTU, SIOCETHTOOL = 0x8913, 0x8914, 0x8921, 0x8922, 0x8946
IFF_UP = 1
ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO = 0x17, 0x1F, 0x24
ETHTOOL_SFLAGS = 0x26


def prepare(device: str) -> None:
    """Make *device* fit for upcalls: no transmit offloads, so that what leaves it is as on a wire; no IPv6; up; with
    room for packets that were put together of fragments."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command, value in ((ETHTOOL_STXCSUM, 0), (ETHTOOL_STSO, 0), (ETHTOOL_SGSO, 0), (ETHTOOL_SFLAGS, 0)):
            data = ctypes.create_string_buffer(struct.pack("=II", command, value))
            request = struct.pack("=16sQ8x", os.fsencode(device), ctypes.addressof(data))
            with contextlib.suppress(OSError):
                fcntl.ioctl(control, SIOCETHTOOL, request)
        with contextlib.suppress(OSError):
            fcntl.ioctl(control, SIOCSIFMTU, struct.pack("=16si20x", os.fsencode(device), UPCALL_MTU))
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
        request = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("=16sH22x", os.fsencode(device), 0))
        flags = struct.unpack_from("=H", request, 16)[0]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("=16sH22x", os.fsencode(device), flags | IFF_UP))


def is_fit(device: str) -> bool:
    """Whether *device* is up and has room as :func:`prepare` leaves it. For the kernel's datapath neither matters, so
    people and programs may take it down or set its MTU."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        named = struct.pack("=16s24x", os.fsencode(device))
        try:
            flags, mtu = (fcntl.ioctl(control, command, named) for command in (SIOCGIFFLAGS, SIOCGIFMTU))
        except OSError:  # it is gone
            return True
    return bool(struct.unpack_from("=H", flags, 16)[0] & IFF_UP) and struct.unpack_from("=i", mtu, 16)[0] == UPCALL_MTU


def device_counters() -> dict[str, tuple[int, ...]]:
    """Counters of every device of this network namespace (/proc/net/dev), as :func:`counters_in` gives them."""
    return counters_in(Path(f"/proc/{os.getpid()}/net/dev").read_bytes())


def counters_in(table: bytes) -> dict[str, tuple[int, ...]]:
    """Counters of each device of a *table* like /proc/net/dev, in the order of struct ovs_vport_stats: packets and
    bytes received and sent, errors, drops. A device's name may have any octets but those that the kernel takes for
    space, and a colon (dev_valid_name)."""
    counters: dict[str, tuple[int, ...]] = {}
    for line in table.split(b"\n")[2:-1]:
        name, _, rest = line.partition(b":")
        n = [int(word) for word in rest.split()]
        counters[os.fsdecode(name.lstrip(b" "))] = (n[1], n[9], n[0], n[8], n[2], n[10], n[3], n[11])
    return counters
