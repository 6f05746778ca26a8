# SPDX-License-Identifier: Apache-2.0
"""Legacy mode's rules in a pipeline: kept as planned, changed one by one, and counted for the VFs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from asap2.nic import legacy
from asap2.nic.port_ids import pf_of
from asap2.nic.rules import Action
from asap2.nic.silicon.pipeline import Pipeline

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Installed:
    """A rule: the VFs' counters that it counts in, and what it had counted when it began to."""

    handle: int
    actions: tuple[Action, ...]
    tallies: tuple[legacy.Tally, ...] = ()
    before: int = 0
    inherited: bool = False
    """Left by an earlier process: whose packets it has counted is not known yet."""


class Fdb:
    """The rules of one PF's eSwitch. Those that an earlier process left are taken over."""

    def __init__(self, pipeline: Pipeline, pf: int) -> None:
        self._pipeline = pipeline
        self._switch: legacy.Switch | None = None
        self._plan: Mapping[legacy.Key, legacy.Planned] = {}
        self._rules: dict[legacy.Key, _Installed] = {}
        self._past: Counter[legacy.Tally] = Counter()
        self._counting: dict[int, list[tuple[str, _Installed]]] = {}
        for handle, rule in pipeline.rules.items():
            key = legacy.Key.of(rule)
            if key is not None and pf_of(rule.in_port) == pf:
                self._rules[key] = _Installed(handle, rule.actions, inherited=True)
        self._changed = True

    def extend(self, switch: legacy.Switch | None) -> None:
        """Install what *switch* (None: no legacy eSwitch) needs and is not there, and change what differs.

        To be followed by :meth:`prune` once the ports are as they are to be. A packet that both the old eSwitch and
        the new one forward finds a rule at every moment.
        """
        if not self._changed and switch == self._switch:
            return
        self._changed = True
        self._switch = switch
        self._plan = legacy.plan(switch) if switch else {}
        for key, planned in self._plan.items():
            try:
                self._install(key, planned)
            except OSError as error:
                log.warning("the eSwitch of %s takes no more rules: %s", self._pipeline.directory.name, error)
                break

    def _install(self, key: legacy.Key, planned: legacy.Planned) -> None:
        known = self._rules.get(key)
        if known is None:
            handle = self._pipeline.add(legacy.rule(key, planned))
            self._rules[key] = _Installed(handle, planned.actions, planned.tallies)
            return
        if known.actions != planned.actions:
            self._pipeline.replace(known.handle, planned.actions)
        elif known.inherited:
            known.tallies = planned.tallies
        if known.tallies != planned.tallies:
            (counters,) = self._pipeline.counters([known.handle])
            self._settle(known, counters.packets)
            known.tallies = planned.tallies
        known.actions, known.inherited = planned.actions, False

    def prune(self) -> None:
        """Remove what the eSwitch of :meth:`extend` has no use for."""
        if not self._changed:
            return
        self._changed = False
        for key in [key for key in self._rules if key not in self._plan]:
            installed = self._rules.pop(key)
            self._settle(installed, self._pipeline.remove(installed.handle).packets)
        if self._switch is None:
            self._past.clear()
        self._counting = {}
        for installed in self._rules.values():
            for vf, counter in installed.tallies:
                self._counting.setdefault(vf, []).append((counter, installed))

    def _settle(self, installed: _Installed, packets: int) -> None:
        for tally in installed.tallies:
            self._past[tally] += packets - installed.before
        installed.before = packets

    def counted(self, vf: int) -> dict[str, int]:
        """What the rules have counted for VF number *vf* since the eSwitch is in legacy mode: the fields ``broadcast``,
        ``multicast``, ``rx_dropped`` and ``tx_dropped`` of struct ifla_vf_stats, in packets."""
        total = Counter({counter: packets for (index, counter), packets in self._past.items() if index == vf})
        counting = self._counting.get(vf, [])
        read = self._pipeline.counters([installed.handle for _, installed in counting])
        for (counter, installed), counters in zip(counting, read, strict=True):
            total[counter] += counters.packets - installed.before
        return dict(total)
