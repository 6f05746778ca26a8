# SPDX-License-Identifier: Apache-2.0
"""Adding, replacing and removing qdiscs, chains and filters: what the TC face changes, with the kernel's semantics.

Sources: net/sched/cls_api.c (tc_new_tfilter and its neighbours) for chains, priorities, handles and errors;
cls_flower.c (fl_change) for what a filter is.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import Final

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc import match_all, restore
from asap2.nic.faces.tc.blocks import Block, Blocks, Known, Proto
from asap2.nic.faces.tc.chain_templates import ChainTemplate
from asap2.nic.faces.tc.counted import NOTHING
from asap2.nic.faces.tc.filter import Filter, counted
from asap2.nic.faces.tc.flower import masks_of
from asap2.nic.faces.tc.flower import parse as parse_flower
from asap2.nic.faces.tc.kept import Kept
from asap2.nic.faces.tc.offload import Offloader
from asap2.nic.faces.tc.placement import Placer
from asap2.nic.faces.tc.shared_actions import SharedActions
from asap2.nic.faces.tc.spec import SKIP_HW, SKIP_SW, VERBOSE, Asked, FilterSpec, Placed
from asap2.nic.faces.tc.templates import Template
from asap2.nic.function import Nic, Pf
from asap2.nic.journal import Journal

_USER_FLAGS: Final = SKIP_HW | SKIP_SW | VERBOSE


def check_device(ifindex: int) -> None:
    """ENODEV where there is no such device."""
    try:
        socket.if_indextoname(ifindex)
    except (OSError, OverflowError):
        raise NetlinkError(errno.ENODEV) from None


class Filters:
    """Every qdisc and filter of the node."""

    def __init__(
        self, offloader: Offloader, journal: Journal, check_device: Callable[[int], None] = check_device
    ) -> None:
        """*check_device* raises NetlinkError where there is no device with an ifindex."""
        self.offloader = offloader
        self.police = offloader.police
        self.kept = Kept(journal)
        self.blocks = Blocks()
        self._placer = Placer(offloader, self.blocks.in_hardware)
        self.actions = SharedActions(self.blocks, self._placer, self.police, self.kept)
        self.check_device = check_device
        self.all = self.blocks.all
        self.counters = counted
        self.was_put: Callable[[Filter, NetlinkError | None], None] | None = None
        """Called with each filter that is put, and why it is not in hardware, while somebody watches."""

    def offloaded(self, pf: Pf) -> int:
        """How many rules of *pf*'s eSwitch are in hardware."""
        return sum(placed.pf is pf for _, one in self.all() for placed in one.placed)

    def restore(self, nics: dict[str, Nic]) -> list[int]:
        """Take up the qdiscs and filters of an earlier run; the devices."""
        return restore.restore(self.kept, self.blocks, self.actions, self.offloader, nics)

    def reresolve(self) -> None:
        """Routes or neighbours have changed: tunnels follow them."""
        self._placer.reresolve(list(self.all()))

    # ---- qdiscs and chains

    def add_qdisc(self, ifindex: int, kind: str, shared: int = 0) -> None:
        """Add an ingress or clsact qdisc, whose ingress block may be *shared*; NetlinkError where the filters that are
        there cannot be this device's, too."""
        self.kept.reserve()
        block = self.blocks.shared.get(shared)
        if block is not None:
            self._placer.bind(block, ifindex)
            for proto, one in block.filters():
                self.kept.put_filter(proto, one)
        self.blocks.join(ifindex, kind, shared)
        self.kept.put_qdisc(ifindex, kind, shared)

    def remove_qdisc(self, ifindex: int) -> None:
        """Remove the qdisc, and its filters unless other devices share them."""
        qdisc = self.blocks.qdiscs.pop(ifindex)
        self.kept.drop_qdisc(ifindex)
        for block in qdisc.blocks:
            block.devices.remove(ifindex)
            if block.devices:
                self._unbind_device(block, ifindex)
                continue
            self.blocks.shared.pop(block.index, None)
            for proto in block.protos():
                for one in proto.filters.values():
                    self._unplace(one)
            for chain in list(block.explicit):
                self.kept.drop_chain(block, chain)
            if block.parent and not block.index:
                self.kept.drop_parent(block)

    def _unbind_device(self, block: Block, ifindex: int) -> None:
        """Take a block's filters off a device; what they have counted there stays counted."""
        for proto, one in block.filters():
            shown, there = counted([one])[0], [placed for placed in one.placed if placed.device == ifindex]
            one.put_in(tuple(placed for placed in one.placed if placed.device != ifindex))
            one.before = NOTHING
            left = counted([one])[0]
            one.before = left.since(shown)
            self._placer.undo(there)
            self.kept.put_filter(proto, one)

    def put_by(self, block: Block, parent: int) -> None:
        """Filters are put into the block by this *parent*, which dumps tell from now on."""
        if block.parent != parent:
            self.kept.reserve()
            block.parent = parent
            self.kept.put_parent(block)

    def add_chain(self, block: Block, chain: int, template: ChainTemplate | None) -> None:
        """Make a chain that stays when it is empty."""
        self.kept.reserve()
        block.explicit[chain] = template
        block.chains.setdefault(chain, {})
        self.kept.put_chain(block, chain, template)

    def remove_chain(self, block: Block, chain: int) -> None:
        """Remove a chain and all that is in it."""
        for proto in list(block.protos(chain)):
            self.remove_proto(proto)
        if chain in block.explicit:
            del block.explicit[chain]
            self.kept.drop_chain(block, chain)
        block.chains.pop(chain, None)

    # ---- adding filters

    def put(self, proto: Proto, asked: Asked) -> tuple[Filter, NetlinkError | None]:
        """Add or replace a filter (fl_change); it, and why it is not in hardware. NetlinkError, see there."""
        handle, options = asked.handle, asked.options
        old = proto.filters.get(handle) if handle else None
        if old is not None and asked.excl:
            raise NetlinkError(errno.EEXIST, "Filter already exists")
        if old is None and not asked.create:
            raise NetlinkError(errno.ENOENT, "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter")
        if proto.kind in ("matchall", "u32") and proto.filters:  # there is but one, and it stays (mall_change)
            raise NetlinkError(errno.EEXIST)
        if proto.kind in match_all.KINDS:
            match_all.check(proto.kind, options)
        flags = options.get("flags", 0)
        if flags & ~_USER_FLAGS or flags & (SKIP_HW | SKIP_SW) == SKIP_HW | SKIP_SW:
            raise NetlinkError(errno.EINVAL)
        actions = match_all.actions_of(options)
        steps: tuple[tc_actions.Step, ...] = ()
        listed: tuple[tc_actions.Listed, ...] = ()
        if actions is not None:
            skips = (flags & SKIP_HW and tc_actions.FLAG_SKIP_HW) | (flags & SKIP_SW and tc_actions.FLAG_SKIP_SW)
            steps, listed = tc_actions.parse(actions, self.actions, skips)
        try:
            for step in tc_actions.flat(steps):
                if isinstance(step, tc_actions.Mirred):
                    self.check_device(step.ifindex)  # tcf_mirred_init()
            made, refused = self._make(proto, asked, steps, listed, old)
        except Exception:
            self.actions.give_back(listed)
            raise
        self.actions.bind(made)  # before the old filter leaves its actions, which may be these
        if old is not None:
            proto.drop(old)
            self.actions.release(old)
            self._placer.undo(old.placed, made)
            made.before = counted([made])[0]
        proto.hold(made)
        proto.block.chains.setdefault(proto.chain, {})[proto.prio] = proto
        self._held(proto, made)
        if self.was_put is not None:
            self.was_put(made, refused)
        return made, refused

    def _make(
        self,
        proto: Proto,
        asked: Asked,
        steps: tuple[tc_actions.Step, ...],
        listed: tuple[tc_actions.Listed, ...],
        old: Filter | None,
    ) -> tuple[Filter, NetlinkError | None]:
        """The filter, its rules in place, and why they are not in hardware; errors as :meth:`put`."""
        flags = asked.options.get("flags", 0)
        key = parse_flower(match_all.keys_of(proto.kind, asked.options), proto.protocol)
        chain_template = proto.block.explicit.get(proto.chain)
        if chain_template is not None:
            chain_template.check(key)
        if old is not None and masks_of(old.masks) != masks_of(key.masks):
            raise NetlinkError(errno.EINVAL)
        if key.identity in proto.keys and old is None:
            raise NetlinkError(errno.EEXIST)
        self.kept.reserve()
        spec = FilterSpec(
            proto.kind, proto.chain, proto.prio, proto.rank(key, old), key.match, steps, flags, key.ranges, key.indev
        )
        placed, refused = self._placer.place(proto.block, spec, old)
        made = Filter(
            asked.handle or (match_all.FIRST_U32 if proto.kind == "u32" else proto.handles.lowest()),
            key.identity,
            key.masks,
            asked.options.get("classid"),
            flags,
            listed,
            steps,
            placed,
            time.monotonic_ns(),
            rank=spec.rank,
            request=asked.payload,
            indices=tuple(one.index for one in listed),
            shared=any(one.instance is not None for one in listed),
            translated=key,
        )
        return made, refused

    def put_from_template(self, proto: Proto, template: Template, request: bytes) -> Filter:
        """Add the filter of a request that fits a template, as :meth:`put` would; NetlinkError, as there."""
        identity = template.identity(request)
        if identity in proto.keys:
            raise NetlinkError(errno.EEXIST)
        self.kept.reserve()
        known = proto.places.get(template)
        again: Placed | None = None
        if known is not None and known.age.filters and not proto.block.returned:
            rank = known.age.rank
            try:
                again = self.offloader.again(known.placement, known.values.fill(request))
            except OSError as error:
                raise NetlinkError(error.errno or errno.ENOSPC) from None
        if again is not None:
            placed: tuple[Placed, ...] = (again,)
        else:
            key = template.key(request)
            rank = proto.rank(key, None)
            spec = FilterSpec(proto.kind, proto.chain, proto.prio, rank, key.match, template.steps, template.flags)
            placed, _ = self._placer.place(proto.block, spec)
        take = self.actions.take
        made = Filter(
            proto.handles.lowest(),
            identity,
            template.masks,
            template.classid,
            template.flags,
            (),
            template.steps,
            placed,
            time.monotonic_ns(),
            0,
            b"",
            NOTHING,
            rank,
            request,
            template,
            tuple([take(kind) for kind in template.kinds]),
        )
        proto.hold(made)
        if again is None:
            self.remember_place(proto, made)
        self._held(proto, made)
        if self.was_put is not None:
            self.was_put(made, None)
        return made

    def _held(self, proto: Proto, made: Filter) -> None:
        """A filter was made: keep it. Where hardware gives its packets to the host, the others are in software too."""
        if not proto.block.returned and made.gives_back:
            proto.block.returned = True
            for its_proto, one in proto.block.filters():
                if self._placer.put_in_software(its_proto, one) and one is not made:
                    self.kept.put_filter(its_proto, one)
        self.kept.put_filter(proto, made)

    def remember_place(self, proto: Proto, one: Filter) -> None:
        """Where a filter went, others of its template will go."""
        template, hardware = one.template, one.hardware
        if template is None or hardware is None or len(one.placed) > 1:
            return
        placement = self.offloader.placement(proto.block.ifindex, hardware, one.steps)
        if placement is None:
            proto.places.pop(template, None)
        else:
            proto.places[template] = Known(proto.ages[one.masks], placement, template.values(placement.pattern.key))

    # ---- removing filters

    def remove(self, proto: Proto, handle: int) -> Filter:
        """Remove one filter, and its priority with the last one; ENOENT."""
        one = proto.filters.get(handle)
        if one is None:
            raise NetlinkError(errno.ENOENT, "Specified filter handle not found")
        proto.drop(one)
        proto.handles.give(handle)
        self._unplace(one)
        if not proto.filters:
            self._drop_proto(proto)
        return one

    def remove_proto(self, proto: Proto) -> None:
        """Remove every filter of a priority."""
        for one in proto.filters.values():
            self._unplace(one)
        for held in (proto.filters, proto.keys, proto.older, proto.ages, proto.places):
            held.clear()
        self._drop_proto(proto)

    @staticmethod
    def _drop_proto(proto: Proto) -> None:
        block, chain = proto.block, proto.chain
        protos = block.chains.get(chain, {})
        if protos.get(proto.prio) is proto:
            del protos[proto.prio]
        if not protos and chain not in block.explicit:
            block.chains.pop(chain, None)

    def _unplace(self, one: Filter) -> None:
        self.actions.release(one)
        for placed in one.placed:
            placed.remove()
        self.kept.drop_filter(one)
