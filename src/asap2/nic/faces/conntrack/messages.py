# SPDX-License-Identifier: Apache-2.0
"""Connections as messages: an answer to a request (ctnetlink_fill_info()), and an event (ctnetlink_conntrack_event()).

The attributes and their order are those of Linux 6.12.
"""

from __future__ import annotations

from typing import Any

from asap2.netlink.request import Message
from asap2.netlink.tables.ctnetlink import CT, CT_DELETE, CT_NEW, TcpFlags
from asap2.netlink.tables.nfnetlink import (
    NFNLGRP_CONNTRACK_DESTROY,
    NFNLGRP_CONNTRACK_NEW,
    NFNLGRP_CONNTRACK_UPDATE,
    Nfgenmsg,
)
from asap2.netlink.wire import NLM_F_CREATE, NLM_F_EXCL, NLM_F_MULTI
from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.view import Connection
from asap2.nic.faces.conntrack import tuples
from asap2.nic.silicon.abi import CtEvent

_NO_LABELS = bytes(16)


CHANGED_BY_A_PROGRAM = (
    CtEvent.REPLY
    | CtEvent.ASSURED
    | CtEvent.HELPER
    | CtEvent.PROTOINFO
    | CtEvent.SEQADJ
    | CtEvent.MARK
    | CtEvent.SYNPROXY
)
"""The events of a connection that a program has created (with NEW) or changed (with LABEL)."""


def answer(connection: Connection, flags: int = 0, use: int = 1) -> Message:
    """A connection in the answer to a request for it or for all. The kernel marks both as multi-part messages."""
    c = connection
    attrs = _tuples(c)
    attrs["status"], attrs["mark"], attrs["id"], attrs["use"] = c.status, c.mark, c.id, use
    if c.master is not None and c.status & Status.EXPECTED:
        attrs["tuple_master"] = tuples.shown(c.master)
    if not c.status & Status.OFFLOAD:
        attrs["timeout"] = c.timeout
        attrs["protoinfo"] = _protoinfo(c)
    _counted(attrs, c)
    _helped(attrs, c)
    _labelled(attrs, c)
    return Message(CT_NEW, CT.encode(Nfgenmsg(c.original.family), attrs), flags | NLM_F_MULTI)


def event(connection: Connection, events: CtEvent) -> tuple[int, Message]:
    """The multicast group for *events*, and the message to it."""
    c = connection
    attrs = _tuples(c)
    attrs["id"], attrs["status"] = c.id, c.status
    if events & CtEvent.DESTROY:
        type_, flags, group = CT_DELETE, 0, NFNLGRP_CONNTRACK_DESTROY
        attrs["timeout"] = c.timeout or None
        _counted(attrs, c)
        attrs["protoinfo"] = _protoinfo(c, only_state=True)
    else:
        type_, flags, group = CT_NEW, 0, NFNLGRP_CONNTRACK_UPDATE
        if events & (CtEvent.NEW | CtEvent.RELATED):
            flags, group = NLM_F_CREATE | NLM_F_EXCL, NFNLGRP_CONNTRACK_NEW
        attrs["timeout"] = c.timeout
        if events & CtEvent.PROTOINFO:
            attrs["protoinfo"] = _protoinfo(c)
        _helped(attrs, c)
        if events & CtEvent.LABEL:
            _labelled(attrs, c)
        if events & CtEvent.RELATED and c.master is not None:
            attrs["tuple_master"] = tuples.shown(c.master)
    if c.mark or events & CtEvent.MARK:
        attrs["mark"] = c.mark
    return group, Message(type_, CT.encode(Nfgenmsg(c.original.family), attrs), flags)


def _tuples(c: Connection) -> dict[str, Any]:
    attrs: dict[str, Any] = {"tuple_orig": tuples.packed(c.original), "tuple_reply": tuples.packed(c.reply)}
    if c.zone:
        attrs["zone"] = c.zone
    return attrs


def _protoinfo(c: Connection, only_state: bool = False) -> dict[str, Any] | None:
    info: dict[str, Any]
    if c.tcp is not None:
        info = {"state": c.tcp.state}
        if not only_state:
            info["wscale_original"], info["wscale_reply"] = c.tcp.wscale
            info["flags_original"], info["flags_reply"] = map(TcpFlags, c.tcp.flags)
        return {"tcp": info}
    if c.sctp is not None:
        info = {"state": c.sctp.state}
        if not only_state:
            info["vtag_original"], info["vtag_reply"] = c.sctp.vtags
        return {"sctp": info}
    return None


def _counted(attrs: dict[str, Any], c: Connection) -> None:
    if c.counters is not None:
        for name, (packets, octets) in zip(("counters_orig", "counters_reply"), c.counters, strict=True):
            attrs[name] = {"packets": packets, "bytes": octets}
    if c.started is not None:
        attrs["timestamp"] = {"start": c.started, "stop": c.stopped or None}


def _helped(attrs: dict[str, Any], c: Connection) -> None:
    if c.helper:
        attrs["help"] = {"name": c.helper}


def _labelled(attrs: dict[str, Any], c: Connection) -> None:
    if c.labels != _NO_LABELS:
        attrs["labels"] = c.labels
