# SPDX-License-Identifier: Apache-2.0
"""``client.py SEED COUNT [WAY]``: in a node, sends COUNT random messages on netlink sockets as any program does, by way
of the redirect library, and reads what is answered. Prints as JSON how they ended.

WAY is ``rude``: it sends in every way that there is, reads little, closes sockets in the middle and tries ioctls; or
``nobody``: it is a user without privileges, who takes all connections that the daemon gives before.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import sys
import threading
import time

from asap2.netlink.client import Connection, genl_family
from asap2.netlink.wire import NETLINK_EXT_ACK, NLMSG_ERROR, SOL_NETLINK, build, error_of, spans
from tests.system.fuzz.material import World
from tests.system.fuzz.source import Source
from tests.system.patience import PATIENCE

BATCH = 20
FAMILIES = ("ovs_datapath", "ovs_vport", "ovs_flow", "ovs_packet", "devlink", "ethtool")
NOBODY = 65534
SIOCETHTOOL = 0x8946
SO_RCVBUFFORCE = 33
_SMALL = 4608
"""A receive buffer that few messages fit in."""
_THREADS = 1100
"""Each has a connection of its own: more than one process may have."""


def look(world: World) -> None:
    """See what there is."""
    with Connection(16) as kernel:
        known = {name: genl_family(kernel, name) for name in FAMILIES}
    world.families = {name: info.id for name, info in known.items() if info is not None}
    named = [(index, name) for index, name in socket.if_nameindex() if name != "lo"]
    world.devices = [index for index, _ in named]
    world.representors = [index for index, name in named if name.startswith("eth")]
    world.functions = os.listdir("/sys/bus/pci/drivers/mlx5_core")
    world.functions = [name for name in world.functions if name.startswith("0000:")]
    world.datapath = next((index for index, name in named if name == "ovs-system"), 0)
    world.ports = list(range(8))


class Program:
    """One that sends what *source* gives, and counts what comes of it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.ended: collections.Counter[str] = collections.Counter()
        self.sockets = {protocol: self.opened(protocol) for protocol in (0, 16)}

    def opened(self, protocol: int) -> socket.socket:
        """A socket, with room for what is answered."""
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        with contextlib.suppress(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        return sock

    def run(self, count: int) -> None:
        """Send *count* messages."""
        for start in range(0, count, BATCH):
            if start % 500 == 0:
                look(self.source.world)
            batches: dict[int, list[bytes]] = {0: [], 16: []}
            for number in range(start, min(start + BATCH, count)):
                made = self.source.next()
                message = build(made.type, made.flags, number, 0, made.payload)
                batches[made.protocol].append(message + bytes(-len(message) % 4))
            for protocol, batch in batches.items():
                if batch:
                    self.one(protocol, batch)

    def one(self, protocol: int, batch: list[bytes]) -> None:
        """Send some messages of one protocol and read the answers."""
        self.send(lambda: self.sockets[protocol].send(b"".join(batch)))
        self.read(protocol)

    def send(self, how: object) -> None:
        """Call *how*; what it raises is counted."""
        try:
            how()  # type: ignore[operator]
        except OSError as error:
            self.ended[f"send: {error.strerror}"] += 1

    def read(self, protocol: int, most: int = 1 << 20) -> None:
        """Read what waits, at most so many datagrams."""
        sock = self.sockets[protocol]
        with contextlib.suppress(BlockingIOError):
            while most and select.select([sock], [], [], 0)[0]:
                most -= 1
                try:
                    data = sock.recv(1 << 20, socket.MSG_DONTWAIT)
                except OSError as error:  # ENOBUFS: a notification had no room
                    self.ended[f"read: {error.strerror}"] += 1
                    continue
                for _start, _end, one in spans(data):
                    if one.type == NLMSG_ERROR:
                        error_or_none = error_of(one)
                        self.ended[os.strerror(error_or_none.errno or 0) if error_or_none else "acknowledged"] += 1
                    else:
                        self.ended["told"] += 1


class Rude(Program):
    """One that does not behave."""

    def opened(self, protocol: int) -> socket.socket:
        """A socket, often with next to no room for what is answered."""
        sock = super().opened(protocol)
        if self.source.rng.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _SMALL)
        return sock

    def one(self, protocol: int, batch: list[bytes]) -> None:
        """Send some messages in some way; read all, some, or nothing of the answers, and go."""
        rng, sock, data = self.source.rng, self.sockets[protocol], b"".join(batch)
        cut = rng.randrange(len(data) + 1)
        ways = (
            lambda: sock.sendto(data, (0, 0)),
            lambda: sock.sendmsg([data[:cut], b"", data[cut:]], [], 0, (0, 0)),
            lambda: os.write(sock.fileno(), data),
            lambda: os.writev(sock.fileno(), [data[:cut], data[cut:]]),
            lambda: send_each(sock, batch),
            lambda: sock.send(data[:cut]),
        )
        self.send(rng.choice(ways))
        match rng.randrange(4):
            case 0:
                sock.close()
                self.sockets[protocol] = self.opened(protocol)
            case 1:
                self.read(protocol, rng.randrange(1, 4))
            case _:
                self.read(protocol)
        self.send(self._ioctl)

    def _ioctl(self) -> None:
        rng = self.source.rng
        names = [name for _, name in socket.if_nameindex()]
        words = [rng.randrange(1, 0x60), *(rng.choice((0, 1, 2, 64)) for _ in range(3))]
        data = ctypes.create_string_buffer(struct.pack("=4I", *words), 1 << 16)
        request = struct.pack("=16sQ8x", os.fsencode(rng.choice(names))[:15], ctypes.addressof(data))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCETHTOOL, request)


def send_each(sock: socket.socket, batch: list[bytes]) -> None:
    """Send each message by itself, all with one system call (sendmmsg(2))."""
    buffers = [ctypes.create_string_buffer(message, len(message)) for message in batch]
    vectors = (ctypes.c_uint64 * (2 * len(batch)))()
    headers = (ctypes.c_uint64 * (8 * len(batch)))()
    for at, buffer in enumerate(buffers):
        vectors[2 * at : 2 * at + 2] = [ctypes.addressof(buffer), len(buffer)]
        headers[8 * at + 2 : 8 * at + 4] = [ctypes.addressof(vectors) + 16 * at, 1]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sendmmsg(sock.fileno(), ctypes.byref(headers), len(batch), 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def take_all() -> collections.Counter[str]:
    """Have many threads ask at once, and keep their connections: how that ended."""
    ended: collections.Counter[str] = collections.Counter()
    together = threading.Barrier(_THREADS)

    def ask() -> None:
        try:
            with Connection(16) as kernel:
                genl_family(kernel, "ovs_flow")
            ended["crowd: answered"] += 1
        except OSError as error:
            ended[f"crowd: {error.strerror}"] += 1
        together.wait()

    threads = [threading.Thread(target=ask) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.monotonic() + PATIENCE
    while not _is_served() and time.monotonic() < end:  # the daemon has yet to see that the connections are closed
        time.sleep(0.01)
    return ended


def _is_served() -> bool:
    try:
        with Connection(16) as kernel:
            return genl_family(kernel, "ovs_flow") is not None
    except OSError:
        return False


def main() -> None:
    """Send, and say what came of it."""
    seed, count, *way = sys.argv[1:]
    source = Source(int(seed), World({}, [], [], []))
    crowd: collections.Counter[str] = collections.Counter()
    if "nobody" in way:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        crowd = take_all()
    program = Rude(source) if "rude" in way else Program(source)
    program.run(int(count))
    print(json.dumps({"ended": dict((program.ended + crowd).most_common())}))


if __name__ == "__main__":
    main()
