# SPDX-License-Identifier: Apache-2.0
"""The actions of filters by index: who has them, who shares them, and what they have done (struct tc_action)."""

from __future__ import annotations

import errno
from dataclasses import replace

from asap2.netlink.codec import Attrs
from asap2.netlink.tables.actions import ACTION
from asap2.netlink.tables.tc import TC
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc import match_all
from asap2.nic.faces.tc.action_table import ActionTable
from asap2.nic.faces.tc.actions import ActionState, Given, Instance, Listed
from asap2.nic.faces.tc.blocks import Blocks
from asap2.nic.faces.tc.counted import NOTHING
from asap2.nic.faces.tc.filter import Filter, counted
from asap2.nic.faces.tc.kept import Kept
from asap2.nic.faces.tc.placement import Placer
from asap2.nic.faces.tc.police_meters import PoliceMeters
from asap2.nic.faces.tc.spec import SKIP_HW


class SharedActions:
    """Every action of the node, and the filters in *blocks* that have them; :class:`.tc_actions.Indices` of new ones.

    A filter leaves its actions by :meth:`release`; an action goes with its last reference.
    """

    def __init__(self, blocks: Blocks, placer: Placer, police: PoliceMeters, kept: Kept) -> None:
        self.table = ActionTable()
        self.take = self.table.take
        self._blocks = blocks
        self._placer = placer
        self._police = police
        self._kept = kept

    def give(self, kind: str, index: int) -> None:
        """Take an index back: there is no such action any more."""
        self.table.give(kind, index)
        if kind == "police":
            self._police.forget(index)

    # ---- which there are

    def bound(self, kind: str, index: int) -> Instance | None:
        """The action with this index, from now on one that filters and users share; None where there is none."""
        if not index or not self.table.has(kind, index):
            return None
        return self.table.instance(kind, index) or self._share(kind, index)

    def owners(self, kind: str) -> dict[int, tuple[Filter, int]]:
        """The filters that have actions of a kind, by the action's index, and the place in their list."""
        return {
            index: (one, at)
            for _, one in self._blocks.all()
            for at, (its_kind, index) in enumerate(zip(one.kinds, one.indices, strict=True))
            if its_kind == kind
        }

    def _share(self, kind: str, index: int) -> Instance:
        """Let a filter's own action be one that may be shared."""
        owners = self.owners(kind)
        if index not in owners:  # an action before it in the same request has the index (tcf_idr_check_alloc)
            raise NetlinkError(errno.EAGAIN)
        owner, at = owners[index]
        action = tc_actions.in_order(_asked(owner))[at]
        instance = Instance(index, tc_actions.parse_one(action), ACTION.encode(action), owner.made_ns, by_filter=True)
        instance.filters.append(owner)
        self.table.share(kind, instance)
        listed = owner.actions
        owner.listed = (*listed[:at], replace(listed[at], instance=instance), *listed[at + 1 :])
        owner.shared = True
        self._kept.put_action(kind, instance)
        return instance

    def add(self, kind: str, instance: Instance) -> None:
        """Take in an action that was made by itself, with an index of :meth:`take`."""
        self.table.share(kind, instance)
        self._kept.put_action(kind, instance)

    # ---- references

    def bind(self, one: Filter) -> None:
        """A filter has a reference to those of its actions that may be shared."""
        for listed in one.listed:
            if listed.instance is not None:
                listed.instance.references += 1
                listed.instance.filters.append(one)
                self._kept.put_action(listed.kind, listed.instance)

    def rejoin(self, one: Filter) -> None:
        """A filter of an earlier run has its actions again."""
        for listed in one.listed:
            if listed.instance is None:
                self.table.take(listed.kind, listed.index)
            else:
                listed.instance.references += 1
                listed.instance.filters.append(one)

    def give_back(self, listed: tuple[Listed, ...]) -> None:
        """A filter with these actions was not made."""
        for one in listed:
            if one.instance is None:
                self.give(one.kind, one.index)

    def release(self, one: Filter) -> None:
        """A filter leaves its actions (tcf_exts_destroy)."""
        if not one.shared:
            give = self.give
            for kind, index in zip(one.kinds, one.indices, strict=True):
                give(kind, index)
            return
        done = counted([one])[0]
        for listed in one.listed:
            instance = listed.instance
            if instance is None:
                self.give(listed.kind, listed.index)
                continue
            instance.filters.remove(one)
            instance.past = instance.past.plus(done if listed.reached else NOTHING)
            self.drop_reference(listed.kind, instance)

    def drop_reference(self, kind: str, instance: Instance) -> None:
        """One reference less to an action; it goes with the last."""
        instance.references -= 1
        if instance.references:
            self._kept.put_action(kind, instance)
            return
        self.give(kind, instance.index)
        self._kept.drop_action(kind, instance.index)

    # ---- what they do and did

    def state(self, instance: Instance) -> ActionState:
        """What an action has done for all filters that use it, and did for those that are no more."""
        total, first = instance.past, instance.first_ns
        for one, done in zip(instance.filters, counted(list(instance.filters)), strict=True):
            total = total.plus(done)
            first = min(filter(None, (first, one.first_ns)), default=0)
        instance.first_ns = first
        in_hw = any(one.in_hw for one in instance.filters)
        drivers = 0 if instance.by_filter else self._police.drivers(instance.parsed)
        skip_hw = instance.by_filter and any(one.flags & SKIP_HW for one in instance.filters)
        return ActionState(total, instance.made_ns, first, in_hw, skip_hw, drivers=drivers)

    def changed(self, instance: Instance) -> None:
        """An action does something else: so do the rules of software that have it. Hardware goes on as it was told
        (mlx5 is told of no action that changes, but of one that polices)."""
        self.table.changed(instance.parsed.kind)
        last = instance.parsed.steps[-1] if instance.parsed.steps else None
        if isinstance(last, tc_actions.Police):
            self._police.change(instance.index, last.limit)
        for proto, one in list(self._blocks.all()):
            if one not in instance.filters:
                continue
            one.steps, one.listed = tc_actions.parse(_asked(one), Given(one.indices, self.table.instance))
            self._placer.rewrite(proto, one)


def _asked(one: Filter) -> Attrs:
    """The actions in the request that made a filter."""
    return match_all.actions_of(TC.decode(one.request)[1]["options"]) or Attrs()
