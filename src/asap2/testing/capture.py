# SPDX-License-Identifier: Apache-2.0
"""Capture the packets that pass a network device of a node or guest, by a packet socket (packet(7)) of this process.

Unlike a tcpdump that is interrupted, a capture that has ended holds every packet that passed before: there is no buffer
that was not read.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asap2 import socket_filter

__tracebackhide__ = True  # pytest shows the line of the test, not ours

_ETH_P_ALL, _ETH_P_8021Q, _SOL_PACKET = 3, 0x8100, 263
_PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS, _PACKET_AUXDATA = 1, 6, 8
_PACKET_MR_PROMISC, _PACKET_OUTGOING = 1, 4
_TP_STATUS_VLAN_VALID, _TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
"""include/uapi/linux/if_packet.h and if_ether.h."""
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
"""include/uapi/asm-generic/socket.h."""
_SIOCGIFINDEX = 0x8933
"""include/uapi/linux/sockios.h."""
_AUXDATA = struct.Struct("=IIIHHHH")
_TIMESPEC = struct.Struct("=qq")
_ADDRESSES = 12
"""Octets of the two addresses, behind which the tags are."""
_LARGEST = 1 << 18
"""Octets of the largest packet that is kept whole: more than any device has."""
_BUFFER = 64 << 20
"""Octets of packets that may wait to be read."""
_PCAP_NANOSECONDS, _ETHERNET = 0xA1B23C4D, 1
"""The magic number and the link type (pcap-savefile(5))."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A frame as it is on the wire, with its VLAN tags; ``outgoing`` if the device sent it; ``time`` in seconds since
    the epoch."""

    time: float
    data: bytes
    outgoing: bool


class Capture:
    """The packets that pass *device* while a ``with`` block runs. *program* is the filter as ``tcpdump -ddd`` prints
    it, empty for none."""

    def __init__(self, where: str, open_socket: Callable[[], socket.socket], device: str, program: str) -> None:
        self.device = device
        self._where = where
        self._open, self._program = open_socket, program
        self._packets: list[Packet] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Capture:
        self._socket = self._open()
        try:
            self._prepare()
            self._end, self._end_writer = os.pipe()
        except BaseException:
            self._socket.close()
            raise
        self._reader = threading.Thread(target=self._read, name=f"capture of {self.device}", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._end_writer)
        self._reader.join()
        os.close(self._end)
        lost = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
        self._socket.close()
        if lost:
            raise AssertionError(
                f"the capture of {self.device} in {self._where} lost {lost} packets: narrow its filter"
            )

    @property
    def packets(self) -> tuple[Packet, ...]:
        """What was captured so far; after the block, all of it."""
        return tuple(self._packets)

    def wait_for(self, count: int, timeout: float = 30) -> tuple[Packet, ...]:
        """Return when *count* packets were captured; AssertionError if that takes more than *timeout* seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._packets) >= count, timeout):
                raise AssertionError(
                    f"{len(self._packets)} packets passed {self.device} in {self._where} within {timeout:g} s, "
                    f"not {count}:\n{self}"
                )
        return self.packets

    def save(self, path: Path | str) -> None:
        """Write a pcap file, which Wireshark and tcpdump read."""
        Path(path).write_bytes(self._pcap())

    def __str__(self) -> str:
        """What tcpdump prints of the packets, one a line."""
        if not self._packets:
            return "(no packets)"
        command = ["tcpdump", "-nr", "-"]
        return subprocess.run(command, input=self._pcap(), capture_output=True, check=True).stdout.decode().rstrip()

    def _prepare(self) -> None:
        sock = self._socket
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        if self._program:
            socket_filter.attach(sock, socket_filter.parsed(self._program))
        sock.bind((self.device, _ETH_P_ALL))
        asked = fcntl.ioctl(sock, _SIOCGIFINDEX, struct.pack("@16si20x", self.device.encode(), 0))
        index = struct.unpack_from("@i", asked, 16)[0]
        membership = struct.pack("=iHH8s", index, _PACKET_MR_PROMISC, 0, b"")
        sock.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
        sock.setblocking(False)

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._end, select.POLLIN)
        ending = False
        while not ending:
            ending = any(descriptor == self._end for descriptor, _ in poll.poll())
            while True:
                try:
                    data, auxiliary, _, address = self._socket.recvmsg(_LARGEST, 256)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENETDOWN:  # the device was set down, which is told once
                        raise
                    continue
                with self._changed:
                    self._packets.append(_packet(data, auxiliary, address))
                    self._changed.notify_all()

    def _pcap(self) -> bytes:
        parts = [struct.pack("=IHHiIII", _PCAP_NANOSECONDS, 2, 4, 0, 0, _LARGEST, _ETHERNET)]
        for packet in self._packets:
            seconds, nanoseconds = divmod(round(packet.time * 1e9), 10**9)
            length = len(packet.data)
            parts += struct.pack("=IIII", seconds, nanoseconds, length, length), packet.data
        return b"".join(parts)


def _packet(data: bytes, auxiliary: list[tuple[int, int, bytes]], address: tuple[object, ...]) -> Packet:
    """The frame with the tag that the kernel has taken out of it, and what it says about the frame."""
    time = 0.0
    for level, kind, value in auxiliary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(value)
            time = seconds + nanoseconds / 1e9
        elif level == _SOL_PACKET and kind == _PACKET_AUXDATA:
            status, _, _, _, _, tci, protocol = _AUXDATA.unpack_from(value)
            if status & _TP_STATUS_VLAN_VALID:
                tag = protocol if status & _TP_STATUS_VLAN_TPID_VALID else _ETH_P_8021Q
                data = data[:_ADDRESSES] + struct.pack("!HH", tag, tci) + data[_ADDRESSES:]
    return Packet(time, data, address[2] == _PACKET_OUTGOING)
