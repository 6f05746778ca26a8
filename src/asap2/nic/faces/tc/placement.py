# SPDX-License-Identifier: Apache-2.0
"""Putting a filter's rules into hardware and software, as its flags allow, and taking them away again.

Sources: fl_hw_replace_filter() of net/sched/cls_flower.c; tcf_block_playback_offloads() of cls_api.c.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from dataclasses import replace

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.blocks import Block, Proto
from asap2.nic.faces.tc.filter import Filter, is_tunnel, uses_tunnel
from asap2.nic.faces.tc.offload import Offloader, Others, tracks
from asap2.nic.faces.tc.spec import SKIP_HW, SKIP_SW, FilterSpec, Placed, Planned

log = logging.getLogger(__name__)

Places = tuple[tuple[Placed, ...], NetlinkError | None]
"""Where the rules of a filter are, and why they are not in hardware."""


class Placer:
    """Writes what the *offloader* plans into its pipelines."""

    def __init__(self, offloader: Offloader, others: Others) -> None:
        self._offloader = offloader
        self._others = others
        self._left: dict[str | None, int] = {}
        """How many filters hardware does not encapsulate for now, by why."""

    def place(self, block: Block, spec: FilterSpec, old: Filter | None = None) -> Places:
        """Put the rules of a filter on each of the block's devices, in place of those of the *old* one; NetlinkError
        where its flags allow nothing that can be."""
        if not block.index:
            return self._place_on(block, block.ifindex, spec, old)
        done: tuple[Placed, ...] = ()
        refused: NetlinkError | None = None
        try:
            for ifindex in block.devices:
                there, refusal = self._place_on(block, ifindex, spec, old)
                done, refused = done + there, refused or refusal
        except NetlinkError:
            self.undo(done, old)
            raise
        return done, refused

    def bind(self, block: Block, ifindex: int) -> None:
        """Put a block's filters on one more device (tcf_block_offload_bind, tcf_block_playback_offloads)."""
        filters = list(block.filters())
        if any(one.in_hw for _, one in filters):
            self._offloader.may_bind(ifindex)
        added: list[tuple[Placed, ...]] = []
        try:
            for proto, one in filters:
                added.append(self._place_on(block, ifindex, proto.spec(one), None)[0])
        except NetlinkError:
            for places in added:
                self.undo(places)
            raise
        for (_, one), places in zip(filters, added, strict=True):
            one.put_in(one.placed + places)

    def _place_on(self, block: Block, ifindex: int, spec: FilterSpec, old: Filter | None) -> Places:
        """Put the rule into hardware where it can be, else into the node's pipeline, as the flags allow."""
        if tracks(spec.steps) and not spec.flags & SKIP_HW and not spec.ranges:
            return self._place_in_both(ifindex, spec, old)
        refusal: NetlinkError | None = None
        placed: list[Placed] = []
        if not spec.flags & SKIP_HW:
            try:
                for planned in self._offloader.hardware(ifindex, spec, self._others):
                    placed.append(self._write(planned, old))
            except NetlinkError as error:
                refusal = error
        if spec.flags & SKIP_SW:
            if not placed:
                raise refusal or NetlinkError(errno.EOPNOTSUPP)
        elif not placed or block.egress or uses_tunnel(spec.steps) or self._offloader.begins_anew(ifindex, spec):
            try:
                for exact in spec.exactly():
                    placed.append(self._write(self._offloader.software(ifindex, exact), old))
            except NetlinkError:
                self.undo(placed, old)
                raise
        elif block.returned and not placed[0].receive:
            placed += self._twin(ifindex, spec, old)
        return tuple(placed), refusal

    def _place_in_both(self, ifindex: int, spec: FilterSpec, old: Filter | None) -> Places:
        """Put a rule that looks connections up into software, and into hardware where it can be: there a packet of a
        connection that hardware does not carry goes on."""
        skipped = bool(spec.flags & SKIP_SW)
        beneath = (self._offloader.beneath if skipped else self._offloader.software)(ifindex, spec)
        placed = [self._write(beneath, old)]
        try:
            for planned in self._offloader.hardware(ifindex, spec, self._others):
                placed.append(self._write(planned, old, placed[0]))
        except NetlinkError as error:
            if skipped:
                self.undo(placed, old)
                raise
            return tuple(placed), error
        return tuple(placed), None

    def put_in_software(self, proto: Proto, one: Filter) -> bool:
        """Have a filter that is in hardware alone in software too, as far as that can; whether that changed it."""
        if one.flags & SKIP_SW or any(placed.pf is None or placed.receive for placed in one.placed):
            return False
        spec = proto.spec(one)
        one.put_in((*one.placed, *(placed for ifindex in proto.block.devices for placed in self._twin(ifindex, spec))))
        return True

    def _twin(self, ifindex: int, spec: FilterSpec, old: Filter | None = None) -> list[Placed]:
        """The rule in software of a filter that is in hardware; none where software cannot."""
        try:
            return [self._write(self._offloader.software(ifindex, spec), old)]
        except NetlinkError:
            return []

    @staticmethod
    def _write(planned: Planned, old: Filter | None, software: Placed | None = None) -> Placed:
        """Install a rule; in place where only the actions of the old one change. What it leaves to software within its
        actions goes on in that of *software*."""
        if software is not None and planned.rests:
            planned = planned.resuming(software)
        pipeline, rule = planned.pipeline, planned.rule
        try:
            for placed in old.placed if old is not None else ():
                if placed.pipeline is pipeline and replace(placed.rule, actions=rule.actions) == rule:
                    pipeline.replace(placed.handle, rule.actions)
                    return planned.placed(placed.handle)
            return planned.placed(pipeline.add(rule))
        except OSError as error:
            planned.end_resumes()
            raise NetlinkError(error.errno or errno.ENOSPC) from None

    def rewrite(self, proto: Proto, one: Filter) -> None:
        """A filter does something else now, as far as it is in software."""
        for placed in one.placed:
            ifindex = placed.device if proto.block.index else proto.block.ifindex
            if placed.pf is None:
                planned = self._offloader.software(ifindex, proto.spec(one))
                placed.pipeline.replace(placed.handle, planned.rule.actions)
            elif placed.software is not None:
                rests = self._offloader.rests(ifindex, proto.prio, one.steps)
                for number, rest in zip(placed.resumes, rests, strict=False):
                    placed.software.change_resume(number, rest)

    @staticmethod
    def undo(places: Iterable[Placed], other: Filter | None = None) -> None:
        """Take rules away again, but for those that the *other* filter has."""
        kept = {(id(placed.pipeline), placed.handle) for placed in (other.placed if other is not None else ())}
        for placed in places:
            if (id(placed.pipeline), placed.handle) in kept:
                placed.end_resumes()
            else:
                placed.remove()

    def reresolve(self, filters: Iterable[tuple[Proto, Filter]]) -> None:
        """Routes or neighbours have changed: tunnels follow them."""
        left: dict[str | None, int] = {}
        for proto, one in filters:
            if one.hardware is None or not is_tunnel(one.steps):
                continue
            for placed in one.placed:
                if placed.pf is None:
                    continue
                ifindex = placed.device if proto.block.index else proto.block.ifindex
                resumes: tuple[int, ...] = ()
                try:
                    (planned,) = self._offloader.hardware(ifindex, proto.spec(one), self._others)
                    if planned.rests:
                        planned = planned.resuming(next(there for there in one.placed if there.pf is None))
                    actions, resumes = planned.rule.actions, planned.resumes
                except NetlinkError as error:
                    left[error.strerror] = left.get(error.strerror, 0) + 1
                    actions = self._offloader.to_host(ifindex)
                placed.pipeline.replace(placed.handle, actions)
                placed.end_resumes()
                placed.resumes = resumes
        if left != self._left:
            for reason, count in left.items():
                log.info("software sends what %d filters encapsulate: %s", count, reason)
            if not left:
                log.info("hardware encapsulates again")
        self._left = left
