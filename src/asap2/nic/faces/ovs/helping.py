# SPDX-License-Identifier: Apache-2.0
"""Packets of connections with a helper: the pipeline gives them to the daemon, whose helper reads and perhaps changes
them, and hands them in again where they stopped.
"""

from __future__ import annotations

import logging
import time

from asap2.nic.conntrack.ftp import IncompleteError
from asap2.nic.conntrack.helpers import ClashError, Sequence, help_with
from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.table import Connections
from asap2.nic.conntrack.view import Change, Connection
from asap2.nic.faces.ovs.reassembly import way_of
from asap2.nic.faces.ovs.upcall import PacketPath
from asap2.nic.fragments import network_at
from asap2.nic.rules import CtState, Drop
from asap2.nic.silicon.events import UpcallContext, UpcallKind
from asap2.nic.silicon.handing_in import HandingIn

log = logging.getLogger(__name__)


class Helping:
    """The helpers of a node's *connections*."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._since = time.time_ns()
        self._sequences: dict[int, tuple[int, Sequence]] = {}
        """For each record, the id of its connection and what is known of its sequence numbers."""

    def take(self, handing: HandingIn, path: PacketPath, context: UpcallContext, frame: bytes) -> bool:
        """Let a helper process a packet, which then continues; return False if it is not for a helper.

        Raises:
            OSError: the packet cannot continue, and is lost.
        """
        if context.kind is not UpcallKind.HELPER:
            return False
        try:
            frame = self._seen(context, frame)
        except (IncompleteError, ClashError) as error:
            log.debug("a helper drops a packet: %s", error)
            with handing.hand_in(way_of(context, context.mru)._replace(actions=(Drop(),))) as mark:
                path.hand_in(frame, mark)
            return True
        with handing.hand_on(way_of(context, context.mru), context.cookie & 0xFFFF_FFFF) as mark:
            path.hand_in(frame, mark)
        return True

    def _seen(self, context: UpcallContext, frame: bytes) -> bytes:
        record = context.cookie >> 32
        connection = self._connections.at(record)
        if connection is None:
            return frame
        way = int(bool(context.fields["ct_state"] & CtState.RPL))
        established = bool(context.fields["ct_state"] & CtState.EST)
        sequence = self._sequence(record, connection)
        done = help_with(
            *(frame, network_at(frame)[0], connection, way, sequence),
            established=established,
            taken=lambda one: self._connections.expected_by_another(record, one),
        )
        if done.expects is not None:
            self._connections.expect(record, done.expects, done.seconds)
        if done.lengthened:
            self._connections.change(connection, Change(status=connection.status | Status.SEQ_ADJUST))
        return done.frame

    def _sequence(self, record: int, connection: Connection) -> Sequence:
        found = self._sequences.get(record)
        if found is None or found[0] != connection.id:
            sequence = Sequence(picked_up=(connection.started or 0) < self._since)
            found = self._sequences[record] = connection.id, sequence
        return found[1]
