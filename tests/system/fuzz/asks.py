# SPDX-License-Identifier: Apache-2.0
"""What the redirect library asks beside requests: ethtool's ioctl, and how a message of the kernel's is to be seen."""

from __future__ import annotations

import collections
import random
import struct

from asap2.netlink.request import Netns
from asap2.netlink.sidechannel import ANSWER, IFNAMSIZ, Verdict
from asap2.netlink.wire import build
from asap2.nic import daemon
from tests.system.fuzz.mutate import number
from tests.system.fuzz.source import Source

_MOST_COMMAND = 0x60
"""ETHTOOL_* of today, and some more."""
_SIZES = (0, 3, 4, 8, 12, 20, 24, 36, 44, 60, 64, 196, 1000, 4096)


class Asks:
    """Asks the server of a daemon as the library would, about what *source* has in its world."""

    def __init__(self, fuzzed: daemon.Daemon, source: Source) -> None:
        self._daemon = fuzzed
        self._source = source
        self._rng: random.Random = source.rng
        self.counts: collections.Counter[str] = collections.Counter()
        self.last = ""

    def one(self) -> str:
        """Ask; a sentence when the answer cannot be."""
        return self._ioctl() if self._rng.random() < 0.5 else self._show()

    @property
    def _home(self) -> Netns:
        return self._daemon.server.netns

    def _name(self) -> bytes:
        devices = self._daemon.netdevs.all()
        if devices and self._rng.random() < 0.9:
            return self._rng.choice(devices).name.encode(errors="surrogateescape")
        return self._rng.choice((b"lo", b"", b"nothing", b"\xff\xfe", self._rng.randbytes(IFNAMSIZ)))

    def _ioctl(self) -> str:
        rng, server = self._rng, self._daemon.server
        command = rng.randrange(1, _MOST_COMMAND) if rng.random() < 0.95 else rng.choice((0, 0x8922, 0xFFFF_FFFF))
        size = rng.choice(_SIZES)
        words = (
            b"".join(struct.pack("=I", rng.choice((0, 1, 2, 9, 128))) for _ in range(3)) if rng.random() < 0.5 else b""
        )
        buffer = (struct.pack("=I", command) + words + number(rng, 8) + rng.randbytes(size))[:size]
        self.last = f"ioctl {command:#x} with {buffer.hex()}"
        home = server._namespaces[self._home.cookie]
        answer = server._ioctl(7, home, command, self._name()[:IFNAMSIZ].ljust(IFNAMSIZ, b"\0") + buffer)
        return self._wrong("ioctl", answer, None)

    def _show(self) -> str:
        rng, server = self._rng, self._daemon.server
        made = self._source.next()
        data = b""
        for _ in range(rng.randrange(1, 4)):
            type_ = rng.choice((16, 17, made.type))
            data += build(type_, made.flags, 0, 0, made.payload)
            data += bytes(-len(data) % 4)
        room = len(data) + rng.choice((0, 0, 4, 100, 4096))
        self.last = f"how {data.hex()} is to be seen in {room} bytes"
        home = server._namespaces[self._home.cookie]
        return self._wrong("show", server._show(7, home, made.protocol, room, data), room)

    def _wrong(self, what: str, answer: bytes, room: int | None) -> str:
        tag, verdict, _, _ = ANSWER.unpack_from(answer)
        self.counts[f"{what}: {Verdict(verdict).name}"] += 1
        if tag != 7 or (verdict != Verdict.DONE and len(answer) != ANSWER.size):
            return f"{self.last}: {answer.hex()} is no answer"
        if room is not None and len(answer) - ANSWER.size > room:
            return f"{self.last}: more than that in {answer.hex()}"
        return ""
