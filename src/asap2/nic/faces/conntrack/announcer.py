# SPDX-License-Identifier: Apache-2.0
"""Announce connection events to the programs that listen, and ask the pipeline only for those events."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from asap2.netlink.tables.nfnetlink import (
    NFNLGRP_CONNTRACK_DESTROY,
    NFNLGRP_CONNTRACK_EXP_DESTROY,
    NFNLGRP_CONNTRACK_NEW,
    NFNLGRP_CONNTRACK_UPDATE,
)
from asap2.netlink.wire import NETLINK_NETFILTER
from asap2.nic.conntrack.view import Connection
from asap2.nic.faces.conntrack.face import ConntrackFace
from asap2.nic.silicon.abi import CtEvent

log = logging.getLogger(__name__)

SOCKETS: Final = Path("/proc/net/netlink")
_NEW = CtEvent.NEW | CtEvent.RELATED
_EVERY = CtEvent((CtEvent.SYNPROXY << 1) - 1)
_OF_GROUP: Final = {
    NFNLGRP_CONNTRACK_NEW: _NEW,
    NFNLGRP_CONNTRACK_UPDATE: _EVERY & ~(_NEW | CtEvent.DESTROY),
    NFNLGRP_CONNTRACK_DESTROY: CtEvent.DESTROY,
    NFNLGRP_CONNTRACK_EXP_DESTROY: CtEvent.RELATED,
}


class Source(Protocol):
    """The source of events."""

    def listened(self, events: int) -> None:
        """Report these events from now on (a bit mask of :class:`CtEvent`; 0: none)."""

    def events(self) -> Iterator[tuple[Connection, int]]:
        """The connections to which something has happened, each with its events."""


class Announcer:
    """Passes the events of *source* on to *face* while somebody listens."""

    def __init__(self, face: ConntrackFace, source: Source) -> None:
        self._face = face
        self._source = source
        self._listened: CtEvent | None = None

    def look(self) -> None:
        """Find out which events programs listen to in the network namespace of this thread."""
        groups = listened_groups(SOCKETS.read_text())
        wanted = CtEvent(0)
        for group, events in _OF_GROUP.items():
            if groups >> group - 1 & 1:
                wanted |= events
        if wanted != self._listened:
            self._listened = wanted
            self._face.listened = bool(wanted)
            self._source.listened(int(wanted))

    def pass_on(self, _mask: int = 0) -> None:
        """Announce the events that have arrived."""
        for connection, events in self._source.events():
            if events & CtEvent.DESTROY:
                self._face.gone(connection)
            else:
                self._face.tell(connection, CtEvent(events))


def listened_groups(sockets: str) -> int:
    """The nfnetlink groups that the *sockets* of /proc/net/netlink have joined, one bit for each group."""
    groups = 0
    for line in sockets.splitlines()[1:]:
        _socket, protocol, _port, joined, *_ = line.split()
        if protocol == str(NETLINK_NETFILTER):
            groups |= int(joined, 16)
    return groups
