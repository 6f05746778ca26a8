# SPDX-License-Identifier: Apache-2.0
"""Traffic control over rtnetlink: ingress and clsact qdiscs, chains, and flower and matchall filters.

It translates messages; :mod:`asap2.nic.faces.tc.filters` holds the state. Errors and their texts are those of
net/sched/cls_api.c, Linux 6.1. Filters of other qdiscs are the kernel's own.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.request import PASS, Answer, Message, Reply, Request
from asap2.netlink.server import Server
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.tc import RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWTFILTER
from asap2.netlink.wire import NetlinkError, NlMsg
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc import match_all
from asap2.nic.faces.tc.action_requests import ActionFace
from asap2.nic.faces.tc.blocks import AUTO_PRIO, FIRST_OF_AUTO, Block, Proto
from asap2.nic.faces.tc.chains import CLASSIFIERS, ChainFace, chain_of
from asap2.nic.faces.tc.counted import NOTHING, Counted
from asap2.nic.faces.tc.filter import Filter
from asap2.nic.faces.tc.filters import Filters
from asap2.nic.faces.tc.flower import FlowerKey
from asap2.nic.faces.tc.qdiscs import (
    PARENT_EGRESS,
    PARENT_INGRESS,
    RTNLGRP_TC,
    QdiscFace,
    as_it_is,
    find_block,
    is_ours,
    seen_block,
)
from asap2.nic.faces.tc.spec import IN_HW, NOT_IN_HW, VERBOSE, Asked
from asap2.nic.faces.tc.templates import Templates
from asap2.nic.node_ports import NodePorts

_TERSE: Final = 1


class TcFace:
    """The messages RTM_{NEW,DEL,GET}{QDISC,TFILTER,CHAIN,ACTION} of the node's network namespace."""

    def __init__(
        self,
        server: Server,
        filters: Filters,
        ports: NodePorts,
        node_cookie: int,
        root: Callable[[NlMsg, Request], list[Message]] = as_it_is,
    ) -> None:
        """*root* gives what is shown in place of a message of the kernel's about a qdisc."""
        self._server = server
        self._filters = filters
        self._ports = ports
        self._cookie = node_cookie
        self._templates = Templates()
        self._chains = ChainFace(server, filters, self._elsewhere, self._priority_removed)
        self._qdiscs = QdiscFace(server, filters, ports, self._elsewhere, self._chains.went, root)
        ActionFace(server, filters, self._elsewhere)
        server.route((RTM_NEWTFILTER,), self._filter_new)
        server.route((RTM_DELTFILTER,), self._filter_del)
        server.route((RTM_GETTFILTER,), self._filter_get)

    def _elsewhere(self, request: Request) -> bool:
        return request.client.netns.cookie != self._cookie

    def links_changed(self) -> None:
        """Forget what hung on devices that are no more."""
        self._qdiscs.links_changed()

    def _filter_new(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return PASS
        made = self._filter_from_template(request)
        if made is not None:
            return self._made(request, *made)
        header, attrs = tables.TC.decode(request.payload)
        if not is_ours(header):
            return PASS
        prio, protocol, kind = header.prio, header.protocol, attrs.get("kind")
        if not prio and not request.create:
            raise NetlinkError(errno.ENOENT, "Invalid filter command with priority of zero")
        block = find_block(self._filters, header)
        self._filters.put_by(block, header.parent)
        chain = chain_of(attrs)
        protos = block.chains.get(chain, {})
        proto = protos.get(prio) if prio else None
        if proto is not None and protocol and proto.protocol != protocol:
            raise NetlinkError(errno.EINVAL, "Filter with specified priority/protocol not found")
        if proto is None:
            proto = self._new_proto(block, chain, header, kind, request.create)
        elif kind is not None and kind != proto.kind:
            raise NetlinkError(errno.EINVAL, "Specified filter kind does not match existing one")
        chain_template = block.explicit.get(chain)
        if chain_template is not None and chain_template.kind != proto.kind:
            raise NetlinkError(errno.EINVAL, "Chain template is set to a different filter kind")
        self._check_direction(block)
        options = attrs.get("options")
        if not isinstance(options, Attrs):
            raise NetlinkError(errno.EINVAL)
        new_chain = chain not in block.chains
        asked = Asked(header.handle, options, request.payload, request.create, request.excl)
        one, refused = self._filters.put(proto, asked)
        if new_chain:
            self._chains.came(request, block, chain)
        if chain_template is None and not one.shared and not block.index and not one.key.ranges and not one.key.indev:
            one.template = self._templates.add(
                request.flags, request.payload, header, attrs, one.key, one.steps, one.listed
            )
        if one.template is not None:
            self._filters.remember_place(proto, one)
        warning = refused.text if refused is not None and options.get("flags", 0) & VERBOSE else None
        return self._made(request, proto, one, warning)

    def _filter_from_template(self, request: Request) -> tuple[Proto, Filter] | None:
        """Add a filter from a template to a priority that is there; None: translate the request in full."""
        template = self._templates.find(request.flags, request.payload)
        if template is None:
            return None
        header = template.header
        qdisc = self._filters.blocks.qdiscs.get(header.ifindex)
        if qdisc is None or header.parent not in (PARENT_INGRESS, PARENT_EGRESS):
            return None
        block = qdisc.egress if header.parent == PARENT_EGRESS and qdisc.kind == "clsact" else qdisc.ingress
        if template.chain in block.explicit or block.index:
            return None
        self._filters.put_by(block, header.parent)
        proto = block.chains.get(template.chain, {}).get(header.prio)
        if proto is None or proto.protocol != header.protocol or proto.kind != "flower":
            return None
        return proto, self._filters.put_from_template(proto, template, request.payload)

    def _made(self, request: Request, proto: Proto, one: Filter, warning: str | None = None) -> Answer:
        """A filter was made: tell."""
        counters = self._filters.counters([one])[0] if one.before.packets else None
        parent = one.template.header.parent if one.template is not None else proto.block.parent
        message = self._filter_message(RTM_NEWTFILTER, proto, one, counters, request.flags, parent)
        self._server.notify(request.client.netns, RTNLGRP_TC, message)
        if warning is not None:
            return Reply([message] if request.echo else [], warning)
        return [message] if request.echo else None

    def _check_direction(self, block: Block) -> None:
        """EOPNOTSUPP for filters that the node's pipeline does not see the packets of."""
        for ifindex in block.devices:
            if ifindex == self._ports.upcall_device:
                continue  # it has no packets but the switch's own
            if block.egress != self._ports.is_internal(ifindex):
                raise NetlinkError(errno.EOPNOTSUPP, "Filters of this direction are not supported on this device")

    @staticmethod
    def _new_proto(block: Block, chain: int, header: tables.Tcmsg, kind: str | None, create: bool) -> Proto:
        """A priority that is not there yet; where none is asked for, the one before those of :data:`FIRST_OF_AUTO` and
        up (tcf_auto_prio)."""
        protos, prio, protocol = block.chains.get(chain, {}), header.prio, header.protocol
        if not prio and FIRST_OF_AUTO in protos:
            raise NetlinkError(errno.EINVAL, "Filter with specified priority/protocol not found")
        if kind is None or not protocol:
            raise NetlinkError(errno.EINVAL, "Filter kind and protocol must be specified")
        if not create:
            raise NetlinkError(errno.ENOENT, "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter")
        if kind not in CLASSIFIERS:
            raise NetlinkError(errno.ENOENT, "TC classifier not found")
        prio = prio or min((p for p in protos if p > FIRST_OF_AUTO), default=AUTO_PRIO + 1) - 1
        return Proto(block, chain, prio, protocol, kind)

    def _filter_del(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return PASS
        header, attrs = tables.TC.decode(request.payload)
        if not is_ours(header):
            return PASS
        prio, protocol, kind, handle = header.prio, header.protocol, attrs.get("kind"), header.handle
        if not prio and (protocol or handle or kind is not None):
            raise NetlinkError(errno.ENOENT, "Cannot flush filters with protocol, handle or kind set")
        block = find_block(self._filters, header)
        chain = chain_of(attrs)
        if chain not in block.chains:
            if not prio:
                return None
            raise NetlinkError(errno.ENOENT, "Cannot find specified filter chain")
        if not prio:
            for proto in list(block.protos(chain)):
                self._removed(request, proto, None, header.parent)
                self._filters.remove_proto(proto)
            self._emptied(request, block, chain)
            return None
        proto = self._find_proto(block, chain, prio, protocol, kind)
        if not handle:
            self._removed(request, proto, None, header.parent)
            self._filters.remove_proto(proto)
            self._emptied(request, block, chain)
            return None
        one = proto.filters.get(handle)
        if one is None:
            raise NetlinkError(errno.ENOENT, "Specified filter handle not found")
        self._removed(request, proto, one, header.parent)
        self._filters.remove(proto, handle)
        self._emptied(request, block, chain)
        return None

    def _emptied(self, request: Request, block: Block, chain: int) -> None:
        """Tell of a chain that went with its last filter."""
        if chain not in block.chains:
            self._chains.went(request, block, chain)

    def _priority_removed(self, request: Request, proto: Proto) -> None:
        self._removed(request, proto, None, proto.block.parent)

    def _removed(self, request: Request, proto: Proto, one: Filter | None, parent: int) -> None:
        counters = self._filters.counters([one])[0] if one else NOTHING
        message = self._filter_message(RTM_DELTFILTER, proto, one, counters, request.flags, parent)
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
        if not is_ours(header):
            return PASS
        if request.dump:
            if not header.ifindex:
                return []
            flags = attrs.get("dump_flags")
            terse = bool(flags and flags.value & _TERSE)
            try:
                block = seen_block(self._filters, header)
            except NetlinkError:
                return []
            return self._dump(block, attrs.get("chain"), header, terse)
        if not header.prio:
            raise NetlinkError(errno.ENOENT, "Invalid filter command with priority of zero")
        block = find_block(self._filters, header)
        chain = chain_of(attrs)
        if chain not in block.chains:
            raise NetlinkError(errno.EINVAL, "Cannot find specified filter chain")
        proto = self._find_proto(block, chain, header.prio, header.protocol, attrs.get("kind"))
        one = proto.filters.get(header.handle)
        if one is None:
            raise NetlinkError(errno.ENOENT, "Specified filter handle not found")
        counters = self._filters.counters([one])[0]
        flags, parent = request.flags, header.parent
        return [self._filter_message(RTM_NEWTFILTER, proto, one, counters, flags, parent)]

    def _dump(self, block: Block, only: int | None, header: tables.Tcmsg, terse: bool) -> Iterator[Message]:
        for proto in list(block.protos(only)):
            if header.prio not in (0, proto.prio) or header.protocol not in (0, proto.protocol):
                continue
            yield self._filter_message(RTM_NEWTFILTER, proto, None, NOTHING, 0)
            if terse and proto.kind != "flower":  # the others have no terse form (tcf_fill_node)
                continue
            filters = [proto.filters[handle] for handle in sorted(proto.filters)]
            for one, counters in zip(filters, self._filters.counters(filters), strict=True):
                yield self._filter_message(RTM_NEWTFILTER, proto, one, counters, 0, terse=terse)

    def _filter_message(
        self,
        kind: int,
        proto: Proto,
        one: Filter | None,
        counters: Counted | None,
        flags: int,
        parent: int = 0,
        *,
        terse: bool = False,
    ) -> Message:
        """What tells of a filter, or (None) of a whole priority; without *counters*, of one that was made just now.

        *parent* is the request's; 0 is that by which filters were last put there.
        """
        parent = parent or proto.block.parent
        if one is not None and one.template is not None and not one.shared and one.template.header.parent == parent:
            frame = one.template.frames.get((one.in_hw, terse))
            if frame is not None:
                state = one.state(counters) if counters is not None else None
                return Message(kind, frame.fill(one.handle, one.request, one.indices, state), flags)
        handle = one.handle if one else 0
        header = tables.Tcmsg(0, proto.block.ifindex, handle, parent, tables.info(proto.prio, proto.protocol))
        attrs: dict[str, Any] = {"kind": proto.kind, "chain": proto.chain}
        if one is None:
            return Message(kind, tables.TC.encode(header, attrs), flags)
        key, listed = one.translated, one.listed
        if key is None:  # made from a template: what it was asked to be is in the request alone
            assert one.template is not None
            key, read = one.template.read(one.request, one.indices)
            listed = listed or read
        state = one.state(counters or NOTHING)
        actions = tc_actions.dump(
            listed, state, terse=terse, shared=self._filters.actions.state, metered=self._filters.police.counted
        )
        attrs["options"] = _options(proto.kind, one, key, state.counters, actions, terse)
        payload = tables.TC.encode(header, attrs)
        if one.template is not None and not one.shared and one.template.header.parent == parent:
            one.template.learn(payload, one.in_hw, terse, listed)
        return Message(kind, payload, flags)


def _options(
    kind: str, one: Filter, key: FlowerKey, counters: Counted, actions: list[dict[str, Any]], terse: bool
) -> dict[str, Any]:
    flags = one.flags | (IN_HW if one.in_hw else NOT_IN_HW)
    classid = {"classid": one.classid} if one.classid else {}
    options: dict[str, Any] = {}
    if kind == "u32":
        asked = tables.TC.decode(one.request)[1]["options"]
        options = {"sel": asked["sel"], "hash": match_all.U32_TABLE, **classid, "flags": flags}
    elif kind == "basic":
        options = {**classid, "pcnt": tables.BasicCount(counters.packets, counters.packets)}
    elif kind == "matchall":
        options = {**classid, "flags": flags, "pcnt": counters.packets}
    elif terse:
        options["flags"] = flags
    else:
        options = {**classid, **key.shown(), "flags": flags, "in_hw_count": one.in_hw_count}
    if actions:
        options["act"] = actions
    return options
