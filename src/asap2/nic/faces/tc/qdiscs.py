# SPDX-License-Identifier: Apache-2.0
"""Ingress and clsact qdiscs over rtnetlink, and how requests for filters and chains find their block.

Errors and their texts are those of net/sched/sch_api.c, tc_modify_qdisc() and tc_get_qdisc(), and of cls_api.c,
__tcf_qdisc_find() to __tcf_block_find(), of Linux 6.1. Other qdiscs are the kernel's own.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

from asap2.netlink.codec import Attrs
from asap2.netlink.request import PASS, Answer, Message, Proxy, Request
from asap2.netlink.server import Server
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.actions import Basic, Queue
from asap2.netlink.wire import NetlinkError, NlMsg
from asap2.nic.faces.tc.blocks import Block, Qdisc
from asap2.nic.faces.tc.chain_templates import ChainTemplate
from asap2.nic.faces.tc.filters import Filters
from asap2.nic.node_ports import NodePorts

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTNLGRP_TC: Final = 4

TC_H_ROOT: Final = 0xFFFF_FFFF
TC_H_INGRESS: Final = 0xFFFF_FFF1
HANDLE_INGRESS: Final = 0xFFFF_0000
PARENT_INGRESS: Final = 0xFFFF_FFF2
PARENT_EGRESS: Final = 0xFFFF_FFF3
_MAJOR, _MINOR = 0xFFFF_0000, 0xFFFF
_OURS: Final = ("ingress", "clsact")


def is_ours(header: tables.Tcmsg) -> bool:
    """Whether a request for filters or chains is for an ingress or clsact qdisc, or a shared block."""
    return header.ifindex == -1 or header.parent & _MAJOR == HANDLE_INGRESS


def find_block(filters: Filters, header: tables.Tcmsg) -> Block:
    """The block that a request for filters or chains is for; ENODEV, EINVAL, ENOENT, EOPNOTSUPP."""
    block = seen_block(filters, header)
    if block.index and header.ifindex != -1:
        text = "This filter block is shared. Please use the block index to manipulate the filters"
        raise NetlinkError(errno.EOPNOTSUPP, text)
    return block


def seen_block(filters: Filters, header: tables.Tcmsg) -> Block:
    """As :func:`find_block`, for a dump, which may name a device for the block that it shares."""
    if header.ifindex == -1:
        shared = filters.blocks.shared.get(header.parent)
        if shared is None:
            raise NetlinkError(errno.EINVAL, "Block of given index was not found")
        return shared
    filters.check_device(header.ifindex)
    qdisc = filters.blocks.qdiscs.get(header.ifindex)
    if qdisc is None:
        raise NetlinkError(errno.EINVAL, "Parent Qdisc doesn't exists")
    if qdisc.kind == "ingress":  # whatever the class
        return qdisc.ingress
    if header.parent & _MINOR and header.parent not in (PARENT_INGRESS, PARENT_EGRESS):
        raise NetlinkError(errno.ENOENT, "Specified class doesn't exist")
    if not header.parent & _MINOR:
        raise NetlinkError(errno.EINVAL)
    return qdisc.egress if header.parent == PARENT_EGRESS else qdisc.ingress


class QdiscFace:
    """The messages RTM_{NEW,DEL,GET}QDISC; *elsewhere* says whether one is of another network namespace, *went* tells
    that a chain is no more."""

    def __init__(
        self,
        server: Server,
        filters: Filters,
        ports: NodePorts,
        elsewhere: Callable[[Request], bool],
        went: Callable[[Request, Block, int, ChainTemplate | None], None],
        root: Callable[[NlMsg, Request], list[Message]],
    ) -> None:
        self._server = server
        self._filters = filters
        self._ports = ports
        self._elsewhere = elsewhere
        self._went = went
        self._root = root
        self._queues: set[int] = set()
        """Devices that have an ingress queue: those that once had such a qdisc (dev_ingress_queue_create)."""
        server.route((RTM_NEWQDISC,), self._new)
        server.route((RTM_DELQDISC,), self._delete)
        server.route((RTM_GETQDISC,), self._get)

    def _new(self, request: Request) -> Answer:
        header, attrs = tables.TC.decode(request.payload)
        kind = attrs.get("kind")
        if self._elsewhere(request) or (kind not in _OURS and header.parent != TC_H_INGRESS):
            return PASS
        self._filters.check_device(header.ifindex)
        if header.parent != TC_H_INGRESS:
            return PASS
        self._queues.add(header.ifindex)
        old = self._filters.blocks.qdiscs.get(header.ifindex)
        if old is not None and header.handle not in (0, HANDLE_INGRESS):
            if not request.replace:
                raise NetlinkError(errno.EEXIST, "NLM_F_REPLACE needed to override")
            raise NetlinkError(errno.EEXIST, "Exclusivity flag on, cannot modify")
        if old is not None:
            if request.excl:
                raise NetlinkError(errno.EEXIST, "Exclusivity flag on, cannot modify")
            if kind is not None and old.kind != kind:
                raise NetlinkError(errno.EINVAL, "Invalid qdisc name")
            if "options" in attrs:
                raise NetlinkError(errno.EINVAL, "Change operation not supported by specified qdisc")
            return self._told(request, header.ifindex, old)
        if not request.create:
            raise NetlinkError(errno.ENOENT, "Qdisc not found. To create specify NLM_F_CREATE flag")
        if kind not in _OURS:
            return PASS
        shared = _shared(kind, attrs)
        block = self._filters.blocks.shared.get(shared)
        if block is not None and block.chains and self._ports.is_internal(header.ifindex):
            raise NetlinkError(errno.EOPNOTSUPP, "Filters of this direction are not supported on this device")
        self._filters.add_qdisc(header.ifindex, kind, shared)
        self._ports.use_tc(header.ifindex, True)
        return self._told(request, header.ifindex, self._filters.blocks.qdiscs[header.ifindex])

    def links_changed(self) -> None:
        """Forget what hung on devices that are no more."""
        for ifindex in self._queues | self._filters.blocks.qdiscs.keys():
            try:
                socket.if_indextoname(ifindex)
            except OSError:
                self._queues.discard(ifindex)
                if ifindex in self._filters.blocks.qdiscs:
                    self._filters.remove_qdisc(ifindex)

    def _told(self, request: Request, ifindex: int, qdisc: Qdisc) -> Answer:
        message = _message(RTM_NEWQDISC, ifindex, qdisc)
        self._server.notify(request.client.netns, RTNLGRP_TC, message)
        return [message] if request.echo else None

    def _find(self, header: tables.Tcmsg) -> Qdisc:
        """The qdisc that a request is for, by its parent or else its handle; ENODEV, ENOENT, EINVAL."""
        self._filters.check_device(header.ifindex)
        qdisc = self._filters.blocks.qdiscs.get(header.ifindex)
        if not header.parent:
            if qdisc is None:
                raise NetlinkError(errno.ENOENT, "Failed to find qdisc with specified handle")
            return qdisc
        if qdisc is None and header.ifindex not in self._queues:
            raise NetlinkError(errno.ENOENT, "Cannot find specified qdisc on specified device")
        if header.handle and (qdisc is None or header.handle != HANDLE_INGRESS):
            raise NetlinkError(errno.EINVAL, "Invalid handle")
        if qdisc is None:
            raise NetlinkError(errno.ENOENT, "Cannot delete qdisc with handle of zero")
        return qdisc

    def _delete(self, request: Request) -> Answer:
        header, attrs = tables.TC.decode(request.payload)
        if self._elsewhere(request) or not _is_mine(header):
            return PASS
        qdisc = self._find(header)
        if "kind" in attrs and attrs["kind"] != qdisc.kind:
            raise NetlinkError(errno.EINVAL, "Invalid qdisc name")
        if not header.parent:
            raise NetlinkError(errno.EINVAL, "Classid cannot be zero")
        message = _message(RTM_DELQDISC, header.ifindex, qdisc, 0)
        gone = [
            (block, chain, block.explicit.get(chain))
            for block in qdisc.blocks
            if len(block.devices) == 1
            for chain in sorted(block.chains)
        ]
        self._filters.remove_qdisc(header.ifindex)
        self._ports.use_tc(header.ifindex, False)
        self._server.notify(request.client.netns, RTNLGRP_TC, message)
        for one in gone:
            self._went(request, *one)
        return [message] if request.echo else None

    def _get(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return Proxy(lambda message: self._root(message, request))
        header, attrs = tables.TC.decode(request.payload)
        if not request.dump:
            if not _is_mine(header):
                return Proxy(lambda message: self._kernels(message, request))
            qdisc = self._find(header)
            if "kind" in attrs and attrs["kind"] != qdisc.kind:
                raise NetlinkError(errno.EINVAL, "Invalid qdisc name")
            return [_message(RTM_NEWQDISC, header.ifindex, qdisc)]
        ours = [
            _message(RTM_NEWQDISC, ifindex, qdisc)
            for ifindex, qdisc in self._filters.blocks.qdiscs.items()
            if header.ifindex in (0, ifindex)
        ]
        return Proxy(lambda message: self._kernels(message, request), ours)

    def _kernels(self, message: NlMsg, request: Request) -> list[Message]:
        """What is shown in place of a message of the kernel's. Its own clsact qdiscs are those of
        :mod:`asap2.nic.silicon.hooks`, which nobody is to see."""
        if message.type == RTM_NEWQDISC and tables.TC.decode(message.payload)[0].parent == TC_H_INGRESS:
            return []
        return self._root(message, request)


def _shared(kind: str, attrs: Attrs) -> int:
    """The index of the block that a new qdisc shares, or 0 (qdisc_block_indexes_set); EINVAL, EOPNOTSUPP."""
    for name in ("ingress", "egress"):
        index = attrs.get(f"{name}_block")
        if index is None:
            continue
        if not index:
            raise NetlinkError(errno.EINVAL, f"{name.capitalize()} block index cannot be 0")
        if name == "egress":
            if kind == "ingress":
                raise NetlinkError(errno.EOPNOTSUPP, "Egress block sharing is not supported")
            raise NetlinkError(errno.EOPNOTSUPP, "Shared egress blocks are not supported")
    shared: int = attrs.get("ingress_block", 0)
    return shared


def _is_mine(header: tables.Tcmsg) -> bool:
    return header.parent == TC_H_INGRESS or (not header.parent and header.handle & _MAJOR == HANDLE_INGRESS)


def _message(kind: int, ifindex: int, qdisc: Qdisc, references: int = 1) -> Message:
    header = tables.Tcmsg(0, ifindex, HANDLE_INGRESS, TC_H_INGRESS, references)
    attrs = {
        "kind": qdisc.kind,
        **({"ingress_block": qdisc.ingress.index} if qdisc.ingress.index else {}),
        "options": {},
        "hw_offload": 0,
        "stats2": {"basic": Basic(0, 0), "queue": Queue()},
        "stats": tables.TcStats(),
    }
    return Message(kind, tables.TC.encode(header, attrs))


def as_it_is(message: NlMsg, _request: Request) -> list[Message]:
    """The message of the kernel's."""
    return [Message(message.type, message.payload, message.flags)]
