# SPDX-License-Identifier: Apache-2.0
"""A connection as programs see it, and the interface to the table of a node's connections.

Source: include/uapi/linux/netfilter/nf_conntrack_common.h and nf_conntrack_tcp.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from asap2.nic.conntrack.states import GRE, Status
from asap2.nic.conntrack.tuples import WITH_PORTS

PROTOCOLS_WITH_PORTS: Final = frozenset((*WITH_PORTS, GRE))
"""Protocols whose tuples have ports (GRE: keys)."""


class Tuple(NamedTuple):
    """One direction of a connection. *family* is AF_INET or AF_INET6; addresses are in network order, 4 or 16 octets.

    For ICMP, *src_port* is the identifier and *dst_port* ``type << 8 | code``; for protocols without ports both are 0.
    """

    family: int
    protocol: int
    src: bytes
    dst: bytes
    src_port: int = 0
    dst_port: int = 0


class Tcp(NamedTuple):
    """State of a TCP connection (TCP_CONNTRACK_*), and window scale and flags (IP_CT_TCP_FLAG_*) of each side."""

    state: int
    wscale: tuple[int, int] = (0, 0)
    flags: tuple[int, int] = (0, 0)


class Sctp(NamedTuple):
    """State of an SCTP association (SCTP_CONNTRACK_*), and the verification tag of each side."""

    state: int
    vtags: tuple[int, int] = (0, 0)


class Counters(NamedTuple):
    """Packets and octets that have passed in one direction."""

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


class Expectation(NamedTuple):
    """A connection that a helper expects. The source port of *tuple* is 0: any.

    *master* is the original tuple of the connection that announced it, *way* the direction of that connection in which
    it will go (0 original, 1 reply). With NAT, *port* is the destination port that the packet announced, else 0.
    *timeout* is in seconds.
    """

    id: int
    tuple: Tuple
    zone: int
    master: Tuple
    helper: str
    timeout: int
    way: int = 0
    port: int = 0


class Expecting(Protocol):
    """Who hears of expectations."""

    def expected(self, expectation: Expectation) -> None:
        """A helper expects a connection."""

    def gone(self, expectation: Expectation) -> None:
        """It no longer does: the connection has come, the time is over, or another one is expected instead."""


class Statistics(NamedTuple):
    """The counters of one CPU (struct ip_conntrack_stat)."""

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
    """What a program changes about a connection; None leaves a value as it is."""

    timeout: int | None = None
    status: int | None = None
    mark: int | None = None
    labels: bytes | None = None
    tcp: Tcp | None = None
    sctp: Sctp | None = None


SETTINGS: Final = {
    "acct": 1,
    "timestamp": 1,
    "checksum": 1,
    "tcp_be_liberal": 1,
    "tcp_loose": 1,
    "tcp_ignore_invalid_rst": 1,
    "tcp_max_retrans": 255,
}
"""Settings of connection tracking (``nf_conntrack_*``), and the largest value of each."""


class Connections(Protocol):
    """The table of a node's connections, without those that have expired."""

    def __iter__(self) -> Iterator[Connection]:
        """All connections, in no particular order; may be used without the daemon's lock."""

    def find(self, zone: int, tuple: Tuple) -> Connection | None:
        """The connection with *tuple* in one of its directions."""

    def delete(self, connection: Connection) -> bool:
        """Delete a connection; return False if it no longer exists."""

    def delete_all(self, connections: Iterable[Connection]) -> Iterator[Connection]:
        """Delete connections; yield those that still existed."""

    def change(self, connection: Connection, change: Change) -> None:
        """Change a connection, if it still exists."""

    def insert(self, connection: Connection) -> None:
        """Add a connection; its *id* is ignored.

        Raises:
            OSError: EEXIST if one of its tuples is in use; ENOMEM if the table is full.
        """

    def expectations(self) -> list[Expectation]:
        """The connections that helpers expect."""

    def unexpect(self, expectation: Expectation) -> bool:
        """No longer expect one; return False if it is no longer expected."""

    def count(self) -> int:
        """The number of connections."""

    def statistics(self) -> Iterable[Statistics]:
        """The counters of each CPU, in the order of CPU numbers."""

    def setting(self, name: str) -> int:
        """One of :data:`SETTINGS`."""

    def set(self, name: str, value: int) -> None:
        """Set one of :data:`SETTINGS`."""

    limit: int
    """The limit on the number of connections (nf_conntrack_max)."""
