# SPDX-License-Identifier: Apache-2.0
"""Which connections TC offers to hardware (net/sched/act_ct.c)."""

from __future__ import annotations

from asap2.nic.conntrack import tcp
from asap2.nic.conntrack.connection import ORIGINAL
from asap2.nic.conntrack.seen import Seen
from asap2.nic.conntrack.states import NAT_MASK, TCP, Relation, Status, TcpState


def qualifies(seen: Seen) -> bool:
    """Whether hardware can carry a packet's connection (tcf_ct_flow_table_process_conn())."""
    connection = seen.connection
    assured = seen.relation is Relation.ESTABLISHED and bool(connection.status & Status.ASSURED)
    if connection.status & (Status.HELPER | Status.SEQ_ADJUST):
        return False
    match connection.proto:
        case 6:
            return assured and connection.tcp.state is TcpState.ESTABLISHED
        case 17:
            return connection.confirmed
        case 47:
            first = connection.tuples[ORIGINAL]
            return assured and not connection.status & NAT_MASK and not (first.sport or first.dport)
    return False


def offer(seen: Seen, now: int) -> None:
    """Give a packet's connection to hardware if it qualifies (tcf_ct_flow_table_add()); *now* is in nanoseconds."""
    connection = seen.connection
    if connection.status & Status.OFFLOAD or not connection.confirmed or not qualifies(seen):
        return
    connection.status |= Status.OFFLOAD | Status.HW_OFFLOAD
    connection.carried = now
    if connection.proto == TCP:
        tcp.be_liberal(connection)
