# SPDX-License-Identifier: Apache-2.0
"""A packet's relation to its connection."""

from __future__ import annotations

from typing import NamedTuple

from asap2.nic.conntrack.connection import Connection
from asap2.nic.conntrack.states import Relation


class Seen(NamedTuple):
    """A packet's connection, its relation to it, and its direction (the contents of skb->_nfct)."""

    connection: Connection
    relation: Relation
    direction: int
