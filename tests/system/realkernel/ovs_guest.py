# SPDX-License-Identifier: Apache-2.0
"""The first program of the user-mode kernel for Open vSwitch's datapath, as :mod:`.guest` is for TC.

DIRECTORY has ``cases`` and gets ``results``, streams of pickles. A case is ``("flow", key, mask or None, actions)``: a
flow to add, read and remove; its result is ``("case", errno, key, mask, actions)`` as the kernel gives them back. Or it
is ``("requests", requests)``, of command, flags, UFID, key, mask and actions, to a table without flows; its result is
``("case", errnos)``. Or it is ``("meters", requests)``, of command, whether they name the datapath, and attributes;
its result is ``("case", answers)``, errno and attributes. Or it is ``("packet", frame)``: a frame that comes in by a
port without a flow; its result is ``("case", key or None)``, the key of the upcall.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from functools import partial
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))

import guest  # type: ignore[import-not-found]

_GENERIC, _CTRL = 16, 16
_ACK, _ECHO, _ERROR = 4, 8, 2
_HEADER, _GENL = struct.Struct("=IHHII"), struct.Struct("=BBH")
_NEW, _DEL, _GET = 1, 2, 3
_UFID = bytes(range(16))
_PATIENCE_MS = 120_000
_LAST = b"\x02" * 12 + b"\x88\xb6" + bytes(46)
"""A frame after which there is nothing of the one before to come."""


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by number."""
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


class Generic:
    """A generic netlink socket."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _GENERIC)
        self.socket.bind((0, 0))
        self._seq = 0

    def ask(self, family: int, command: int, payload: bytes, flags: int = 0) -> tuple[int, bytes]:
        """The errno of the answer, and what was echoed, behind the generic netlink header."""
        self._seq += 1
        body = _GENL.pack(command, 1, 0) + payload
        self.socket.send(_HEADER.pack(16 + len(body), family, 1 | _ACK | flags, self._seq, 0) + body)
        echoed = b""
        while True:
            data = self.socket.recv(1 << 18)
            at = 0
            while at < len(data):
                length, kind, _, seq, _ = _HEADER.unpack_from(data, at)
                if seq == self._seq and kind == _ERROR:
                    return -int(struct.unpack_from("=i", data, at + 16)[0]), echoed
                if seq == self._seq:
                    echoed = data[at + 20 : at + length]
                at += (length + 3) & ~3

    def family(self, name: str) -> int:
        """The number of a family."""
        error, answer = self.ask(_CTRL, 3, attribute(2, name.encode() + b"\0"))
        if error:
            raise OSError(error, name)
        return int(struct.unpack("=H", attributes(answer)[1])[0])


class Datapath:
    """A datapath with the near ends of two ports."""

    def __init__(self) -> None:
        self._generic, self._upcalls = Generic(), Generic()
        self._flow = self._generic.family("ovs_flow")
        self._meter = self._generic.family("ovs_meter")
        datapath, vport = self._generic.family("ovs_datapath"), self._generic.family("ovs_vport")
        pid = struct.pack("=I", self._upcalls.socket.getsockname()[0])
        body = attribute(1, b"dp\0") + attribute(2, pid) + attribute(5, struct.pack("=I", 3))
        self._check(*self._generic.ask(datapath, _NEW, bytes(4) + body, _ECHO))
        self.header = struct.pack("=i", socket.if_nametoindex("dp"))
        for port in (1, 2):
            body = attribute(1, struct.pack("=I", port)) + attribute(2, struct.pack("=I", 1))
            guest.run_command(["ip", "link", "add", f"o{port}", "type", "veth", "peer", "name", f"p{port}"])
            for end in "op":
                guest.run_command(["ip", "link", "set", f"{end}{port}", "up"])
            body += attribute(3, f"o{port}".encode() + b"\0") + attribute(5, pid)
            self._check(*self._generic.ask(vport, _NEW, self.header + body, _ECHO))
        self._far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._far.bind(("p1", 0))
        self._poll = select.poll()
        self._poll.register(self._upcalls.socket, select.POLLIN)

    @staticmethod
    def _check(error: int, _echoed: bytes) -> None:
        if error:
            raise OSError(error, os.strerror(error))

    def flow(self, key: bytes, mask: bytes | None, actions: bytes) -> tuple[Any, ...]:
        """Add a flow, read it and remove it."""
        ufid = attribute(9, _UFID)
        body = self.header + ufid + attribute(1, key) + attribute(2, actions)
        body += b"" if mask is None else attribute(7, mask)
        error, _ = self._generic.ask(self._flow, _NEW, body)
        if error:
            return error, b"", b"", b""
        failed, answer = self._generic.ask(self._flow, _GET, self.header + ufid)
        self._check(failed, answer)
        found = attributes(answer[4:])
        self._check(*self._generic.ask(self._flow, _DEL, self.header + ufid))
        return 0, found.get(1, b""), found.get(7, b""), found.get(2, b"")

    def requests(self, requests: list[Any]) -> tuple[Any, ...]:
        """Send requests about flows; their errnos."""
        self._check(*self._generic.ask(self._flow, _DEL, self.header))
        told = []
        for command, flags, *values in requests:
            attrs = b"".join(
                attribute(kind, value) for kind, value in zip((9, 1, 7, 2), values, strict=True) if value is not None
            )
            told.append(self._generic.ask(self._flow, command, self.header + attrs, flags)[0])
        self._check(*self._generic.ask(self._flow, _DEL, self.header))
        return (told,)

    def meters(self, requests: list[Any]) -> tuple[Any, ...]:
        """Send requests about meters, of which there are none at first; the answers, without the header."""
        told = []
        for command, named, attrs in requests:
            header = self.header if named else bytes(4)
            error, answer = self._generic.ask(self._meter, command, header + attrs)
            told.append((error, answer[4:] if not error else b""))
        for number in {attributes(attrs).get(1, b"") for _, _, attrs in requests} - {b""}:
            self._generic.ask(self._meter, 3, self.header + attribute(1, number))
        return (told,)

    def packet(self, frame: bytes) -> tuple[Any, ...]:
        """The key of the upcall that a frame makes, None for none."""
        return self.upcall(frame)[:1]

    def upcall(self, frame: bytes) -> tuple[bytes | None, bytes | None]:
        """Key and packet of the upcall that a frame makes, None for none."""
        self._far.send(frame)
        self._far.send(_LAST)
        told: tuple[bytes | None, bytes | None] = None, None
        while True:
            if not self._poll.poll(_PATIENCE_MS):
                raise OSError("the last frame did not come up")
            found = attributes(self._upcalls.socket.recv(1 << 18)[24:])
            if found[1] == _LAST:
                return told
            told = found[2], found[1]


def do(datapath: Datapath, case: list[Any]) -> tuple[Any, ...]:
    """Do a case by the method that it names."""
    ((kind, *rest),) = case
    return ("case", *getattr(datapath, kind)(*rest))


if __name__ == "__main__":
    guest.main(lambda: partial(do, Datapath()), (*guest.MODULES, "openvswitch", "nf_nat_ftp", "nf_nat_tftp"))
