# SPDX-License-Identifier: Apache-2.0
"""The counters of a bridge's ports, asked by OpenFlow: Open vSwitch keeps those of a tunnel's port nowhere else.

The network device of tunnels is all tunnels' of a kind. What Open vSwitch counts for one of them is what its flows have
carried, in hardware too, at most half a second ago (``max-revalidator``).

Source: OpenFlow Switch Specification 1.0 (5.1, 5.3.5), 1.3 (7.1, 7.3.5.6) and 1.5 (7.1, 7.3.5.6, 7.5.1); numbers are
big-endian. The socket is the bridge's own, BRIDGE.mgmt (ovs-vswitchd(8)).
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

from asap2.live.counted import Stats

VERSIONS: Final = (1, 4, 5, 6)
"""OpenFlow 1.0, 1.3, 1.4 and 1.5, by the numbers on the wire."""
PATIENCE: Final = 0.5
"""Seconds that a bridge may take to answer."""
_HEADER: Final = struct.Struct("!BBHI")
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY = 0, 1, 2, 3
_VERSION_BITMAP: Final = 1
"""OFPHET_VERSIONBITMAP."""
_PORT_STATS: Final = 4
"""OFPST_PORT, OFPMP_PORT_STATS."""
_MORE: Final = 1
"""OFPSF_REPLY_MORE."""
_NUMBER: Final = 1


class OpenFlowError(OSError):
    """A bridge gave no answer that can be read; the text says why."""


def port_counters(path: str) -> dict[int, Stats]:
    """The counters of the bridge whose socket is at *path*, by the number of the port (``ofport``), as seen from the
    bridge: what comes in by a port is received. OSError, OpenFlowError."""
    end = time.monotonic() + PATIENCE
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as bridge:
        bridge.settimeout(PATIENCE)
        try:
            bridge.connect(path)
            offered = sum(1 << version for version in VERSIONS)
            bridge.sendall(_message(VERSIONS[-1], _HELLO, struct.pack("!HHI", _VERSION_BITMAP, 8, offered)))
            messages = _messages(bridge, end)
            version = _agreed(messages)
            bridge.sendall(_request(version))
            found: dict[int, Stats] = {}
            for kind, payload in messages:
                if kind == _ECHO_REQUEST:
                    bridge.sendall(_message(version, _ECHO_REPLY, payload))
                elif kind == _ERROR:
                    raise OpenFlowError("the bridge refuses to tell the counters of its ports")
                elif kind == _reply(version):
                    what, flags = struct.unpack_from("!HH", payload)
                    if what != _PORT_STATS:
                        continue
                    found.update(_ports(version, payload[_start(version) :]))
                    if not flags & _MORE:
                        return found
        except struct.error:
            raise OpenFlowError("the bridge's answer is cut short") from None
    raise OpenFlowError("the bridge closed the connection")


def _message(version: int, kind: int, payload: bytes) -> bytes:
    return _HEADER.pack(version, kind, _HEADER.size + len(payload), _NUMBER) + payload


def _messages(bridge: socket.socket, end: float) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message that comes until *end*; of a greeting, the version is in front of the body."""
    data = b""
    while time.monotonic() < end:
        received = bridge.recv(1 << 16)
        if not received:
            return
        data += received
        while len(data) >= _HEADER.size:
            version, kind, length, _number = _HEADER.unpack_from(data)
            if length < _HEADER.size:
                raise OpenFlowError("the bridge's answer is no OpenFlow")
            if len(data) < length:
                break
            payload, data = data[_HEADER.size : length], data[length:]
            yield kind, (bytes([version]) + payload if kind == _HELLO else payload)
    raise OpenFlowError("the bridge did not answer in time")


def _agreed(messages: Iterator[tuple[int, bytes]]) -> int:
    """The version that both sides speak, as both find it out by the greetings (1.3, 6.3.1)."""
    kind, payload = next(messages, (_ERROR, b""))
    if kind != _HELLO:
        raise OpenFlowError("the bridge speaks no version of OpenFlow that is known here")
    theirs = {payload[0]}
    at = 1
    while at + 8 <= len(payload):
        element, length, bitmap = struct.unpack_from("!HHI", payload, at)
        if element == _VERSION_BITMAP:
            theirs = {version for version in range(32) if bitmap >> version & 1}
        at += max(8, length + 7 & ~7)
    common = theirs & set(VERSIONS)
    if not common:
        raise OpenFlowError("the bridge speaks no version of OpenFlow that is known here")
    return max(common)


def _request(version: int) -> bytes:
    """Of all ports."""
    if version == 1:
        return _message(version, 16, struct.pack("!HHH6x", _PORT_STATS, 0, 0xFFFF))
    return _message(version, 18, struct.pack("!HH4xI4x", _PORT_STATS, 0, 0xFFFF_FFFF))


def _reply(version: int) -> int:
    return 17 if version == 1 else 19


def _start(version: int) -> int:
    return 4 if version == 1 else 8


_COUNTERS: Final = struct.Struct("!6Q")
"""Packets and bytes received and sent, and both dropped: in all versions in this order, but packets come first."""
_UNKNOWN: Final = (1 << 64) - 1
"""What a counter has that is not kept."""


def _ports(version: int, data: bytes) -> Iterator[tuple[int, Stats]]:
    """The ports in the body of an answer."""
    number, counters, size = {1: ("!H", 8, 104), 4: ("!I", 8, 112)}.get(version, ("!I", 16, 0))
    at = 0
    while at + (size or 80) <= len(data):
        length = size or int(struct.unpack_from("!H", data, at)[0])
        if length < (size or 80):
            raise OpenFlowError("the bridge's answer is cut short")
        (port,) = struct.unpack_from(number, data, at if size else at + 4)
        values = [value if value != _UNKNOWN else 0 for value in _COUNTERS.unpack_from(data, at + counters)]
        yield int(port), Stats(*values)
        at += length
