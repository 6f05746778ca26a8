# SPDX-License-Identifier: Apache-2.0
"""A connection as programs see it, and what its face needs of the table of a node's connections.

Source: include/uapi/linux/netfilter/nf_conntrack_common.h and nf_conntrack_tcp.h.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from asap2.nic.conntrack.states import Status

PROTOCOLS_WITH_PORTS: Final = frozenset(
    (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_GRE, socket.IPPROTO_SCTP, 136)
)
"""Those whose tuples have ports (GRE: keys); 136 is UDP-Lite."""


class Tuple(NamedTuple):
    """One direction of a connection: *family* AF_INET or AF_INET6, addresses of its length.

    Of ICMP, *src_port* is the identifier and *dst_port* ``type << 8 | code``; of protocols without ports both are 0.
    """

    family: int
    protocol: int
    src: bytes
    dst: bytes
    src_port: int = 0
    dst_port: int = 0


class Tcp(NamedTuple):
    """What is known of a TCP connection: its state (TCP_CONNTRACK_*), and of either side the window scale and flags
    (IP_CT_TCP_FLAG_*)."""

    state: int
    wscale: tuple[int, int] = (0, 0)
    flags: tuple[int, int] = (0, 0)


class Sctp(NamedTuple):
    """What is known of an SCTP association: its state (SCTP_CONNTRACK_*), and the verification tag of either side."""

    state: int
    vtags: tuple[int, int] = (0, 0)


class Counters(NamedTuple):
    """What has passed in one direction."""

    packets: int = 0
    octets: int = 0


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection at one moment.

    *timeout* is in seconds, *started* and *stopped* (0: not yet) in nanoseconds since 1970. *counters* and *started*
    may be unknown (None). *master* is the original tuple of the connection that this one belongs to.
    """

    id: int
    original: Tuple
    reply: Tuple
    zone: int = 0
    status: int = int(Status.CONFIRMED)
    timeout: int = 0
    mark: int = 0
    labels: bytes = bytes(16)
    tcp: Tcp | None = None
    sctp: Sctp | None = None
    counters: tuple[Counters, Counters] | None = None
    started: int | None = None
    stopped: int = 0
    helper: str = ""
    master: Tuple | None = None


class Statistics(NamedTuple):
    """What one CPU has counted (struct ip_conntrack_stat)."""

    found: int = 0
    invalid: int = 0
    insert: int = 0
    insert_failed: int = 0
    drop: int = 0
    early_drop: int = 0
    error: int = 0
    search_restart: int = 0
    clash_resolve: int = 0
    chain_toolong: int = 0


class Change(NamedTuple):
    """What a program sets of a connection; None leaves it as it is."""

    timeout: int | None = None
    status: int | None = None
    mark: int | None = None
    labels: bytes | None = None
    tcp: Tcp | None = None
    sctp: Sctp | None = None


SETTINGS: Final = {
    "acct": 1,
    "timestamp": 1,
    "tcp_be_liberal": 1,
    "tcp_loose": 1,
    "tcp_ignore_invalid_rst": 1,
    "tcp_max_retrans": 255,
}
"""Settings of connection tracking (``nf_conntrack_*``), and the largest value of each."""


class Connections(Protocol):
    """The table of a node's connections. One that has expired is in it no longer."""

    def __iter__(self) -> Iterator[Connection]:
        """All, in no order; may be used without the daemon's lock."""

    def find(self, zone: int, tuple: Tuple) -> Connection | None:
        """The connection that *tuple* is a direction of."""

    def delete(self, connection: Connection) -> bool:
        """Take a connection out; False if it has gone already."""

    def delete_all(self, connections: Iterable[Connection]) -> Iterator[Connection]:
        """Take these out; gives those that had not gone already."""

    def change(self, connection: Connection, change: Change) -> None:
        """Change a connection; nothing if it has gone."""

    def insert(self, connection: Connection) -> None:
        """Add a connection, whose *id* does not matter.

        Raises:
            OSError: EEXIST, one of its tuples is there; ENOMEM, the table is full.
        """

    def count(self) -> int:
        """How many there are."""

    def statistics(self) -> Iterable[Statistics]:
        """What each CPU has counted, in the order of their numbers."""

    def setting(self, name: str) -> int:
        """One of :data:`SETTINGS`."""

    def set(self, name: str, value: int) -> None:
        """Set one of :data:`SETTINGS`."""

    limit: int
    """How many there may be."""
