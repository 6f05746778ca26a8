# SPDX-License-Identifier: Apache-2.0
"""Connections that helpers expect (nf_conntrack_expect.c): they belong to the connection that announced them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from asap2.nic.conntrack.connection import REPLY, Connection
from asap2.nic.conntrack.states import NAT_DONE_MASK, SECOND, Status
from asap2.nic.conntrack.tuples import Tuple


@dataclass(frozen=True, slots=True)
class Expectation:
    """A connection of which *master* has told. If NAT is to change it, *reply* is the tuple of its replies; their
    destination port is the source port that it turns out to have. *expires* is in nanoseconds."""

    master: Connection
    reply: Tuple | None
    expires: int


class Expectations:
    """The expectations of a tracker, by zone and by tuple without its source port."""

    def __init__(self) -> None:
        self._by_tuple: dict[tuple[int, Tuple], Expectation] = {}

    def add(self, master: Connection, one: Tuple, reply: Tuple | None, seconds: int, now: int) -> None:
        """Expect *one* for so many *seconds*. A connection expects one other at a time: the last that it announced."""
        for place in [place for place, known in self._by_tuple.items() if known.master is master]:
            del self._by_tuple[place]
        self._by_tuple[master.zone, replace(one, sport=0)] = Expectation(master, reply, now + seconds * SECOND)

    def begin(self, connection: Connection, now: int) -> None:
        """Give a new *connection* its master, if it is expected (init_conntrack(), nf_nat_follow_master())."""
        original = connection.tuples[0]
        found = self._by_tuple.get((connection.zone, replace(original, sport=0)))
        if found is None or found.expires <= now or not _exists(found.master, now):
            return
        connection.master = found.master
        connection.mark, connection.labels = found.master.mark, found.master.labels
        connection.status |= Status.EXPECTED
        if found.reply is None:
            return
        connection.status |= NAT_DONE_MASK
        if found.reply.dst != original.src:
            connection.status |= Status.SRC_NAT
        if (found.reply.src, found.reply.sport) != (original.dst, original.dport):
            connection.status |= Status.DST_NAT
        connection.tuples[REPLY] = replace(found.reply, dport=original.sport)

    def end(self, connection: Connection) -> None:
        """Forget the expectation that *connection* has fulfilled."""
        self._by_tuple.pop((connection.zone, replace(connection.tuples[0], sport=0)), None)


def _exists(master: Connection, now: int) -> bool:
    return master.confirmed and master.expires > now and not master.status & Status.DYING
