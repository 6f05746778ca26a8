# SPDX-License-Identifier: Apache-2.0
"""What NAT has made of sources, so that another connection of the same source looks the same (nf_nat_bysource)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from asap2.nic.conntrack.connection import ORIGINAL, REPLY, Connection
from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.tuples import Tuple

MAPPINGS: Final = 2
"""Mappings of one source that are known at a time. Linux has no such limit."""

Source = tuple[bytes, int]
"""An address, and a port, ICMP identifier or GRE key."""


class Sources:
    """The mappings of sources that connections have: those that a new connection was given last come first.

    Linux keeps the connections instead, and takes the mapping of the newest that is left.
    """

    def __init__(self) -> None:
        self._mappings: dict[tuple[int, int, int, Source], dict[Source, int]] = {}

    def add(self, connection: Connection) -> None:
        """Count a new *connection* whose source is translated; not if its source has other mappings enough."""
        if not connection.status & Status.SRC_NAT:
            return
        known = self._mappings.setdefault(_place(connection.zone, connection.tuples[ORIGINAL]), {})
        mapping = _mapping(connection)
        if mapping not in known and len(known) == MAPPINGS:
            return
        known[mapping] = known.pop(mapping, 0) + 1
        connection.mapped = True

    def drop(self, connection: Connection) -> None:
        """No longer count a *connection*, which has ended."""
        if not connection.mapped:
            return
        connection.mapped = False
        place, mapping = _place(connection.zone, connection.tuples[ORIGINAL]), _mapping(connection)
        known = self._mappings[place]
        known[mapping] -= 1
        if not known[mapping]:
            del known[mapping]
        if not known:
            del self._mappings[place]

    def of(self, zone: int, one: Tuple) -> Iterator[Source]:
        """The mappings of the source of *one*, a tuple of original packets."""
        yield from reversed(self._mappings.get(_place(zone, one), {}))


def _place(zone: int, one: Tuple) -> tuple[int, int, int, Source]:
    return zone, one.family, one.proto, (one.src, one.sport)


def _mapping(connection: Connection) -> Source:
    leaves = connection.tuples[REPLY].inverse()
    assert leaves is not None
    return leaves.src, leaves.sport
