# SPDX-License-Identifier: Apache-2.0
"""The fields of a packet that say what connection tracking knows of it."""

from __future__ import annotations

from typing import Final

from asap2.nic.conntrack.connection import ORIGINAL, REPLY
from asap2.nic.conntrack.seen import Seen
from asap2.nic.conntrack.states import ICMP, ICMPV6, Relation
from asap2.nic.conntrack.tuples import IPV4
from asap2.nic.rules import CtState

Fields = dict[str, int]
"""A packet's ``ct_`` fields that are not 0."""
NAT_STATE: Final = CtState.SNAT | CtState.DNAT
"""Bits of ``ct_state``: the packet has been translated."""


def fields_of(seen: Seen | None, zone: int, family: int) -> Fields:
    """The ``ct_`` fields of a packet that has just been classified (ovs_ct_update_key())."""
    if seen is None:
        fields = {"ct_state": int(CtState.TRK | CtState.INV), "ct_zone": zone}
        return {name: value for name, value in fields.items() if value}
    connection = seen.connection
    state = CtState.TRK
    state |= {Relation.NEW: CtState.NEW, Relation.ESTABLISHED: CtState.EST, Relation.RELATED: CtState.REL}[
        seen.relation
    ]
    if seen.direction == REPLY:
        state |= CtState.RPL
    if not connection.confirmed:
        state |= CtState.NEW
    if connection.master:
        state |= CtState.REL
    labelled = connection.master if connection.master and not connection.confirmed else connection
    fields = {"ct_state": int(state), "ct_zone": zone, "ct_mark": connection.mark, "ct_labels": labelled.labels}
    first = (connection.master or connection).tuples[ORIGINAL]
    if first.family == family:
        icmp = first.proto == (ICMP if family == IPV4 else ICMPV6)
        fields |= {
            "ct_src": int.from_bytes(first.src, "big"),
            "ct_dst": int.from_bytes(first.dst, "big"),
            "ct_proto": first.proto,
            "ct_tp_src": first.dport >> 8 if icmp else first.sport,
            "ct_tp_dst": first.dport & 0xFF if icmp else first.dport,
        }
    return {name: value for name, value in fields.items() if value}


def put(fields: Fields, name: str, value: int) -> None:
    """Set one."""
    if value:
        fields[name] = int(value)
    else:
        fields.pop(name, None)
