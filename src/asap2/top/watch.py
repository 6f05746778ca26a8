# SPDX-License-Identifier: Apache-2.0
"""Looks at a lab or host again and again; each look gives what passed since the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from asap2.errors import Asap2Error
from asap2.live import Collector, FlowRate, Rates, Snapshot, rates


@dataclass(frozen=True, slots=True)
class Moment:
    """What there was at one look, and what had passed since the one before; ``rates`` are None at the first."""

    snapshot: Snapshot
    rates: Rates | None


class Watch:
    """Looks at what the collector sees that *opened* gives. For one thread."""

    def __init__(self, opened: Callable[[], Collector]) -> None:
        self._opened = opened
        self._collector: Collector | None = None
        self._last: Snapshot | None = None
        self._flows: dict[tuple[str, str], FlowRate] = {}
        self._wanted: frozenset[str] = frozenset()

    def look(self, *, flows: bool) -> Moment:
        """The state now, with *flows* or without.

        Raises:
            Asap2Error: there is nothing to look at (any more). The next call looks for it again.
        """
        try:
            collector = self._collector = self._collector or self._opened()
            wanted = frozenset(collector.nodes) if flows else frozenset()
            if wanted != self._wanted:
                collector.want_flows(wanted)
                self._wanted = wanted
            snapshot = collector.sample()
        except OSError as error:
            self.close()
            raise Asap2Error(f"the counters cannot be read: {error.strerror or error}") from None
        except Asap2Error:
            self.close()
            raise
        last, self._last = self._last, snapshot
        if last is None or snapshot.taken <= last.taken:
            return Moment(snapshot, None)
        return Moment(snapshot, self._with_flows(rates(last, snapshot), last, snapshot))

    def close(self) -> None:
        """End all that belongs to it."""
        collector, self._collector = self._collector, None
        self._last, self._flows, self._wanted = None, {}, frozenset()
        if collector is not None:
            collector.close()

    def _with_flows(self, found: Rates, last: Snapshot, now: Snapshot) -> Rates:
        """*found* with the rates of flows from their last reading, where they were not read since."""
        before = {node.name: node.detail.taken for node in last.nodes if node.detail is not None}
        same = {node.name for node in now.nodes if node.detail and node.detail.taken == before.get(node.name)}
        kept = {key: rate for key, rate in self._flows.items() if key[0] in same}
        self._flows = kept | found.flows
        return dataclasses.replace(found, flows=self._flows)
