# SPDX-License-Identifier: Apache-2.0
"""New connections: TCP connect, one request, one answer, close. ``server`` and ``client`` run in two guests.

    python -m asap2.lab.bench.stateful.connect server PORT
    python -m asap2.lab.bench.stateful.connect client ADDRESS PORT SECONDS
    python -m asap2.lab.bench.stateful.connect one ADDRESS PORT REQUESTS

The server says "ready", the client how many connections a second it has had; ``one`` is a single connection with so
many requests, each of a packet, as is each answer.
"""

from __future__ import annotations

import socket
import sys
import time

SIZE = 64
"""Bytes of a request, and of an answer."""
_PATIENCE = 5


def serve(port: int) -> None:
    """Answer connections, one after another, for good."""
    with socket.create_server(("", port), backlog=1024) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while request := connection.recv(SIZE):
                    connection.send(request)


def connect(address: str, port: int, requests: int) -> None:
    """One connection with so many *requests*."""
    with socket.create_connection((address, port), _PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(requests):
            connection.send(bytes(SIZE))
            if len(connection.recv(SIZE)) != SIZE:
                raise ConnectionError("the answer was cut short")


def rate(address: str, port: int, seconds: float) -> float:
    """Connections a second, one after another."""
    began = time.perf_counter()
    count = 0
    while (now := time.perf_counter()) - began < seconds:
        connect(address, port, 1)
        count += 1
    return count / (now - began)


def main(what: str, *arguments: str) -> None:
    """Do *what* the command line says."""
    if what == "server":
        serve(int(arguments[0]))
    elif what == "client":
        address, port, seconds = arguments
        print(rate(address, int(port), float(seconds)))
    else:
        address, port, requests = arguments
        connect(address, int(port), int(requests))


if __name__ == "__main__":
    main(*sys.argv[1:])
