# SPDX-License-Identifier: Apache-2.0
"""The first program of the user-mode kernel for connection tracking, as :mod:`.ovs_guest` is for keys and flows.

A case is ``("conversation", steps)``. A step ``("packet", key, mask, actions, frame)`` is a frame that comes in, and
the only flow, whose last action sends the packet to rules that are not there; ``("age", seconds)`` takes so much of the
time that each connection has left. A case begins without connections. Its result is ``("case", told)``: for each
step ``(seconds since the first began, errno of the flow, key of the upcall, its packet, the connections then, as
ctnetlink's messages)``.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))

import guest  # type: ignore[import-not-found]
import ovs_guest  # type: ignore[import-not-found]

_NETFILTER = 12
_NEW, _DUMP, _DELETE = 0x100, 0x101, 0x102
_REQUEST, _ACK, _ALL = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_TUPLE_ORIG, _TIMEOUT = 1, 7
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_MODULES = ("openvswitch", "nf_conntrack", "nf_nat", "nf_conntrack_netlink", "nf_nat_ftp")
_SETTINGS = {"nf_conntrack_acct": 1}

Told = tuple[float, int, "bytes | None", "bytes | None", "list[bytes]"]


class Connections:
    """The kernel's connections."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._socket.bind((0, 0))

    def _ask(self, kind: int, flags: int, family: int = 0, attrs: bytes = b"") -> list[bytes]:
        body = struct.pack("=BBH", family, 0, 0) + attrs
        self._socket.send(_HEADER.pack(16 + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body)
        answers: list[bytes] = []
        while True:
            data, at = self._socket.recv(1 << 16), 0
            while at < len(data):
                length, answer, _, _, _ = _HEADER.unpack_from(data, at)
                if answer == _DONE:
                    return answers
                if answer == _ERROR:
                    (error,) = struct.unpack_from("=i", data, at + 16)
                    if error:
                        raise OSError(-error, os.strerror(-error))
                    return answers
                answers.append(data[at + 16 : at + length])
                at += (length + 3) & ~3

    def forget(self) -> None:
        """Delete all."""
        self._ask(_DELETE, 0)

    def all(self) -> list[bytes]:
        """The message about each."""
        return self._ask(_DUMP, _ALL)

    def age(self, seconds: int) -> None:
        """Let each have so much less time; with none left, it is over."""
        for message in self.all():
            found = ovs_guest.attributes(message[4:])
            (left,) = struct.unpack("!I", found[_TIMEOUT])
            attrs = ovs_guest.attribute(_TUPLE_ORIG | _NESTED, found[_TUPLE_ORIG])
            attrs += ovs_guest.attribute(_TIMEOUT, struct.pack("!I", max(0, left - seconds)))
            self._ask(_NEW, 0, message[0], attrs)


class Tracking(ovs_guest.Datapath):  # type: ignore[misc]
    """A datapath whose connections are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._connections = Connections()
        for name, value in _SETTINGS.items():
            Path(f"/proc/sys/net/netfilter/{name}").write_text(str(value))

    def conversation(self, steps: list[Any]) -> tuple[Any, ...]:
        """Frames, each through a flow of its own, and time that passes."""
        self._connections.forget()
        self._began = time.monotonic()
        return ([self._step(*step) for step in steps],)

    def _step(self, kind: str, *given: Any) -> Told:
        told: tuple[int, bytes | None, bytes | None] = 0, None, None
        if kind == "age":
            self._connections.age(*given)
        else:
            told = self._packet(*given)
        return (time.monotonic() - self._began, *told, self._connections.all())

    def _packet(self, key: bytes, mask: bytes, actions: bytes, frame: bytes) -> tuple[int, bytes | None, bytes | None]:
        attrs = ((1, key), (7, mask), (2, actions))
        body = self.header + b"".join(ovs_guest.attribute(kind, value) for kind, value in attrs)
        error, _ = self._generic.ask(self._flow, 1, body)
        if error:
            return error, None, None
        told = self.upcall(frame)
        self._check(*self._generic.ask(self._flow, 2, self.header))
        return (0, *told)


if __name__ == "__main__":
    guest.main(lambda: partial(ovs_guest.do, Tracking()), (*guest.MODULES, *_MODULES))
