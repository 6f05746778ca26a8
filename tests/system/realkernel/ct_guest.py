# SPDX-License-Identifier: Apache-2.0
"""The first program of the user-mode kernel for connection tracking, as :mod:`.ovs_guest` is for keys and flows.

A case is ``("conversation", steps)``, each of a key, a mask and actions of the only flow, whose last action sends the
packet to rules that are not there, and a frame that comes in. It begins without connections. Its result is ``("case",
told)``: for each step the errno of the flow, and the key and the packet of the upcall, or ``None`` for both.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))

import guest  # type: ignore[import-not-found]
import ovs_guest  # type: ignore[import-not-found]

_NETFILTER, _CTNETLINK_DELETE = 12, 0x102
_REQUEST_ACK = 5
_MODULES = ("openvswitch", "nf_conntrack", "nf_nat", "nf_conntrack_netlink")
_SETTINGS = {"nf_conntrack_checksum": 0}
"""The silicon leaves checksums to who receives the packet."""


class Tracking(ovs_guest.Datapath):  # type: ignore[misc]
    """A datapath whose connections are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._netfilter = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._netfilter.bind((0, 0))
        for name, value in _SETTINGS.items():
            Path(f"/proc/sys/net/netfilter/{name}").write_text(str(value))

    def conversation(self, steps: list[Any]) -> tuple[Any, ...]:
        """Frames, each through a flow of its own."""
        self._forget()
        return ([self._step(*step) for step in steps],)

    def _forget(self) -> None:
        header = struct.pack("=IHHII", 20, _CTNETLINK_DELETE, _REQUEST_ACK, 1, 0)
        self._netfilter.send(header + bytes(4))
        (error,) = struct.unpack_from("=i", self._netfilter.recv(1 << 16), 16)
        self._check(-error, b"")

    def _step(self, key: bytes, mask: bytes, actions: bytes, frame: bytes) -> tuple[int, bytes | None, bytes | None]:
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
