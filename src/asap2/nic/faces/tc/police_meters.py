# SPDX-License-Identifier: Apache-2.0
"""The meters of actions police, one in each pipeline whose rules have the action, and the rules that limit a device.

Sources: en/tc/act/police.c and en_tc.c (apply_police_params()) of mlx5 in Linux 6.12.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc import capability
from asap2.nic.faces.tc.actions import FLAG_SKIP_HW, Parsed
from asap2.nic.faces.tc.spec import FilterSpec, Placed, Planned
from asap2.nic.faces.tc.steps import Continue, Police, Step
from asap2.nic.function import Function, Role
from asap2.nic.netdevs import NetDevs
from asap2.nic.port_ids import shaper_port
from asap2.nic.rates import limit_of, round_mbit
from asap2.nic.rules import Action, Drop, Match, Meter, Output, Pass, Rule
from asap2.nic.silicon.abi import LIMITS
from asap2.nic.silicon.metering import Limit, Metered
from asap2.nic.silicon.meters import MeterUse
from asap2.nic.silicon.pipeline import Pipeline


def is_limit(spec: FilterSpec) -> bool:
    """Whether a filter limits all that comes in by a device, and leaves what is within the rate to the filters after
    it. It is then met before any other, whatever their priorities."""
    if spec.match.used() or spec.chain or len(spec.steps) != 2:
        return False
    police, then = spec.steps
    return isinstance(police, Police) and isinstance(then, Continue) and police.exceeded == (Drop(),)


def in_hardware(limit: Limit) -> Limit:
    """The *limit* as a flow meter in hardware applies it (fill_meter_params_from_act()): a rate, or else a length."""
    return Limit(limit.rate, limit.burst, packets=limit.packets) if limit.rate else Limit(most=limit.most)


def _limiting(port: int, spec: FilterSpec, meter: int) -> Rule:
    actions: tuple[Action, ...] = (Meter(meter, (Drop(),)), Pass())
    return Rule(LIMITS, port, spec.priority, Match(), actions)


class PoliceMeters:
    """The meters in *software*, the node's pipeline, and in *hardware*, which gives those of its NICs."""

    def __init__(self, netdevs: NetDevs, software: Pipeline, hardware: Callable[[], list[Pipeline]]) -> None:
        self._netdevs = netdevs
        self._software = software
        self._hardware = hardware
        self._limited: dict[int, Function] = {}
        """The functions whose shapers hold the limit of an action, by its index."""

    def number(self, pipeline: Pipeline, police: Police) -> int:
        """The number of an action's meter, which gets the limit if it has none. NetlinkError ENOSPC."""
        return self._number(pipeline, police.index, self._as_there(pipeline, police.limit))

    @staticmethod
    def _number(pipeline: Pipeline, index: int, limit: Limit) -> int:
        known = pipeline.meters.find(MeterUse.POLICE, index)
        if known is not None:
            return known
        try:
            return pipeline.meters.set(MeterUse.POLICE, index, limit, fresh=Metered())
        except OSError as error:
            raise NetlinkError(error.errno or errno.ENOSPC) from None

    def _as_there(self, pipeline: Pipeline, limit: Limit) -> Limit:
        return limit if pipeline is self._software else in_hardware(limit)

    # ---- limits of all that comes in by a device

    def of_function(self, function: Function, pipeline: Pipeline, spec: FilterSpec, ifindex: int) -> Planned:
        """The limit of all that *function* sends, which hardware has in whole Mbit/s (apply_police_params()). What is
        beyond it waits: the meter counts only, and the function's shaper does the rest."""
        police = capability.check_limit(spec.steps)
        limit = police.limit
        if limit.packets:
            rule = _limiting(function.switched_port, spec, self._number(pipeline, police.index, in_hardware(limit)))
            return Planned(pipeline, rule, ifindex, function.pf)
        port, mbit = function.switched_port, max(1, round_mbit(limit.rate))
        if not self._netdevs.limit(function, mbit):
            rule = _limiting(port, spec, self._number(pipeline, police.index, limit_of(mbit)))
            return Planned(pipeline, rule, ifindex, function.pf)
        self._limited[police.index] = function
        actions = Meter(self._number(pipeline, police.index, Limit()), (Drop(),)), Output(shaper_port(port))
        return Planned(pipeline, Rule(LIMITS, port, spec.priority, Match(), actions), ifindex, function.pf)

    def took_up(self, placed: Placed, steps: tuple[Step, ...]) -> None:
        """Know a limit of a function that an earlier process has set."""
        police = next((step for step in steps if isinstance(step, Police)), None)
        if placed.pf is None or police is None or placed.rule.table != LIMITS:
            return
        for vf in placed.pf.vfs:
            if vf.switched_port == placed.in_port:
                self._limited[police.index] = vf

    def of_device(self, ifindex: int, spec: FilterSpec) -> Planned:
        """The limit of all that comes in by device *ifindex* in software, where :func:`is_limit`."""
        police = spec.steps[0]
        assert isinstance(police, Police)
        return Planned(self._software, _limiting(ifindex, spec, self.number(self._software, police)), ifindex)

    # ---- actions

    def change(self, index: int, limit: Limit) -> None:
        """Action police *index* has another *limit* now, wherever rules have its meter."""
        for pipeline in (self._software, *self._hardware()):
            known = pipeline.meters.find(MeterUse.POLICE, index)
            if known is not None and not pipeline.meters.has(known, Limit()):  # mlx5 leaves a function's as it is
                pipeline.meters.set(MeterUse.POLICE, index, self._as_there(pipeline, limit))

    def forget(self, index: int) -> None:
        """Action police *index* is no more."""
        function = self._limited.pop(index, None)
        if function is not None and function not in self._limited.values():
            self._netdevs.unlimit(function)
        for pipeline in (self._software, *self._hardware()):
            pipeline.meters.clear(MeterUse.POLICE, index)

    def counted(self, index: int) -> tuple[Metered, Metered]:
        """What action police *index* has measured in software and in hardware."""
        hardware = Metered()
        for pipeline in self._hardware():
            hardware = hardware.plus(_counted(pipeline, index))
        return _counted(self._software, index), hardware

    def drivers(self, action: Parsed) -> int:
        """How many eSwitches take an *action* by itself: none but one that polices (tc_act_police_offload())."""
        if action.flags & FLAG_SKIP_HW or len(action.steps) != 1 or not isinstance(action.steps[0], Police):
            return 0
        try:
            capability.check_meter(action.steps[0])
        except NetlinkError:
            return 0
        uplinks = (device.eswitch for device in self._netdevs.all() if device.role is Role.PF)
        return sum(pf is not None and pf.nic.model.meters for pf in uplinks)


def _counted(pipeline: Pipeline, index: int) -> Metered:
    number = pipeline.meters.find(MeterUse.POLICE, index)
    return Metered() if number is None else pipeline.meters.counted(number)
