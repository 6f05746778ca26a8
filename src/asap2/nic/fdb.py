# SPDX-License-Identifier: Apache-2.0
"""Legacy mode's rules in a pipeline: kept as planned, changed one by one, and counted for the VFs."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace

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
    tallies: tuple[tuple[str, frozenset[int]], ...] = ()
    before: int = 0
    inherited: bool = False
    """Left by an earlier process: whose packets it has counted is not known yet."""


class Fdb:
    """The rules of one PF's eSwitch. Those that an earlier process left are taken over."""

    def __init__(self, pipeline: Pipeline, pf: int) -> None:
        self._pipeline = pipeline
        self._switch: legacy.Switch | None = None
        self._complete = False
        self._vports: dict[legacy.Vport, legacy.Vport] = {}
        self._origins: dict[legacy.Block, legacy.Origin] = {}
        self._keys: dict[legacy.Block, set[legacy.Key]] = {}
        self._rules: dict[legacy.Key, _Installed] = {}
        self._stale: set[legacy.Key] = set()
        self._past: Counter[tuple[int, str]] = Counter()
        self._counting: dict[int, list[tuple[str, _Installed]]] = {}
        """The rules that count for each VF, put together when they are asked for."""
        for handle, rule in pipeline.rules.items():
            key = legacy.Key.of(rule)
            if key is not None and pf_of(rule.in_port) == pf:
                self._rules[key] = _Installed(handle, rule.actions, inherited=True)
                self._stale.add(key)
        self._changed = bool(self._stale)

    def extend(self, switch: legacy.Switch | None) -> None:
        """Install what *switch* (None: no legacy eSwitch) needs and is not there, and change what differs.

        To be followed by :meth:`prune` once the ports are as they are to be. A packet that both the old eSwitch and
        the new one forward finds a rule at every moment. Where the pipeline takes no more rules some are missing, until
        a later call finds room.
        """
        if self._complete and switch == self._switch:
            return
        self._switch, self._complete = switch, False
        wanted = legacy.blocks(self._known(switch)) if switch else {}
        for block in [block for block in self._keys if block not in wanted]:
            self._origins.pop(block, None)
            self._stale |= self._keys.pop(block)
            self._changed = True
        for block, origin in wanted.items():
            if self._origins.get(block) == origin:
                continue
            self._changed = True
            rules, keys = legacy.rules(block, origin), self._keys.setdefault(block, set())
            for key, planned in rules.items():
                try:
                    self._install(key, planned)
                except OSError as error:
                    log.warning("the eSwitch of %s takes no more rules: %s", self._pipeline.directory.name, error)
                    return
                keys.add(key)
                self._stale.discard(key)
            self._stale |= keys.difference(rules)
            keys.intersection_update(rules)
            self._origins[block] = origin
        self._complete = True

    def _known(self, switch: legacy.Switch) -> legacy.Switch:
        """*switch* made of the objects of last time where they are equal: then comparing is quick."""
        vports = tuple(self._vports.get(vport, vport) for vport in switch.vports)
        self._vports = {vport: vport for vport in vports}
        return replace(switch, vports=vports)

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
        for key in self._stale:
            installed = self._rules.pop(key)
            self._settle(installed, self._pipeline.remove(installed.handle).packets)
        self._stale = set()
        if not self._origins:
            self._past.clear()
        self._counting = {}

    def _settle(self, installed: _Installed, packets: int) -> None:
        for counter, vfs in installed.tallies if packets > installed.before else ():
            for vf in vfs:
                self._past[vf, counter] += packets - installed.before
        installed.before = packets

    def counted(self, vf: int) -> dict[str, int]:
        """What the rules have counted for VF number *vf* since the eSwitch is in legacy mode: the fields ``broadcast``,
        ``multicast``, ``rx_dropped`` and ``tx_dropped`` of struct ifla_vf_stats, in packets."""
        total = Counter({counter: packets for (index, counter), packets in self._past.items() if index == vf})
        if not self._counting:
            for installed in self._rules.values():
                for counter, vfs in installed.tallies:
                    for index in vfs:
                        self._counting.setdefault(index, []).append((counter, installed))
        counting = self._counting.get(vf, [])
        read = self._pipeline.counters([installed.handle for _, installed in counting])
        for (counter, installed), counters in zip(counting, read, strict=True):
            total[counter] += counters.packets - installed.before
        return dict(total)
