# SPDX-License-Identifier: Apache-2.0
"""What a packet is to its connection."""

from __future__ import annotations

from typing import NamedTuple

from asap2.nic.conntrack.connection import Connection
from asap2.nic.conntrack.states import Relation


class Seen(NamedTuple):
    """A packet's connection, and how and in which direction it belongs to it (what skb->_nfct holds)."""

    connection: Connection
    relation: Relation
    direction: int
