# SPDX-License-Identifier: Apache-2.0
"""The face of connections over a table, asked as programs ask it; what it announces is kept."""

from __future__ import annotations

import errno
import socket
import threading
from typing import Any

from asap2.netlink.client import Connection as KernelConnection
from asap2.netlink.dispatch import Dispatcher
from asap2.netlink.request import Message, Netns
from asap2.netlink.tables import cttimeout
from asap2.netlink.tables.ctnetlink import CT, CT_GET, CT_REQUEST, EXP_DELETE, EXP_NEW, EXPECT, TUPLE
from asap2.netlink.tables.cttimeout import TIMEOUT
from asap2.netlink.tables.nfnetlink import Nfgenmsg
from asap2.netlink.wire import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NlMsg,
    build,
    error_of,
)
from asap2.nic.conntrack.view import Connection, Counters, Sctp, Tcp, Tuple
from asap2.nic.faces.conntrack import tuples
from asap2.nic.faces.conntrack.face import ConntrackFace
from tests.connections import Table, Timeouts
from tests.unit.netlink.dispatching import Mailbox, client

A, B, C = (bytes((10, 0, 0, last)) for last in (1, 2, 9))
A6, B6 = (bytes((0xFD, *bytes(14), last)) for last in (1, 2))
TCP4 = Tuple(2, socket.IPPROTO_TCP, A, B, 1000, 80)
ICMPV6 = Tuple(10, socket.IPPROTO_ICMPV6, A6, B6, 5, 128 << 8)
GRE = Tuple(2, socket.IPPROTO_GRE, A, B, 0x1000, 0x2000)
SCTP = Tuple(2, socket.IPPROTO_SCTP, A, B, 1000, 53)
OTHER = Tuple(2, 99, A, C)
UDP = Tuple(2, socket.IPPROTO_UDP, A, B, 1000, 53)
NOTHING = Counters(), Counters()


def back(tuple_: Tuple) -> Tuple:
    """The reply's tuple without NAT."""
    family, protocol, src, dst, src_port, dst_port = tuple_
    if protocol == socket.IPPROTO_ICMPV6:
        return Tuple(family, protocol, dst, src, src_port, dst_port ^ 0x100)
    return Tuple(family, protocol, dst, src, dst_port, src_port)


def connection(tuple_: Tuple, **values: Any) -> Connection:
    return Connection(0, tuple_, back(tuple_), **{"timeout": 99, "counters": NOTHING, **values})


MADE = {
    6: connection(TCP4, zone=5, mark=7, status=14, tcp=Tcp(3, flags=(10, 10))),
    58: connection(ICMPV6),
    47: connection(GRE),
    132: connection(SCTP, sctp=Sctp(4, (0x05000000, 0x06000000))),
    99: connection(OTHER),
}
"""What the recorded commands made, by protocol."""


class Node:
    """A face over a table, without a kernel behind it; what it announces is kept."""

    def __init__(self, *connections: Connection) -> None:
        self.table = Table(*connections)
        self.told: list[tuple[int, dict[Any, Any]]] = []
        self.netns = Netns(1, -1)
        self.dispatcher = Dispatcher(threading.RLock())
        server: Any = self
        self.timeouts = Timeouts()
        self.face = ConntrackFace(server, self.table, self.timeouts)

    def netfilter(self, subsystems: list[int], handler: Any) -> None:
        self.dispatcher.netfilter.update(dict.fromkeys(subsystems, handler))

    def kernel(self, _netns: Netns, _protocol: int) -> KernelConnection:
        raise OSError(errno.EPROTONOSUPPORT, "")

    def notify(self, _netns: Netns, group: int, message: Message, protocol: int, portid: int) -> None:
        assert protocol == NETLINK_NETFILTER
        assert portid in (0, 9)
        body = EXPECT if message.type in (EXP_NEW, EXP_DELETE) else CT
        self.told.append((group, body.decode(message.payload)[1]))

    def ask(self, type: int, payload: bytes, flags: int = 0) -> list[NlMsg]:
        mailbox = Mailbox()
        raw = build(type, flags | NLM_F_REQUEST | NLM_F_ACK, 3, 0, payload)
        assert self.dispatcher.submit(mailbox, client(NETLINK_NETFILTER), raw) == (len(raw), 0)
        return mailbox.messages

    def error(self, type: int, payload: bytes, flags: int = 0) -> str:
        """The errno's name, "" for success without a message."""
        (message,) = self.ask(type, payload, flags)
        assert message.type == NLMSG_ERROR
        error = error_of(message)
        return errno.errorcode[error.errno or 0].replace("ENOTSUP", "EOPNOTSUPP") if error else ""

    def listed(self, payload: bytes = bytes(4)) -> list[dict[Any, Any]]:
        *found, last = self.ask(CT_GET, payload, NLM_F_DUMP)
        assert last.type == NLMSG_DONE
        assert error_of(last) is None
        return [CT.decode(one.payload)[1] for one in found]


def request(family: int = 2, **attrs: Any) -> bytes:
    for name in ("tuple_orig", "tuple_reply"):
        if isinstance(attrs.get(name), tuple):
            attrs[name] = TUPLE.encode(tuples.shown(attrs[name]))
    return CT_REQUEST.encode(Nfgenmsg(family), attrs)


def policy(name: str | None, protocol: int = 6, seconds: dict[int, int] | None = None, family: int = 2) -> bytes:
    data = cttimeout.timeouts(11).encode({str(number): value for number, value in (seconds or {}).items()})
    return TIMEOUT.encode(Nfgenmsg(), {"name": name, "l3proto": family, "l4proto": protocol, "data": data})
