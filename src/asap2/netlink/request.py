# SPDX-License-Identifier: Apache-2.0
"""What a handler gets and gives: requests, the client behind them, reply messages, generic netlink families."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from asap2.netlink.tables.ctnetlink import (
    CT_GET,
    CT_GET_CTRZERO,
    CT_GET_DYING,
    CT_GET_STATS_CPU,
    CT_GET_UNCONFIRMED,
    EXP_GET,
    EXP_GET_STATS_CPU,
)
from asap2.netlink.tables.cttimeout import TIMEOUT_GET
from asap2.netlink.wire import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_ECHO,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NlMsg,
)


@dataclass(frozen=True, slots=True)
class Netns:
    """A network namespace: *cookie* names it while it lives (SO_NETNS_COOKIE), *fd* opens it.

    For a namespace other than the server's own, *fd* is good while the request lasts: duplicate it to keep it.
    """

    cookie: int
    fd: int


@dataclass(frozen=True, slots=True)
class Client:
    """The netlink socket that asks: its protocol and port id, namespace, and socket options."""

    protocol: int
    portid: int
    netns: Netns
    ext_ack: bool = False
    cap_ack: bool = False
    strict: bool = False
    privileged: bool = True
    """Whether the process has CAP_NET_ADMIN."""
    pid: int = 0
    """The process."""


_NETFILTER_DUMPS = frozenset(
    (
        *(CT_GET, CT_GET_CTRZERO, CT_GET_STATS_CPU, CT_GET_DYING, CT_GET_UNCONFIRMED),
        *(EXP_GET, EXP_GET_STATS_CPU, TIMEOUT_GET),
    )
)
"""What lists connections, expectations, timeout policies and statistics: of others, the bits mean something else."""


class Request:
    """One request message: *payload* is what follows the netlink header."""

    __slots__ = ("client", "flags", "payload", "seq", "type")

    def __init__(self, type: int, flags: int, seq: int, payload: bytes, client: Client) -> None:
        self.type = type
        self.flags = flags
        self.seq = seq
        self.payload = payload
        self.client = client

    def __repr__(self) -> str:
        return f"Request(type={self.type}, flags={self.flags:#x}, seq={self.seq}, payload={self.payload[:256].hex()})"

    @property
    def dump(self) -> bool:
        """Whether it asks for a dump: for rtnetlink and nfnetlink a GET with any bit of NLM_F_DUMP, for others both."""
        bits = self.flags & NLM_F_DUMP
        if self.client.protocol == NETLINK_NETFILTER:
            return bits != 0 and self.type in _NETFILTER_DUMPS
        if self.client.protocol == NETLINK_ROUTE:
            return bits != 0 and self.type & 3 == 2
        return bits == NLM_F_DUMP

    @property
    def ack(self) -> bool:
        """NLM_F_ACK: the server acknowledges, not the handler."""
        return bool(self.flags & NLM_F_ACK)

    @property
    def echo(self) -> bool:
        """NLM_F_ECHO: the handler gives the object back."""
        return bool(self.flags & NLM_F_ECHO)

    @property
    def create(self) -> bool:
        """NLM_F_CREATE."""
        return bool(self.flags & NLM_F_CREATE)

    @property
    def excl(self) -> bool:
        """NLM_F_EXCL."""
        return bool(self.flags & NLM_F_EXCL)

    @property
    def replace(self) -> bool:
        """NLM_F_REPLACE."""
        return bool(self.flags & NLM_F_REPLACE)


class Message(NamedTuple):
    """One message of an answer. The server fills in sequence number, port id, NLM_F_MULTI, DONE and ACK."""

    type: int
    payload: bytes
    flags: int = 0


class Pass(enum.Enum):
    """The one value of this type, :data:`PASS`, is a handler's "this is the kernel's"."""

    PASS = "pass"


PASS: Final = Pass.PASS
"""The library sends the message to the kernel itself, in the client's own context."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A handler's "ask the kernel, and change what it answers".

    The server asks in the client's namespace. *rewrite* sees each message of the answer but DONE and errors, and gives
    what the client shall see of it; *extra* follows the last (before DONE). *payload* replaces the request's.
    """

    rewrite: Callable[[NlMsg], Iterable[Message]]
    extra: Iterable[Message] = ()
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Messages and, beside success, a warning: an extended acknowledgement's text that is no error."""

    messages: Iterable[Message] = ()
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """The messages of a dump that may be long: they are made as the client reads them, without the server's lock."""

    messages: Iterator[Message]


@dataclass(frozen=True, slots=True)
class Parts:
    """What takes long and is done a step at a time, so that others are served in between; then comes the *answer*.

    The program waits until all is done. Steps are made with the server's lock.
    """

    steps: Iterator[None]
    answer: Pass | None = None


Answer = Iterable[Message] | Pass | Proxy | Reply | Stream | Parts | None
"""None is success with nothing to say."""
Handler = Callable[[Request], Answer]


class GenlHeader(NamedTuple):
    """The generic netlink header of a request, the family's own header, and the attributes that follow it."""

    cmd: int
    version: int
    header: bytes
    attrs: bytes


GenlHandler = Callable[[Request, GenlHeader], Answer]

GENL_ADMIN_PERM: Final = 0x01
GENL_CMD_CAP_DO: Final = 0x02
GENL_CMD_CAP_DUMP: Final = 0x04
GENL_CMD_CAP_HASPOL: Final = 0x08
GENL_UNS_ADMIN_PERM: Final = 0x10

EMULATED_FAMILIES: Final = range(0x7000, 0x7100)
"""Family ids of emulated families: above GENL_MAX_ID (1023), so that no kernel family has one of them."""
EMULATED_GROUPS: Final = range(0x7000, 0x8000)
"""Ids of their multicast groups."""


@dataclass
class GenlFamily:
    """A generic netlink family that the server serves.

    *id* is from :data:`EMULATED_FAMILIES`, the ids of *groups* from :data:`EMULATED_GROUPS`. *ops* are (command, flags
    GENL_*) as GETFAMILY shows them; none: what *handlers* has. With *real*, where the kernel has a family of that name
    its id and groups stay as they are, *handlers* serve their commands, and the others are the kernel's own; *id* and
    *groups* hold then what the kernel says. Where the kernel has none, the family is emulated as any other. With
    *netns*, the cookie of a network namespace, what the family tells of is there alone: elsewhere dumps are empty, and
    all else is ENODEV.
    """

    name: str
    id: int
    version: int = 1
    hdrsize: int = 0
    maxattr: int = 0
    ops: Sequence[tuple[int, int]] = ()
    groups: Sequence[tuple[str, int]] = ()
    handlers: Mapping[int, GenlHandler] = field(default_factory=dict)
    real: bool = False
    netns: int | None = None
    admin_groups: Collection[int] = ()
    """Groups that only privileged programs join (GENL_MCAST_CAP_NET_ADMIN)."""

    def payload(self, cmd: int, body: bytes, version: int | None = None) -> bytes:
        """The generic netlink header (struct genlmsghdr) and *body*, as a message's payload."""
        return bytes((cmd, self.version if version is None else version, 0, 0)) + body
