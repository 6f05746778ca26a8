# SPDX-License-Identifier: Apache-2.0
"""``stream.py send ADDRESS INTERVAL`` and ``stream.py echo``: datagrams at a steady rate, and what comes back of them.

ping is no measure of an outage: while nothing comes back, it sends a packet every 10 ms, whatever it was told. This
sends on time, and what is overdue at once. It tells ``began`` after the first :data:`BEGAN` answers. On SIGINT it waits
a moment for the last answers and tells ``N sent, M lost, longest outage S ms``.
"""

from __future__ import annotations

import itertools
import select
import signal
import socket
import struct
import sys
import time

PORT = 4660
BEGAN = 50
_LAST_ANSWERS = 0.5
_ROOM = 4 << 20
_NUMBER = struct.Struct("!Q")
_SIZE = 64
_SO_RCVBUFFORCE = 33


def bound(port: int) -> socket.socket:
    """A socket with room for an outage's datagrams."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("", port))
    return made


def echo() -> None:
    """Send every datagram back, until killed."""
    here = bound(PORT)
    print("echoing", flush=True)
    while True:
        data, sender = here.recvfrom(2048)
        try:
            here.sendto(data, sender)
        except OSError:  # nobody answers ARP there now
            continue


class Stream:
    """What was sent and what came back."""

    def __init__(self, address: str, interval: float) -> None:
        self.here = bound(0)
        self.here.connect((address, PORT))
        self.here.setblocking(False)
        self.interval = interval
        self.sent_at: list[float] = []
        self.answered: set[int] = set()

    def receive(self, seconds: float) -> None:
        """Take in answers for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and select.select([self.here], [], [], left)[0]:
            try:
                while True:
                    (number,) = _NUMBER.unpack_from(self.here.recv(2048))
                    self.answered.add(number)
            except OSError:
                continue

    def send(self) -> None:
        """Send the next; one that the kernel has no room for is lost."""
        number = len(self.sent_at)
        self.sent_at.append(time.monotonic())
        try:
            self.here.send(_NUMBER.pack(number).ljust(_SIZE))
        except OSError:
            return

    def outage(self) -> float:
        """The longest time between the sending of two datagrams that came back, with none that did between, less what
        there is between two that follow each other."""
        times = [self.sent_at[number] for number in sorted(self.answered)]
        return max((after - before - self.interval for before, after in itertools.pairwise(times)), default=0)


def send(address: str, interval: float) -> None:
    """Send till SIGINT, and tell."""
    stopped: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
    stream, began, due = Stream(address, interval), False, time.monotonic()
    while not stopped:
        while due <= time.monotonic():
            stream.send()
            due += interval
        stream.receive(due - time.monotonic())
        if not began and len(stream.answered) >= BEGAN:
            print("began", flush=True)
            began = True
    stream.receive(_LAST_ANSWERS)
    sent = len(stream.sent_at)
    lost = sent - len(stream.answered)
    print(f"{sent} sent, {lost} lost, longest outage {max(0.0, stream.outage()) * 1000:.0f} ms", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo()
    else:
        send(sys.argv[2], float(sys.argv[3]))
