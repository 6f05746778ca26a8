# SPDX-License-Identifier: Apache-2.0
"""UDP as fast as it goes, many datagrams in one system call. ``sink`` and ``source`` run in two guests.

    python -m asap2.lab.bench.rates.udp sink PORT WARM_UP SECONDS
    python -m asap2.lab.bench.rates.udp source ADDRESS PORT SIZE DATAGRAMS

The source sends so many datagrams of SIZE octets at once (UDP_SEGMENT, udp(7)), until it is ended. The sink says
"ready", and in the end how many octets a second have come, beginning WARM_UP seconds after the first.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time

_UDP_SEGMENT, _UDP_GRO = 103, 104
_LONGEST = 1 << 16


def sink(port: int, warm_up: float, seconds: float) -> float:
    """Octets of payload a second that come to *port*."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        receiver.bind(("", port))
        print("ready", flush=True)
        room = bytearray(_LONGEST)
        receiver.recv_into(room)
        began = time.perf_counter() + warm_up
        while (now := time.perf_counter()) < began:
            receiver.recv_into(room)
        began, octets = now, 0
        while (now := time.perf_counter()) < began + seconds:
            octets += receiver.recv_into(room)
        return octets / (now - began)


def source(address: str, port: int, size: int, datagrams: int) -> None:
    """Send for good."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, size)
        sender.connect((address, port))
        data = bytes(size * datagrams)
        while True:
            with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
                sender.send(data)


def main(what: str, *arguments: str) -> None:
    """Do *what* the command line says."""
    if what == "sink":
        port, warm_up, seconds = arguments
        print(f"{sink(int(port), float(warm_up), float(seconds))} octets", flush=True)
    else:
        address, port, size, datagrams = arguments
        source(address, int(port), int(size), int(datagrams))


if __name__ == "__main__":
    main(*sys.argv[1:])
