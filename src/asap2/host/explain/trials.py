# SPDX-License-Identifier: Apache-2.0
"""Trials of flows' rules that are kept, for who looks at the same flows again and again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable

from asap2.host.explain.flow import Flow
from asap2.host.explain.probe import try_flows
from asap2.host.inventory import FlowTrial, Host

Trier = Callable[[Host, list[Flow]], tuple[FlowTrial, ...]]
AGAIN = 300.0
"""Seconds until a flow's rule is tried again, because the host may have changed."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Tried:
    """The result of trying a flow's rule, and its time; ``shape`` is the flow as it was."""

    shape: tuple[object, ...]
    when: float
    trials: tuple[FlowTrial, ...]


class KeptTrials:
    """Tries the rule of each flow that is new, has changed, or was tried long ago, to know the NIC's answer."""

    def __init__(self, attempt: Trier = try_flows) -> None:
        self._attempt = attempt
        self._tried: dict[str, _Tried] = {}

    def tried(self, host: Host, flows: Iterable[Flow]) -> Host:
        """*host* with the trials of *flows* of the kernel's datapath; what was known of others is forgotten."""
        flows = list(flows)
        now = time.monotonic()
        fresh = [flow for flow in flows if flow.datapath.startswith("system@") and not self._known(flow, now)]
        trials: dict[str, list[FlowTrial]] = {flow.ufid or "": [] for flow in fresh}
        for one in self._attempt(host, fresh):
            trials.setdefault(one.ufid, []).append(one)
        ufids = {flow.ufid for flow in flows}
        self._tried = {ufid: kept for ufid, kept in self._tried.items() if ufid in ufids}
        self._tried |= {flow.ufid: _Tried(_shape(flow), now, tuple(trials[flow.ufid])) for flow in fresh if flow.ufid}
        every = tuple(one for kept in self._tried.values() for one in kept.trials)
        return dataclasses.replace(host, flow_trials=every)

    def _known(self, flow: Flow, now: float) -> bool:
        """Whether the flow was tried as it is now, not long ago."""
        kept = self._tried.get(flow.ufid or "")
        return kept is not None and kept.shape == _shape(flow) and now - kept.when < AGAIN


def _shape(flow: Flow) -> tuple[object, ...]:
    """What of a flow its answer rests on."""
    return flow.dp, flow.levels, flow.actions
