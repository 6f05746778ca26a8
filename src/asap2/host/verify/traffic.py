# SPDX-License-Identifier: Apache-2.0
"""A bounded flow of packets to a peer, which need not run anything: ICMP echo, UDP, TCP; and what echoes UDP and TCP.

Every kind begins with a few packets that bring the flow's rules into being, and a pause for them to be in place.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asap2.host.verify import ECHO_PORT

PAUSE = 0.7
"""Seconds between the first packets and the others: a bridge that has just learned where the peer is takes its floods
back when the switch looks next, twice a second (max-revalidator)."""
PATIENCE = 1.0
"""Seconds to wait for an answer."""
WINDOW = 16
"""The most packets in flight."""
PAYLOAD = bytes(56)
NEIGHBOURS = Path("/proc/thread-self/net/arp")
ATF_COM = 2
"""A neighbour whose MAC is known (linux/if_arp.h)."""
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
_ICMP = struct.Struct("!BBHHH")
_TCP_INFO_SEGMENTS = struct.Struct("=II")
_TCP_INFO_AT = 136
"""Where tcpi_segs_out and tcpi_segs_in lie in struct tcp_info (linux/tcp.h, since 4.2)."""


class TrafficError(Exception):
    """The traffic could not be sent; the text says why."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent and came back, in packets, as the sender counts; ``how`` says what kind of traffic it was:
    "echo", "one way" (nobody answers), "handshakes" (no one listens, and each try is refused)."""

    sent: int
    received: int
    how: str
    port: int = 0


def address_family(peer: str) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET if ipaddress.ip_address(peer).version == 4 else socket.AF_INET6


def _opened(peer: str, kind: int, device: str | None, protocol: int = 0) -> socket.socket:
    opened = socket.socket(address_family(peer), kind, protocol)
    if device:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(device))
    return opened


def icmp(peer: str, count: int, device: str | None = None, _port: int = 0) -> Sent:
    """Send echo requests: *count* packets, including replies."""
    six = address_family(peer) == socket.AF_INET6
    kind = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    request, reply = (128, 129) if six else (8, 0)
    name = os.getpid() & 0xFFFF
    with _opened(peer, socket.SOCK_RAW, device, kind) as raw:
        raw.connect((peer, 0))

        def send(number: int) -> None:
            packet = _ICMP.pack(request, 0, 0, name, number & 0xFFFF) + PAYLOAD
            raw.send(packet if six else _ICMP.pack(request, 0, _sum(packet), name, number & 0xFFFF) + PAYLOAD)

        def receive() -> bool:
            data = raw.recv(2048)
            at = 0 if six else (data[0] & 15) * 4
            return len(data) >= at + 8 and data[at] == reply and data[at + 4 : at + 6] == name.to_bytes(2, "big")

        sent, received = _windowed(raw, max(2, count // 2), send, receive)
    if not received:
        raise TrafficError(f"nothing comes back from {peer}: {sent} echo requests, no reply{_nobody(peer)}")
    return Sent(sent, received, "echo")


def udp(peer: str, count: int, device: str | None = None, port: int = ECHO_PORT) -> Sent:
    """Send datagrams: half of *count* if the peer echoes them, else *count* one way."""
    with _opened(peer, socket.SOCK_DGRAM, device) as opened:
        opened.connect((peer, port))

        def send(_number: int) -> None:
            for _ in range(2):  # an error of an earlier datagram (ICMP port unreachable) is told once
                with contextlib.suppress(ConnectionRefusedError):
                    try:
                        opened.send(PAYLOAD)
                    except TimeoutError:  # what waits for the neighbour fills the socket's buffer
                        raise TrafficError(f"no datagram gets out to {peer}{_nobody(peer)}") from None
                    return

        def receive() -> bool:
            return bool(opened.recv(2048))

        send(0)
        if _answers(opened, receive):
            sent, received = _windowed(opened, max(2, count // 2), send, receive)
            return Sent(sent + 1, received + 1, "echo", port)
        time.sleep(PAUSE)
        for number in range(count - 1):
            send(number)
            if number % WINDOW == 0:
                time.sleep(0.001)
        return Sent(count, 0, "one way", port)


def tcp(peer: str, count: int, device: str | None = None, port: int = ECHO_PORT) -> Sent:
    """A connection with short messages both ways when the other end echoes, else one way, else refused handshakes."""
    with _opened(peer, socket.SOCK_STREAM, device) as opened:
        opened.settimeout(PATIENCE * 3)
        try:
            opened.connect((peer, port))
        except ConnectionRefusedError:
            return _handshakes(peer, count, device, port)
        except TimeoutError:
            raise TrafficError(f"{peer} does not answer to TCP at port {port}{_nobody(peer)}") from None
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.settimeout(PATIENCE)
        how = "echo"
        time.sleep(PAUSE)
        try:
            for _ in range(max(2, count // 2)):
                opened.send(PAYLOAD)
                if how == "echo":
                    try:
                        if not opened.recv(2048):
                            break
                    except TimeoutError:
                        how = "one way"
                else:
                    time.sleep(0.001)
        except (ConnectionError, TimeoutError):
            how = "one way"
        sent, received = _segments(opened)
    return Sent(sent, received, how, port)


def _handshakes(peer: str, count: int, device: str | None, port: int) -> Sent:
    """Connections from one port to one where nobody listens: each is a SYN and a RST of the same flow."""
    tries, source = 0, 0
    for _ in range(max(2, count // 2)):
        with _opened(peer, socket.SOCK_STREAM, device) as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.settimeout(PATIENCE)
            opened.bind(("", source))
            source = opened.getsockname()[1]
            with contextlib.suppress(ConnectionRefusedError, TimeoutError):
                opened.connect((peer, port))
        tries += 1
        if tries == 1:
            time.sleep(PAUSE)
    return Sent(tries, tries, "handshakes", port)


def _nobody(peer: str) -> str:
    """Words for a sentence, when the neighbour *peer* does not answer ARP."""
    with contextlib.suppress(OSError):
        for line in NEIGHBOURS.read_text(errors="replace").split("\n")[1:-1]:
            fields = line.split()
            if fields[0] == peer and int(fields[2], 16) & ATF_COM == 0:
                return f"; nobody answers ARP for {peer} at {fields[5]}"
    return ""


def _segments(opened: socket.socket) -> tuple[int, int]:
    """The segments that a connection sent and received, as the kernel counts."""
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(info) < _TCP_INFO_AT + _TCP_INFO_SEGMENTS.size:
        return 0, 0
    sent, received = _TCP_INFO_SEGMENTS.unpack_from(info, _TCP_INFO_AT)
    return int(sent), int(received)


def _answers(opened: socket.socket, receive: Callable[[], bool]) -> bool:
    opened.settimeout(PATIENCE / 2)
    try:
        return receive()
    except (TimeoutError, ConnectionRefusedError):
        return False


def _windowed(
    opened: socket.socket, count: int, send: Callable[[int], None], receive: Callable[[], bool]
) -> tuple[int, int]:
    """Send *count* packets, few in flight at a time; return how many were sent, and how many replies came."""
    sent = received = lost = 0
    opened.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(opened, selectors.EVENT_READ)

        def wait(seconds: float) -> int:
            answers = 0
            if selector.select(seconds):
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    while True:
                        answers += receive()
            return answers

        while sent < count:
            with contextlib.suppress(BlockingIOError):
                send(sent)
                sent += 1
            if sent == 1:
                received += wait(PATIENCE)
                time.sleep(PAUSE)
            while sent - received - lost >= WINDOW:
                answers = wait(PATIENCE)
                received += answers
                if not answers:
                    lost = sent - received
            if sent >= WINDOW * 4 and not received:
                break
        end = time.monotonic() + PATIENCE
        while received < sent and time.monotonic() < end:
            received += wait(0.1)
    return sent, received


def _sum(data: bytes) -> int:
    """The checksum of the Internet (RFC 1071) of an even number of octets."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


KINDS: dict[str, Callable[[str, int, str | None, int], Sent]] = {"icmp": icmp, "udp": udp, "tcp": tcp}


def serve(port: int, seconds: float, ready: Callable[[], None]) -> None:
    """Echo UDP and TCP at *port* for a while; call *ready* when it is reachable."""
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True))
        datagrams = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.bind(("", port))
        selector.register(listener, selectors.EVENT_READ)
        selector.register(datagrams, selectors.EVENT_READ)
        ready()
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                opened = key.fileobj
                assert isinstance(opened, socket.socket)
                if opened is listener:
                    connection, _ = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(stack.enter_context(connection), selectors.EVENT_READ)
                elif opened is datagrams:
                    with contextlib.suppress(OSError):
                        data, peer = datagrams.recvfrom(2048)
                        datagrams.sendto(data, peer)
                elif not _echo(opened):
                    selector.unregister(opened)
                    opened.close()


def _echo(opened: socket.socket) -> bool:
    """Echo what came; return whether the connection is still open."""
    try:
        data = opened.recv(65536)
        opened.sendall(data)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return bool(data)
