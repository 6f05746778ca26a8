# SPDX-License-Identifier: Apache-2.0
"""The messages between the redirect library and the server (redirect.h has the same), in host byte order.

The server greets a new connection; then the library asks, one question at a time, and the server answers each.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import Final

MAGIC: Final = 0x32505341
VERSION: Final = 2
SERVER_PORTID: Final = 0x41534132
"""The port id of the server's netlink sockets, in every namespace: above PID_MAX_LIMIT, outside autobind's range."""

ASK: Final = struct.Struct("=IIIIQII")
"""struct ask: kind, tag, protocol, port id, namespace cookie, options, argument; then the request's bytes.

The argument is the group for JOIN and LEAVE (the socket's inode follows), the command for ETHTOOL, for SHOW how
many bytes the messages may be made of."""
ANSWER: Final = struct.Struct("=IIII")
"""struct answer: tag, verdict, bytes consumed (or errno), bytes to pass; then the buffer of an ioctl,
or the messages as they are to be seen."""
_GREETING = struct.Struct("=IIQQ32s128s32s32s")
IFNAMSIZ: Final = 16


class Kind(enum.IntEnum):
    """What the library asks."""

    SUBMIT = 1
    JOIN = 2
    LEAVE = 3
    ETHTOOL = 4
    CLAIM = 5
    SHOW = 6
    CALLER = 7
    """No question, and without an answer: what the connection asks from now on it asks for another process, whose id is
    in place of the port id and whose user is the argument; options: 1 when that may administer networks."""


class Verdict(enum.IntEnum):
    """What the server answers."""

    DONE = 0
    PASS = 1
    NEED_FD = 2
    ERROR = 3


WAITING: Final = 0x100
"""A bit beside a verdict: replies wait for room in the client's socket, which the server wants, to go on (CLAIM)."""

OPTION_EXT_ACK: Final = 1
OPTION_CAP_ACK: Final = 2
OPTION_STRICT: Final = 4
OPTION_FD: Final = 8


def greeting(
    instance: int,
    home: int,
    route: Iterable[int],
    genl: Iterable[int],
    ethtool: Iterable[int],
    netfilter: Iterable[int],
) -> bytes:
    """struct greeting: who the server is, its namespace's cookie, and what it wants diverted."""
    diverted = _bitmap(route, 32), _bitmap(genl, 128), _bitmap(ethtool, 32), _bitmap(netfilter, 32)
    return _GREETING.pack(MAGIC, VERSION, instance, home, *diverted)


def _bitmap(numbers: Iterable[int], size: int) -> bytes:
    bits = bytearray(size)
    for number in numbers:
        bits[number // 8] |= 1 << number % 8
    return bytes(bits)
