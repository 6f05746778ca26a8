# SPDX-License-Identifier: Apache-2.0
"""Actions by themselves over rtnetlink: RTM_{NEW,DEL,GET}ACTION.

Errors, their texts and what comes back are those of net/sched/act_api.c, Linux 6.1 (tc_ctl_action, tc_dump_action).
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.request import PASS, Answer, Message, Reply, Request
from asap2.netlink.server import Server
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.actions import ACTION, TC_ACT_GOTO_CHAIN, has_opcode
from asap2.netlink.tables.tc import RTM_DELACTION, RTM_GETACTION, RTM_NEWACTION
from asap2.netlink.wire import NLM_F_ROOT, NetlinkError
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc.action_kinds import PARSERS, parms_of
from asap2.nic.faces.tc.actions import Instance
from asap2.nic.faces.tc.counted import NOTHING
from asap2.nic.faces.tc.filter import Filter
from asap2.nic.faces.tc.filters import Filters
from asap2.nic.faces.tc.qdiscs import RTNLGRP_TC

_LARGE, _TERSE = 1, 2
"""TCA_ACT_FLAG_*: as many actions of a dump in a message as fit; the short form of each."""
_SMALL_DUMP: Final = 32
"""TCA_ACT_MAX_PRIO: how many are in a message else."""
_MS_OF_TICK: Final = 10
_ROOM: Final = 3000
"""Octets of actions in one message of a dump."""


class ActionFace:
    """The messages RTM_{NEW,DEL,GET}ACTION; *elsewhere* says whether one is of another network namespace."""

    def __init__(self, server: Server, filters: Filters, elsewhere: Callable[[Request], bool]) -> None:
        self._server = server
        self._filters = filters
        self._elsewhere = elsewhere
        server.route((RTM_NEWACTION,), self._new)
        server.route((RTM_DELACTION, RTM_GETACTION), self._get_or_delete)

    def _asked(self, request: Request) -> list[Attrs]:
        """The actions of a request; EINVAL, ENOENT."""
        _, attrs = tables.ACTION_BODY.decode(request.payload)
        if not isinstance(attrs.get("tab"), Attrs):
            raise NetlinkError(errno.EINVAL, "Netlink action attributes missing")
        return tc_actions.in_order(attrs["tab"])

    # ---- adding

    def _new(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return PASS
        done: list[tuple[str, Instance]] = []
        try:
            for action in self._asked(request):
                done.append((action["kind"], self._one(action, request.replace)))
        except NetlinkError:
            for kind, instance in done:
                self._filters.actions.drop_reference(kind, instance)
            raise
        told = self._message(RTM_NEWACTION, [self._entry(one) for _, one in done], request.flags)
        for kind, instance in done:  # a request holds what it found, while it tells of it
            if instance.held:
                instance.held = False
                self._filters.actions.drop_reference(kind, instance)
        self._server.notify(request.client.netns, RTNLGRP_TC, told)
        return [told] if request.echo else None

    def _one(self, action: Attrs, replace: bool) -> Instance:
        """One action, made or replaced; EEXIST, and as :func:`.tc_actions.parse_one`."""
        actions, kind = self._filters.actions, action["kind"]
        parms = parms_of(action.get("options"))
        wanted = parms.index if parms is not None else 0
        known = actions.bound(kind, wanted)
        if known is not None and not replace:
            raise NetlinkError(errno.EEXIST)
        if known is not None:
            action = _still_cut(action, known)
        parsed = tc_actions.parse_one(action)
        if has_opcode(parsed.verdict, TC_ACT_GOTO_CHAIN):
            raise NetlinkError(errno.EINVAL, "can't goto NULL proto/chain")
        if parsed.flags & tc_actions.FLAG_SKIP_SW and not self._filters.police.drivers(parsed):
            raise NetlinkError(errno.EINVAL)  # no driver takes another by itself
        request = ACTION.encode(action)
        self._filters.kept.reserve()
        if known is None:
            made = Instance(actions.take(kind, wanted), parsed, request, time.monotonic_ns())
            actions.add(kind, made)
            return made
        known.parsed, known.request = parsed, request
        known.references += 1
        known.held = True
        actions.changed(known)
        return known

    # ---- telling and deleting

    def _get_or_delete(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return PASS
        if request.type == RTM_GETACTION and request.dump:
            return self._dump(request)
        if request.type == RTM_DELACTION and request.flags & NLM_F_ROOT:
            return self._flush(request)
        asked = self._asked(request)
        if request.type == RTM_GETACTION:
            return [self._message(RTM_NEWACTION, [self._told(action) for action in asked], request.flags)]
        told = [self._told(action, less=1) for action in asked]
        for action in asked:
            instance = self._filters.actions.table.instance(action["kind"], action["index"])
            if instance is None or instance.bindings:
                raise NetlinkError(errno.EPERM, "Failed to delete TC action")
            self._filters.actions.drop_reference(action["kind"], instance)
        message = self._message(RTM_DELACTION, told, request.flags)
        self._server.notify(request.client.netns, RTNLGRP_TC, message)
        return [message] if request.echo else None

    def _told(self, action: Attrs, less: int = 0) -> dict[str, Any]:
        """The action that a request names by kind and index, with so many references *less*; EINVAL, ENOENT."""
        kind, index = action["kind"], action.get("index")
        if index is None:
            raise NetlinkError(errno.EINVAL, "Invalid TC action index value")
        if not self._filters.actions.table.has(kind, index):
            raise NetlinkError(errno.ENOENT, "TC action with specified index not found")
        instance = self._filters.actions.table.instance(kind, index)
        if instance is not None:
            return self._entry(instance, less)
        return self._owned(*self._filters.actions.owners(kind)[index])

    def _flush(self, request: Request) -> Answer:
        """Delete what nobody binds of a kind, up to the first that somebody does (tca_action_flush)."""
        _, attrs = tables.ACTION_BODY.decode(request.payload)
        tab = attrs.get("tab")
        first = tab.get(1) if isinstance(tab, Attrs) else None
        kind = first.get("kind") if first is not None else None
        if kind not in PARSERS:
            raise NetlinkError(errno.EINVAL, "Cannot flush unknown TC action")
        count, bound = 0, False
        for _, instance in list(self._filters.actions.table.of(kind)):
            if instance is None or instance.bindings:
                bound = True
                break
            self._filters.actions.drop_reference(kind, instance)
            count += 1
        if bound and not count:
            raise NetlinkError(errno.EPERM)
        entry = {"kind": kind, "cookie": count.to_bytes(4, sys.byteorder)}  # in a flush, that number is TCA_FCNT
        message = self._message(RTM_DELACTION, {0: entry}, request.flags | NLM_F_ROOT)
        if count:
            self._server.notify(request.client.netns, RTNLGRP_TC, message)
        return Reply([message] if request.echo else [], "Unable to flush all TC actions" if bound else None)

    def _dump(self, request: Request) -> list[Message]:
        """All actions of a kind, as many in a message as one holds (tcf_dump_walker)."""
        _, attrs = tables.ACTION_BODY.decode(request.payload)
        tab = attrs.get("tab")
        first = tab.get(1) if isinstance(tab, Attrs) else None
        kind = first.get("kind") if first is not None else None
        if kind not in PARSERS:
            return []
        flags = attrs["flags"].value if attrs.get("flags") is not None else 0
        since, terse = attrs.get("time_delta"), bool(flags & _TERSE)
        owners = self._filters.actions.owners(kind)
        messages: list[Message] = []
        chunk: list[dict[str, Any]] = []
        size = 0
        for index, instance in self._filters.actions.table.of(kind):
            entry = self._owned(*owners[index], terse=terse) if instance is None else self._entry(instance, terse=terse)
            if since and not terse and entry["options"]["tm"].lastuse * _MS_OF_TICK > since:
                continue
            length = len(ACTION.encode(entry))
            if chunk and (size + length > _ROOM or (not flags & _LARGE and len(chunk) == _SMALL_DUMP)):
                messages.append(self._message(RTM_GETACTION, dict(enumerate(chunk)), 0, len(chunk)))
                chunk, size = [], 0
            chunk.append(entry)
            size += length
        if chunk:
            messages.append(self._message(RTM_GETACTION, dict(enumerate(chunk)), 0, len(chunk)))
        return messages

    def _entry(self, instance: Instance, less: int = 0, *, terse: bool = False) -> dict[str, Any]:
        """An action that may be shared, as the kernel gives it back."""
        listed = instance.parsed.listed(instance.index, True, instance)
        counts = instance.references - less, instance.bindings
        state = self._policed(listed, self._filters.actions.state(instance))
        return _short(tc_actions.dump_one(listed, state, *counts, terse=terse), listed)

    def _owned(self, one: Filter, at: int, *, terse: bool = False) -> dict[str, Any]:
        """A filter's own action, as the kernel gives it back."""
        listed = one.actions[at]
        counters = self._filters.counters([one])[0] if listed.reached else NOTHING
        state = self._policed(listed, one.state(counters))
        return _short(tc_actions.dump_one(listed, state, terse=terse), listed)

    def _policed(self, listed: tc_actions.Listed, state: tc_actions.ActionState) -> tc_actions.ActionState:
        """*state*, of an action police with what its meters have measured."""
        return state.policed(listed, *self._filters.police.counted(listed.index)) if listed.kind == "police" else state

    @staticmethod
    def _message(
        kind: int, entries: list[dict[str, Any]] | dict[int, dict[str, Any]], flags: int, count: int | None = None
    ) -> Message:
        """What tells of actions, numbered from 1 (tca_get_fill); with their *count*, one of a dump (tc_dump_action)."""
        attrs: dict[str, Any] = {"tab": entries} if count is None else {"count": count, "tab": entries}
        return Message(kind, tables.ACTION_BODY.encode((0,), attrs), flags)


def _still_cut(action: Attrs, known: Instance) -> Attrs:
    """An action that replaces the *known* one: a sample that cuts packets goes on to, unless it is given another length
    (tcf_sample_init)."""
    length, options = dict(known.parsed.options).get("trunc_size"), action.get("options")
    if known.parsed.kind != "sample" or length is None or not isinstance(options, Attrs) or "trunc_size" in options:
        return action
    return Attrs(action | {"options": Attrs(options | {"trunc_size": length})})


def _short(entry: dict[str, Any], listed: tc_actions.Listed) -> dict[str, Any]:
    """*entry*, with the index, which its short form has not among options (tcf_action_dump_terse)."""
    if "options" in entry:
        return entry
    return {"kind": entry["kind"], "stats": entry["stats"], "index": listed.index} | entry
