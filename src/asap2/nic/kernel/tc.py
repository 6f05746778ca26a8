# SPDX-License-Identifier: Apache-2.0
"""Traffic control over rtnetlink: ingress and clsact qdiscs, chains, and flower and matchall filters.

It translates messages; :mod:`asap2.nic.kernel.tc_filters` holds the state. Errors and their texts are those of
net/sched/{sch_api,cls_api}.c, Linux 6.1. Other qdiscs are the kernel's own.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.request import PASS, Answer, Message, Proxy, Request
from asap2.netlink.server import Server
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.actions import Basic, Queue
from asap2.netlink.wire import NetlinkError, NlMsg
from asap2.nic.kernel import tc_actions
from asap2.nic.kernel.tc_filters import (
    AUTO_PRIO,
    IN_HW,
    MAX_CHAIN,
    NOT_IN_HW,
    SKIP_HW,
    Block,
    Filter,
    Filters,
    Proto,
    Qdisc,
)
from asap2.nic.kernel.tc_flower import FlowerKey
from asap2.nic.kernel.tc_shapes import Shapes
from asap2.nic.node_ports import NodePorts
from asap2.nic.rules import Counters

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
RTM_NEWACTION, RTM_DELACTION, RTM_GETACTION = 48, 49, 50
RTM_NEWCHAIN, RTM_DELCHAIN, RTM_GETCHAIN = 100, 101, 102
RTNLGRP_TC: Final = 4

TC_H_INGRESS: Final = 0xFFFF_FFF1
HANDLE_INGRESS: Final = 0xFFFF_0000
PARENT_INGRESS: Final = 0xFFFF_FFF2
PARENT_EGRESS: Final = 0xFFFF_FFF3
_OURS: Final = ("ingress", "clsact")
_KINDS: Final = ("flower", "matchall")
_TERSE: Final = 1


class TcFace:
    """The messages RTM_{NEW,DEL,GET}{QDISC,TFILTER,CHAIN,ACTION} of the node's network namespace."""

    def __init__(self, server: Server, filters: Filters, ports: NodePorts, node_cookie: int) -> None:
        self._server = server
        self._filters = filters
        self._ports = ports
        self._cookie = node_cookie
        self._shapes = Shapes()
        for types, handler in (
            ((RTM_NEWQDISC,), self._qdisc_new),
            ((RTM_DELQDISC,), self._qdisc_del),
            ((RTM_GETQDISC,), self._qdisc_get),
            ((RTM_NEWTFILTER,), self._filter_new),
            ((RTM_DELTFILTER,), self._filter_del),
            ((RTM_GETTFILTER,), self._filter_get),
            ((RTM_NEWCHAIN, RTM_DELCHAIN, RTM_GETCHAIN), self._chain),
            ((RTM_NEWACTION, RTM_DELACTION, RTM_GETACTION), self._action),
        ):
            server.route(types, handler)

    def _elsewhere(self, request: Request) -> bool:
        return request.client.netns.cookie != self._cookie

    def links_changed(self) -> None:
        """Forget what hung on devices that are no more."""
        for ifindex in list(self._filters.qdiscs):
            try:
                socket.if_indextoname(ifindex)
            except OSError:
                self._filters.remove_qdisc(ifindex)

    # ---- qdiscs

    @staticmethod
    def _device(ifindex: int) -> None:
        try:
            socket.if_indextoname(ifindex)
        except (OSError, OverflowError):
            raise NetlinkError(errno.ENODEV) from None

    def _qdisc_new(self, request: Request) -> Answer:
        header, attrs = tables.TC.decode(request.payload)
        kind = attrs.get("kind")
        if self._elsewhere(request) or kind not in _OURS:
            return PASS
        self._device(header.ifindex)
        if header.parent != TC_H_INGRESS:
            raise NetlinkError(errno.EOPNOTSUPP)
        if attrs.get("ingress_block") or attrs.get("egress_block"):
            raise NetlinkError(errno.EOPNOTSUPP, "Shared blocks are not supported")
        old = self._filters.qdiscs.get(header.ifindex)
        if old is not None:
            if request.excl:
                raise NetlinkError(errno.EEXIST, "Exclusivity flag on, cannot modify")
            if old.kind != kind:
                raise NetlinkError(errno.EINVAL, "Invalid qdisc name")
            raise NetlinkError(errno.EOPNOTSUPP, "Change operation not supported by specified qdisc")
        if not request.create:
            raise NetlinkError(errno.ENOENT, "Qdisc not found. To create specify NLM_F_CREATE flag")
        self._filters.add_qdisc(header.ifindex, kind)
        self._ports.use_tc(header.ifindex, True)
        message = self._qdisc_message(RTM_NEWQDISC, header.ifindex, self._filters.qdiscs[header.ifindex])
        self._server.notify(request.client.netns, RTNLGRP_TC, message)
        return [message] if request.echo else None

    def _qdisc_del(self, request: Request) -> Answer:
        header, attrs = tables.TC.decode(request.payload)
        mine = header.parent == TC_H_INGRESS or header.handle & 0xFFFF0000 == HANDLE_INGRESS
        if self._elsewhere(request) or not mine:
            return PASS
        self._device(header.ifindex)
        qdisc = self._filters.qdiscs.get(header.ifindex)
        if qdisc is None:
            raise NetlinkError(errno.ENOENT, "Cannot find specified qdisc on specified device")
        if "kind" in attrs and attrs["kind"] != qdisc.kind:
            raise NetlinkError(errno.EINVAL, "Invalid qdisc name")
        message = self._qdisc_message(RTM_DELQDISC, header.ifindex, qdisc)
        self._filters.remove_qdisc(header.ifindex)
        self._ports.use_tc(header.ifindex, False)
        self._server.notify(request.client.netns, RTNLGRP_TC, message)
        return [message] if request.echo else None

    def _qdisc_get(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return PASS
        header, _ = tables.TC.decode(request.payload)
        if not request.dump:
            if header.parent != TC_H_INGRESS and header.handle != HANDLE_INGRESS:
                return PASS
            qdisc = self._filters.qdiscs.get(header.ifindex)
            if qdisc is None:
                raise NetlinkError(errno.ENOENT, "Cannot find specified qdisc on specified device")
            return [self._qdisc_message(RTM_NEWQDISC, header.ifindex, qdisc)]
        ours = [
            self._qdisc_message(RTM_NEWQDISC, ifindex, qdisc)
            for ifindex, qdisc in self._filters.qdiscs.items()
            if header.ifindex in (0, ifindex)
        ]
        return Proxy(_unchanged, ours)

    @staticmethod
    def _qdisc_message(kind: int, ifindex: int, qdisc: Qdisc) -> Message:
        header = tables.Tcmsg(0, ifindex, HANDLE_INGRESS, TC_H_INGRESS, 1)
        attrs = {
            "kind": qdisc.kind,
            "options": {},
            "hw_offload": 0,
            "stats2": {"basic": Basic(0, 0), "queue": Queue()},
            "stats": tables.TcStats(),
        }
        return Message(kind, tables.TC.encode(header, attrs))

    # ---- filters

    def _block(self, header: Any) -> Block | None:
        """The block that a filter message is for; None when the device has no such qdisc. ENODEV, EINVAL."""
        if header.ifindex == -1:
            raise NetlinkError(errno.EINVAL, "Block of given index was not found")
        self._device(header.ifindex)
        qdisc = self._filters.qdiscs.get(header.ifindex)
        if qdisc is None:
            return None
        if header.parent == PARENT_INGRESS or header.parent in (HANDLE_INGRESS, TC_H_INGRESS):
            return qdisc.ingress
        if header.parent == PARENT_EGRESS and qdisc.kind == "clsact":
            return qdisc.egress
        return None

    @staticmethod
    def _chain_of(attrs: Attrs) -> int:
        chain: int = attrs.get("chain", 0)
        if chain > MAX_CHAIN:
            raise NetlinkError(errno.EINVAL, "Specified chain index exceeds upper limit")
        return chain

    def _filter_new(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return PASS
        made = self._filter_shaped(request)
        if made is not None:
            return self._made(request, *made)
        header, attrs = tables.TC.decode(request.payload)
        prio, protocol, kind = header.prio, header.protocol, attrs.get("kind")
        if not prio and not request.create:
            raise NetlinkError(errno.ENOENT, "Invalid filter command with priority of zero")
        block = self._block(header)
        if block is None:
            raise NetlinkError(errno.EINVAL, "Parent Qdisc doesn't exists")
        chain = self._chain_of(attrs)
        protos = block.chains.get(chain, {})
        proto = protos.get(prio) if prio else None
        if proto is not None and protocol and proto.protocol != protocol:
            raise NetlinkError(errno.EINVAL, "Filter with specified priority/protocol not found")
        if proto is None:
            proto = self._new_proto(protos, prio, protocol, kind, request.create)
        elif kind is not None and kind != proto.kind:
            raise NetlinkError(errno.EINVAL, "Specified filter kind does not match existing one")
        self._check_egress(block)
        options = attrs.get("options")
        if not isinstance(options, Attrs):
            raise NetlinkError(errno.EINVAL)
        one = self._filters.put(block, chain, proto, header.handle, options, excl=request.excl, create=request.create)
        one.request = request.payload
        one.shape = self._shapes.add(request.flags, request.payload, header, attrs, one.key, one.steps, one.listed)
        if one.shape is not None:
            one.indices = tc_actions.indices(one.listed)
            self._filters.remember_place(block, proto, one)
        return self._made(request, block, chain, proto, one)

    def _filter_shaped(self, request: Request) -> tuple[Block, int, Proto, Filter] | None:
        """Add a filter of a known shape to a priority that is there; None: it is for the long way."""
        shape = self._shapes.find(request.flags, request.payload)
        if shape is None:
            return None
        header = shape.header
        qdisc = self._filters.qdiscs.get(header.ifindex)
        if qdisc is None:
            return None
        block = qdisc.egress if header.parent == PARENT_EGRESS else qdisc.ingress
        proto = block.chains.get(shape.chain, {}).get(header.prio)
        if proto is None or proto.protocol != header.protocol or proto.kind != "flower":
            return None
        return block, shape.chain, proto, self._filters.put_shaped(block, proto, shape, request.payload)

    def _made(self, request: Request, block: Block, chain: int, proto: Proto, one: Filter) -> Answer:
        """A filter was made: keep it, and tell."""
        self._filters.keep(block, chain, proto, one)
        counters = self._filters.counters([one])[0] if one.before.packets else None
        message = self._filter_message(RTM_NEWTFILTER, block, chain, proto, one, counters, request.flags)
        self._server.notify(request.client.netns, RTNLGRP_TC, message)
        return [message] if request.echo else None

    def _check_egress(self, block: Block) -> None:
        if block.egress != self._ports.is_internal(block.ifindex):
            raise NetlinkError(errno.EOPNOTSUPP, "Filters of this direction are not supported on this device")

    @staticmethod
    def _new_proto(protos: dict[int, Proto], prio: int, protocol: int, kind: str | None, create: bool) -> Proto:
        if kind is None or not protocol:
            raise NetlinkError(errno.EINVAL, "Filter kind and protocol must be specified")
        if not create:
            raise NetlinkError(errno.ENOENT, "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter")
        if kind not in _KINDS:
            raise NetlinkError(errno.ENOENT, "TC classifier not found")
        return Proto(prio or (min(protos) - 1 if protos else AUTO_PRIO), protocol, kind)

    def _filter_del(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return PASS
        header, attrs = tables.TC.decode(request.payload)
        prio, protocol, kind, handle = header.prio, header.protocol, attrs.get("kind"), header.handle
        if not prio and (protocol or handle or kind is not None):
            raise NetlinkError(errno.ENOENT, "Cannot flush filters with protocol, handle or kind set")
        block = self._block(header)
        if block is None:
            raise NetlinkError(errno.EINVAL, "Parent Qdisc doesn't exists")
        chain = self._chain_of(attrs)
        if chain not in block.chains:
            if not prio:
                return None
            raise NetlinkError(errno.ENOENT, "Cannot find specified filter chain")
        if not prio:
            for _, proto in list(block.protos(chain)):
                self._removed(request, block, chain, proto, None)
                self._filters.remove_proto(block, chain, proto)
            return None
        proto = self._find_proto(block, chain, prio, protocol, kind)
        if not handle:
            self._removed(request, block, chain, proto, None)
            self._filters.remove_proto(block, chain, proto)
            return None
        one = proto.filters.get(handle)
        if one is None:
            raise NetlinkError(errno.ENOENT, "Specified filter handle not found")
        self._removed(request, block, chain, proto, one)
        self._filters.remove(block, chain, proto, handle)
        return None

    def _removed(self, request: Request, block: Block, chain: int, proto: Proto, one: Filter | None) -> None:
        counters = self._filters.counters([one])[0] if one else Counters()
        message = self._filter_message(RTM_DELTFILTER, block, chain, proto, one, counters, request.flags)
        self._server.notify(request.client.netns, RTNLGRP_TC, message)

    @staticmethod
    def _find_proto(block: Block, chain: int, prio: int, protocol: int, kind: str | None) -> Proto:
        proto = block.chains.get(chain, {}).get(prio)
        if proto is None or (protocol and proto.protocol != protocol):
            number = errno.ENOENT if proto is None else errno.EINVAL
            raise NetlinkError(number, "Filter with specified priority/protocol not found")
        if kind is not None and kind != proto.kind:
            raise NetlinkError(errno.EINVAL, "Specified filter kind does not match existing one")
        return proto

    def _filter_get(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return PASS
        header, attrs = tables.TC.decode(request.payload)
        if request.dump:
            if header.ifindex in (0, -1):
                return []
            flags = attrs.get("dump_flags")
            terse = bool(flags and flags.value & _TERSE)
            try:
                block = self._block(header)
            except NetlinkError:
                return []
            return self._dump(block, attrs.get("chain"), header, terse) if block else []
        if not header.prio:
            raise NetlinkError(errno.ENOENT, "Invalid filter command with priority of zero")
        block = self._block(header)
        if block is None:
            raise NetlinkError(errno.EINVAL, "Parent Qdisc doesn't exists")
        chain = self._chain_of(attrs)
        if chain not in block.chains:
            raise NetlinkError(errno.EINVAL, "Cannot find specified filter chain")
        proto = self._find_proto(block, chain, header.prio, header.protocol, attrs.get("kind"))
        one = proto.filters.get(header.handle)
        if one is None:
            raise NetlinkError(errno.ENOENT, "Specified filter handle not found")
        counters = self._filters.counters([one])[0]
        return [self._filter_message(RTM_NEWTFILTER, block, chain, proto, one, counters, request.flags)]

    def _dump(self, block: Block, only: int | None, header: tables.Tcmsg, terse: bool) -> Iterator[Message]:
        for chain, proto in list(block.protos(only)):
            if header.prio not in (0, proto.prio) or header.protocol not in (0, proto.protocol):
                continue
            yield self._filter_message(RTM_NEWTFILTER, block, chain, proto, None, Counters(), 0)
            if terse and proto.kind == "matchall":  # it has no terse form (tcf_fill_node)
                continue
            filters = [proto.filters[handle] for handle in sorted(proto.filters)]
            for one, counters in zip(filters, self._filters.counters(filters), strict=True):
                yield self._filter_message(RTM_NEWTFILTER, block, chain, proto, one, counters, 0, terse=terse)

    @staticmethod
    def _filter_message(
        kind: int,
        block: Block,
        chain: int,
        proto: Proto,
        one: Filter | None,
        counters: Counters | None,
        flags: int,
        *,
        terse: bool = False,
    ) -> Message:
        """What tells of a filter, or (None) of a whole priority; without *counters*, of one that was made just now."""
        frame = one.shape.frames.get((one.in_hw, terse)) if one is not None and one.shape is not None else None
        if one is not None and frame is not None:
            state = _state(one, counters) if counters is not None else None
            return Message(kind, frame.fill(one.handle, one.request, one.indices, state), flags)
        parent = PARENT_EGRESS if block.egress else PARENT_INGRESS
        handle = one.handle if one else 0
        header = tables.Tcmsg(0, block.ifindex, handle, parent, tables.info(proto.prio, proto.protocol))
        attrs: dict[str, Any] = {"kind": proto.kind, "chain": chain}
        if one is None:
            return Message(kind, tables.TC.encode(header, attrs), flags)
        key, listed = one.key, one.listed
        if one.shape is not None and not listed:  # made by its shape: what it was asked to be is in the request alone
            key, listed = one.shape.read(one.request, one.indices)
        attrs["options"] = _options(proto.kind, one, key, listed, counters or Counters(), terse)
        payload = tables.TC.encode(header, attrs)
        if one.shape is not None:
            one.shape.learn(payload, one.in_hw, terse, listed)
        return Message(kind, payload, flags)

    # ---- chains and actions

    def _chain(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return PASS
        header, attrs = tables.TC.decode(request.payload)
        if request.type == RTM_GETCHAIN and request.dump:
            if header.ifindex in (0, -1):
                return []
            block = self._block(header)
            return [self._chain_message(block, chain) for chain in sorted(block.chains)] if block else []
        block = self._block(header)
        if block is None:
            raise NetlinkError(errno.EINVAL, "Parent Qdisc doesn't exists")
        chain = self._chain_of(attrs)
        if request.type == RTM_NEWCHAIN:
            if chain in block.explicit or block.chains.get(chain):
                raise NetlinkError(errno.EEXIST, "Filter chain already exists")
            if "kind" in attrs or "options" in attrs:
                raise NetlinkError(errno.EOPNOTSUPP, "Chain templates are not supported")
            block.explicit.add(chain)
            block.chains.setdefault(chain, {})
            return [self._chain_message(block, chain)] if request.echo else None
        if chain not in block.chains:
            raise NetlinkError(errno.EINVAL, "Cannot find specified filter chain")
        if request.type == RTM_DELCHAIN:
            block.explicit.discard(chain)
            for _, proto in list(block.protos(chain)):
                self._filters.remove_proto(block, chain, proto)
            block.chains.pop(chain, None)
            return None
        return [self._chain_message(block, chain, RTM_GETCHAIN)]  # so tc_chain_notify() has it

    @staticmethod
    def _chain_message(block: Block, chain: int, kind: int = RTM_NEWCHAIN) -> Message:
        header = tables.Tcmsg(0, block.ifindex, 0, HANDLE_INGRESS, 0)  # either block's parent is the qdisc here
        return Message(kind, tables.TC.encode(header, {"chain": chain}))

    @staticmethod
    def _action(request: Request) -> Answer:
        if request.type == RTM_GETACTION and request.dump:
            return []
        raise NetlinkError(errno.EOPNOTSUPP, "Actions without a filter are not supported")


def _unchanged(message: NlMsg) -> list[Message]:
    return [Message(message.type, message.payload, message.flags)]


def _state(one: Filter, counters: Counters) -> tc_actions.ActionState:
    return tc_actions.ActionState(counters, one.made_ns, one.first_ns, one.in_hw, bool(one.flags & SKIP_HW))


def _options(
    kind: str, one: Filter, key: FlowerKey, listed: tuple[tc_actions.Listed, ...], counters: Counters, terse: bool
) -> dict[str, Any]:
    flags = one.flags | (IN_HW if one.in_hw else NOT_IN_HW)
    actions = tc_actions.dump(listed, _state(one, counters), terse=terse)
    options: dict[str, Any] = {}
    if kind == "matchall":
        options.update({"flags": flags, "pcnt": counters.packets})
        return options | {"act": actions} if actions else options
    if not terse:
        if one.classid is not None:
            options["classid"] = one.classid
        options.update(key.dump)
    options["flags"] = flags
    if not terse:
        options["in_hw_count"] = int(one.in_hw)
    if actions:
        options["act"] = actions
    return options
