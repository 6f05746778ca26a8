# SPDX-License-Identifier: Apache-2.0
"""A program that listens to psample, as hsflowd does, by a socket of its own; and what drives it in a node.

It prints a line for each message: the command, and what it tells.
"""

from __future__ import annotations

import ast
import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.system.offload.labs import Bench

NETLINK_GENERIC, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 16, 270, 1
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_NAME, CTRL_ATTR_GROUPS = 16, 3, 2, 7
PATIENCE = 60


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:size]
        data = data[size + 3 & ~3 :]


def main() -> None:
    """Join both groups of the family, and print what comes."""
    from asap2.netlink.tables.psample import PSAMPLE

    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
    sock.bind((0, 0))
    name = struct.pack("=HH8s", 12, CTRL_ATTR_NAME, b"psample\0")
    head = struct.pack("=IHHII", 20 + len(name), GENL_ID_CTRL, 1, 1, 0)
    sock.send(head + struct.pack("=BBH", CTRL_CMD_GETFAMILY, 1, 0) + name)
    family = dict(_attributes(sock.recv(65536)[20:]))
    for _, group in _attributes(family[CTRL_ATTR_GROUPS]):
        sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, dict(_attributes(group))[2])
    print("ready", flush=True)
    while True:
        header, told = PSAMPLE.decode(sock.recv(1 << 17)[16:])
        nested = {"tunnel": dict(told["tunnel"])} if "tunnel" in told else {}
        print((header.cmd, dict(told) | nested), flush=True)


class Listener:
    """The program, running in a node."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def next(self) -> tuple[int, dict[str, Any]]:
        """The next message: its command, and what it tells."""
        assert self._process.stdout
        told: tuple[int, dict[str, Any]] = ast.literal_eval(self._process.stdout.readline())
        return told


@contextlib.contextmanager
def listening(bench: Bench, node: str) -> Iterator[Listener]:
    """The program, once it listens."""
    process = bench.start(node, sys.executable, "-m", __name__)
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield Listener(process)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


if __name__ == "__main__":
    main()
