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

from asap2.nic.netns import in_netns
from asap2.nic.rules import SetTunnel
from asap2.nic.silicon.events import UpcallContext
from asap2.nic.silicon.pipeline import Pipeline

log = logging.getLogger(__name__)

SO_RCVBUFFORCE = 33
SO_RCVMARK = 75
SO_NO_CHECK = 11
UDP_NO_CHECK6_TX = 101
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3
SOL_PACKET = 263
PACKET_OUTGOING = 4
ETH_P_ALL = 0x0003
BATCH = 256
_RECEIVE_BUFFER = 32 << 20
_MAX_FRAME = 1 << 16
_ANCILLARY = 256
PACKET_AUXDATA = 8
TP_STATUS_VLAN_VALID = 1 << 4
_AUXDATA = struct.Struct("=3I4H")
"""``struct tpacket_auxdata``."""


class PacketPath:
    """The packet sockets of one datapath: reads upcalls on *upcall_device*, writes to any device."""

    def __init__(self, pipeline: Pipeline, upcall_device: str, sink_netns: int) -> None:
        self._pipeline = pipeline
        self.receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        self.receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self.receiver.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
        self.receiver.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.receiver.bind((upcall_device, ETH_P_ALL))
        self._sender = _sender()
        self._sink_sender = in_netns(sink_netns, _sender)

    def close(self) -> None:
        """Close the sockets."""
        for sock in (self.receiver, self._sender, self._sink_sender):
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

    def send(self, device: str, frame: bytes) -> None:
        """Send *frame* out of a device of the node; a refusal (down, too long) is a drop."""
        self._send(self._sender, device, frame)

    def send_to_sink(self, far_end: str, frame: bytes) -> None:
        """Send *frame* from the far end of an internal port: the node receives it there."""
        self._send(self._sink_sender, far_end, frame)

    def send_in_vxlan(self, tunnel: SetTunnel, port: int, frame: bytes) -> None:
        """Send *frame* in VXLAN to UDP *port* of the tunnel's other end, by the node's own routes (RFC 7348)."""
        family = socket.AF_INET if len(tunnel.dst) == 4 else socket.AF_INET6
        header = struct.pack("!II", 0x0800_0000, tunnel.tun_id << 8 & 0xFFFF_FFFF)
        try:
            with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sender:
                if family == socket.AF_INET:
                    sender.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, not tunnel.csum)
                    sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE * tunnel.dont_fragment)
                    sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, tunnel.ttl or 64)
                    sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tunnel.tos)
                else:
                    sender.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_TX, not tunnel.csum)
                    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, tunnel.ttl or 64)
                    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tunnel.tos)
                if any(tunnel.src):
                    sender.bind((socket.inet_ntop(family, tunnel.src), 0))
                sender.sendto(header + frame, (socket.inet_ntop(family, tunnel.dst), port))
        except OSError as error:
            log.debug("cannot send %d bytes into a tunnel: %s", len(frame), error)

    def _send(self, sender: socket.socket, device: str, frame: bytes) -> None:
        try:
            sender.sendto(frame, (device, ETH_P_ALL))
        except OSError as error:
            log.debug("cannot send %d bytes to %s: %s", len(frame), device, error)


def _sender() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)


SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCETHTOOL = 0x8913, 0x8914, 0x8946
IFF_UP = 1
ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO = 0x17, 0x1F, 0x24, 0x2C
ETHTOOL_SFLAGS = 0x26


def prepare(device: str) -> None:
    """Make *device* fit for upcalls: no transmit offloads, so that what leaves it is as on a wire; no IPv6; up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command, value in ((ETHTOOL_STXCSUM, 0), (ETHTOOL_STSO, 0), (ETHTOOL_SGSO, 0), (ETHTOOL_SFLAGS, 0)):
            data = ctypes.create_string_buffer(struct.pack("=II", command, value))
            request = struct.pack("=16sQ8x", os.fsencode(device), ctypes.addressof(data))
            with contextlib.suppress(OSError):
                fcntl.ioctl(control, SIOCETHTOOL, request)
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
        request = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("=16sH22x", os.fsencode(device), 0))
        flags = struct.unpack_from("=H", request, 16)[0]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("=16sH22x", os.fsencode(device), flags | IFF_UP))


def device_counters() -> dict[str, tuple[int, ...]]:
    """Counters of every device of this network namespace, in the order of struct ovs_vport_stats:
    packets and bytes received and sent, errors, drops (/proc/net/dev)."""
    counters: dict[str, tuple[int, ...]] = {}
    for line in Path(f"/proc/{os.getpid()}/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        n = [int(word) for word in rest.split()]
        counters[name.strip()] = (n[1], n[9], n[0], n[8], n[2], n[10], n[3], n[11])
    return counters
