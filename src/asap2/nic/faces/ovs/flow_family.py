# SPDX-License-Identifier: Apache-2.0
"""The generic netlink family ovs_flow: flows of the datapath (net/openvswitch/datapath.c, ovs_flow_cmd_*)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from typing import Final

from asap2.netlink.request import Answer, GenlFamily, GenlHeader, Message, Request
from asap2.netlink.tables import ovs as protocol
from asap2.netlink.wire import NetlinkError, attribute
from asap2.nic.faces.ovs import actions as act
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.attributes import named, u32
from asap2.nic.faces.ovs.datapath import Datapath
from asap2.nic.faces.ovs.flows import Flow
from asap2.nic.faces.ovs.numbers import (
    DEL,
    FLOW_ACTIONS,
    FLOW_CLEAR,
    FLOW_KEY,
    FLOW_MASK,
    FLOW_STATS,
    FLOW_UFID,
    FLOW_UFID_FLAGS,
    FLOW_USED,
    GET,
    NEW,
    OPS,
    SET,
)
from asap2.nic.rules import Counters

FLOW_ID: Final = 0x7012

_S32 = struct.Struct("=i")
_U64 = struct.Struct("=Q")


class FlowFamily:
    """Serves ovs_flow; *of* gives the datapath that a request's header names."""

    def __init__(self, of: Callable[[bytes], Datapath]) -> None:
        self._of = of
        self.put: Callable[[Datapath, Flow], None] | None = None
        """Called with each flow that is put, while somebody watches."""
        self.family = GenlFamily(
            "ovs_flow",
            FLOW_ID,
            1,
            4,
            11,
            OPS,
            [("ovs_flow", 0x7012)],
            {NEW: self._new, DEL: self._del, GET: self._get, SET: self._set},
        )

    def _message(self, dp: Datapath, flow: Flow, counters: Counters, cmd: int, omit: int = 0) -> Message:
        body = _S32.pack(dp.ifindex)
        if flow.ufid is not None:
            body += attribute(FLOW_UFID, flow.ufid)
            if not omit & protocol.OVS_UFID_F_OMIT_KEY:
                body += attribute(FLOW_KEY, flow.key)
        else:
            body += attribute(FLOW_KEY, flow.exact)
        if not omit & protocol.OVS_UFID_F_OMIT_MASK:
            body += attribute(FLOW_MASK, flow.mask)
        if counters.used_ns:
            body += attribute(FLOW_USED, _U64.pack(counters.used_ns // 1_000_000))
        if counters.packets:
            body += attribute(FLOW_STATS, struct.pack("=QQ", counters.packets, counters.bytes))
        if not omit & protocol.OVS_UFID_F_OMIT_ACTIONS:
            body += attribute(FLOW_ACTIONS, act.echoed(flow.actions))
        return Message(FLOW_ID, self.family.payload(cmd, body))

    @staticmethod
    def _ufid(attrs: dict[int, bytes]) -> bytes | None:
        ufid = attrs.get(FLOW_UFID)
        if ufid is not None and not 0 < len(ufid) <= 16:
            raise NetlinkError(errno.EINVAL, f"ufid size {len(ufid)} bytes exceeds the range (1, 16)")
        return ufid

    def _find(self, dp: Datapath, attrs: dict[int, bytes]) -> Flow:
        ufid, key = self._ufid(attrs), attrs.get(FLOW_KEY)
        if ufid is None and key is None:
            raise NetlinkError(errno.EINVAL, "Flow get message rejected, Key attribute missing.")
        exact = None
        if key is not None:
            fields = ovs_key.match_of(key, None).key
            exact = ovs_key.emit(fields, fields)
        flow = dp.flows.of(ufid, exact)
        if flow is None:
            raise NetlinkError(errno.ENOENT)
        return flow

    def _new(self, request: Request, genl: GenlHeader) -> Answer:
        attrs = named(genl.attrs)
        if FLOW_KEY not in attrs:
            raise NetlinkError(errno.EINVAL, "Flow key attr not present in new flow.")
        if FLOW_ACTIONS not in attrs:
            raise NetlinkError(errno.EINVAL, "Flow actions attr not present in new flow.")
        match = ovs_key.match_of(attrs[FLOW_KEY], attrs.get(FLOW_MASK))
        act.parse(attrs[FLOW_ACTIONS], match.masked())
        ufid = self._ufid(attrs)
        dp = self._of(genl.header)
        flow = dp.put(ufid, match, attrs[FLOW_ACTIONS], modify=not (request.create or request.excl))
        if self.put is not None:
            self.put(dp, flow)
        return [self._message(dp, flow, dp.counters([flow])[0], NEW)] if request.echo else None

    def _set(self, request: Request, genl: GenlHeader) -> Answer:
        attrs = named(genl.attrs)
        if FLOW_KEY not in attrs and FLOW_UFID not in attrs:
            raise NetlinkError(errno.EINVAL, "Flow key attribute not present in set flow.")
        match = None
        if FLOW_KEY in attrs:
            match = ovs_key.match_of(attrs[FLOW_KEY], attrs.get(FLOW_MASK))
        if FLOW_ACTIONS in attrs:
            if match is None:
                raise NetlinkError(errno.EINVAL)
            act.parse(attrs[FLOW_ACTIONS], match.masked())
        dp = self._of(genl.header)
        flow = self._find(dp, attrs)
        if FLOW_ACTIONS in attrs and match is not None:
            dp.set_actions(flow, match, attrs[FLOW_ACTIONS])
        counters = dp.counters([flow])[0]
        if FLOW_CLEAR in attrs:
            dp.clear(flow)
        return [self._message(dp, flow, counters, SET)] if request.echo else None

    def _del(self, request: Request, genl: GenlHeader) -> Answer:
        attrs = named(genl.attrs)
        dp = self._of(genl.header)
        if FLOW_KEY not in attrs and FLOW_UFID not in attrs:
            dp.flush()
            return None
        flow = self._find(dp, attrs)
        before = flow.base
        last = dp.delete(flow)
        counters = Counters(last.packets - before.packets, last.bytes - before.bytes, last.used_ns)
        omit = u32(attrs.get(FLOW_UFID_FLAGS)) or 0
        return [self._message(dp, flow, counters, DEL, omit)] if request.echo else None

    def _get(self, request: Request, genl: GenlHeader) -> Answer:
        attrs = named(genl.attrs)
        dp = self._of(genl.header)
        omit = u32(attrs.get(FLOW_UFID_FLAGS)) or 0
        if request.dump:
            return self._dump(dp, omit)
        flow = self._find(dp, attrs)
        return [self._message(dp, flow, dp.counters([flow])[0], GET, omit)]

    def _dump(self, dp: Datapath, omit: int) -> Iterator[Message]:
        flows = list(dp.flows)
        for flow, counters in zip(flows, dp.counters(flows), strict=True):
            yield self._message(dp, flow, counters, GET, omit)
