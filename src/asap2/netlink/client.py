# SPDX-License-Identifier: Apache-2.0
"""A netlink connection to the kernel, as a client: requests and their answers.

In a process with the redirect library loaded it is redirected like any other.
"""

from __future__ import annotations

import errno
import socket
import struct
from types import TracebackType
from typing import NamedTuple

from asap2.netlink.wire import (
    HEADER,
    HEADER_LEN,
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NETLINK_ROUTE,
    NLA_TYPE_MASK,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    SOL_NETLINK,
    NetlinkError,
    NlMsg,
    attribute,
    attributes,
    build,
    error_of,
    split,
)

GENL_ID_CTRL = 0x10
CTRL_CMD_GETFAMILY = 3
_BUFFER = 1 << 18


class Connection:
    """A netlink socket to the kernel in one network namespace. Not for use by two threads at once.

    *sock*, where given, is the socket to use (one opened in another namespace, say).
    """

    def __init__(self, protocol: int = NETLINK_ROUTE, sock: socket.socket | None = None) -> None:
        self.socket = sock or socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._strict = False
        self._seq = 0
        self._buffer = bytearray(_BUFFER)

    @property
    def strict(self) -> bool:
        """Whether the kernel checks requests strictly (NETLINK_GET_STRICT_CHK), as iproute2 asks it to."""
        return self._strict

    @strict.setter
    def strict(self, value: bool) -> None:
        if value != self._strict:
            self.socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, value)
            self._strict = value

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def exchange(self, type: int, flags: int, payload: bytes) -> list[NlMsg]:
        """Send one request and give all that the kernel answers, errors, acknowledgement and DONE included."""
        self._seq += 1
        seq = self._seq
        self.socket.send(build(type, flags | NLM_F_REQUEST | NLM_F_ACK, seq, 0, payload))
        answer: list[NlMsg] = []
        while True:
            size = self.socket.recv_into(self._buffer)
            if size >= HEADER_LEN and HEADER.unpack_from(self._buffer)[3] != seq:
                continue
            for message in split(bytes(memoryview(self._buffer)[:size])):
                answer.append(message)
                if message.type == NLMSG_DONE or message.type == NLMSG_ERROR:
                    return answer

    def request(self, type: int, flags: int = 0, payload: bytes = b"") -> list[NlMsg]:
        """Send one request and give the messages answered, without acknowledgement or DONE.

        Raises:
            NetlinkError: what the kernel answered.
        """
        answer = self.exchange(type, flags, payload)
        error = error_of(answer[-1])
        if error is not None:
            raise error
        return answer[:-1]


class FamilyInfo(NamedTuple):
    """What the kernel says of a generic netlink family."""

    id: int
    version: int
    groups: dict[str, int]


def genl_family(connection: Connection, name: str) -> FamilyInfo | None:
    """Id, version and multicast groups of a family of the kernel, None if it has none of that name.

    *connection* is one of NETLINK_GENERIC.
    """
    request = struct.pack("=BBH", CTRL_CMD_GETFAMILY, 1, 0) + attribute(2, name.encode() + b"\0")
    try:
        (answer,) = connection.request(GENL_ID_CTRL, 0, request)
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    id_, version, groups = 0, 0, {}
    for type_, value in attributes(answer.payload, 4):
        kind = type_ & NLA_TYPE_MASK
        if kind == 1:
            (id_,) = struct.unpack("=H", value)
        elif kind == 3:
            (version,) = struct.unpack("=I", value)
        elif kind == 7:
            for _index, group in attributes(value):
                found = {type_ & NLA_TYPE_MASK: raw for type_, raw in attributes(group)}
                groups[found[1].rstrip(b"\0").decode()] = struct.unpack("=I", found[2])[0]
    return FamilyInfo(id_, version, groups)
