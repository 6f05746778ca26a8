# SPDX-License-Identifier: Apache-2.0
"""Floods of new flows: datagrams of which each is a flow of its own, sent from a guest until told to stop."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Self

from tests.system.offload.labs import Bench
from tests.system.patience import PATIENCE

MOST = 60_000
PORT = 9
SO_RCVBUFFORCE = 33


def datagram(source: str, destination: str, number: int) -> bytes:
    """A packet whose source port and payload only *number*, less than :data:`MOST`, has."""
    payload = struct.pack(">HHHHI", 1024 + number, PORT, 12, 0, number)
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack(">H", ~total & 0xFFFF) + header[12:] + payload


def mac(guest: int) -> bytes:
    """The address of guest number *guest* of the lab."""
    return bytes((2, 0, 0, 0, 1, guest))


def frame(source: int, destination: int, number: int) -> bytes:
    """The same from one guest of the lab to another, by their numbers."""
    packet = datagram(f"10.58.0.{source}", f"10.58.0.{destination}", number)
    return mac(destination) + mac(source) + b"\x08\0" + packet


class Flood:
    """Sends from one guest to another while the block runs, at most :data:`MOST` frames; ``sent`` counts them."""

    def __init__(self, bench: Bench, source: int, destination: int) -> None:
        self._sender = bench.socket(f"vm{source}", socket.AF_PACKET, socket.SOCK_RAW, ("eth0", 0))
        self._frames = [frame(source, destination, number) for number in range(MOST)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = 0

    def _send(self) -> None:
        for each in self._frames:
            if self._over.is_set():
                break
            self._sender.send(each)
            self.sent += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._sender.close()


class Receiver:
    """The datagrams that a guest gets."""

    def __init__(self, bench: Bench, guest: int) -> None:
        self._socket = bench.socket(f"vm{guest}", socket.AF_INET, socket.SOCK_DGRAM, (f"10.58.0.{guest}", PORT))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 128 << 20)
        self._socket.settimeout(PATIENCE)

    def one(self) -> int:
        """The number of the next. TimeoutError."""
        return int.from_bytes(self._socket.recv(64), "big")

    def waiting(self) -> int:
        """How many have come, without another look."""
        self._socket.setblocking(False)
        count = 0
        try:
            while True:
                self._socket.recv(64)
                count += 1
        except BlockingIOError:
            return count

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
