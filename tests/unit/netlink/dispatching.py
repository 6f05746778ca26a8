# SPDX-License-Identifier: Apache-2.0
"""A dispatcher that is asked as programs ask, with a kernel behind it and a mailbox for answers."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.netlink.client import Connection
from asap2.netlink.dispatch import Dispatcher
from asap2.netlink.request import Client, Netns
from asap2.netlink.wire import (
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NlMsg,
    build,
    error_of,
    split,
)

NEW, DEL, GET, SET = 16, 17, 18, 19
"""Types of rtnetlink; their last two bits tell the kind."""
FAMILY = 0x7000


class Kernel(Connection):
    """A kernel whose answers the test gives."""

    def __init__(self, answers: list[NlMsg]) -> None:
        self.answers = answers
        self.asked: list[tuple[int, int, bytes]] = []
        self._strict = False

    def exchange(self, type: int, flags: int, payload: bytes) -> list[NlMsg]:
        self.asked.append((type, flags, payload))
        return self.answers


class Mailbox:
    """Where replies go: datagrams in order."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.datagrams: list[bytes] = []
        self.dumping = False
        self._kernel = kernel

    def reply(self, protocol: int, portid: int, *messages: bytes, dump: bool = False) -> None:
        assert protocol in (NETLINK_ROUTE, NETLINK_GENERIC, NETLINK_NETFILTER)
        assert portid == 9
        assert isinstance(dump, bool)
        self.datagrams.extend(messages)

    def stream(self, protocol: int, portid: int, chunks: Iterator[bytes]) -> None:
        assert (protocol, portid) == (NETLINK_NETFILTER, 9)
        self.datagrams.extend(chunks)

    def busy_dumping(self, protocol: int, portid: int) -> bool:
        assert protocol in (NETLINK_ROUTE, NETLINK_GENERIC, NETLINK_NETFILTER)
        assert portid == 9
        return self.dumping

    def kernel(self, protocol: int) -> Connection:
        assert protocol in (NETLINK_ROUTE, NETLINK_GENERIC)
        assert self._kernel is not None
        return self._kernel

    @property
    def messages(self) -> list[NlMsg]:
        return [message for datagram in self.datagrams for message in split(datagram)]


def client(protocol: int = NETLINK_ROUTE, **options: bool) -> Client:
    return Client(protocol, 9, Netns(1, -1), **options)


def ask(dispatcher: Dispatcher, type: int, flags: int = 0, payload: bytes = b"\0" * 4, **options: bool) -> Mailbox:
    """Submit one rtnetlink request that must not be passed."""
    mailbox = Mailbox()
    raw = build(type, flags | NLM_F_REQUEST, 3, 0, payload)
    assert dispatcher.submit(mailbox, client(**options), raw) == (len(raw), 0)
    return mailbox


def number(mailbox: Mailbox) -> int:
    """The errno of the one message answered, 0 for an acknowledgement."""
    (message,) = mailbox.messages
    assert message.type == NLMSG_ERROR
    error = error_of(message)
    return error.errno or 0 if error else 0
