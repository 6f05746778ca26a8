# SPDX-License-Identifier: Apache-2.0
"""The whole run: every path in turn, round after round, then medians, and their ratios to the direct path."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from asap2.lab.bench.against import targets
from asap2.lab.bench.measure import measure
from asap2.lab.bench.paths import NAMES, build
from asap2.lab.lab import Lab

HOSTS = ("offloaded", "software", "ovs_userspace")
"""The paths that have a host between the guests."""
HOST_FIGURES = ("host_cpu_seconds_per_gbit", "host_packets")
FIGURES = ("tcp_gbps", "packets_per_second", "transactions_per_second", "cpu_seconds_per_gbit")

Rounds = list[dict[str, dict[str, float]]]
"""For each round, for each path, its figures."""


def run(lab: Lab, rounds: int, tell: Callable[[int, str, dict[str, float]], object]) -> dict[str, Any]:
    """Measure *rounds* times and :func:`summarize`; *tell* is called with each round, path and figures. The lab is
    brought up for it and taken down after it."""
    measured: Rounds = []
    try:
        paths = build(lab)
        for number in range(rounds):
            measured.append({})
            for path in paths:
                measured[-1][path.name] = measure(path)
                tell(number + 1, path.name, measured[-1][path.name])
    finally:
        lab.down()
    return summarize(measured)


def summarize(measured: Rounds) -> dict[str, Any]:
    """Medians over the rounds, and ratios of these to those of the direct path; what hosts did; what became of the
    targets of offload."""
    medians = {
        name: {figure: statistics.median(each[name][figure] for each in measured) for figure in FIGURES}
        for name in NAMES
    }
    ratios = {
        name: {figure: round(medians[name][figure] / medians["direct"][figure], 3) for figure in FIGURES}
        for name in NAMES
    }
    hosts = {
        name: {figure: round(statistics.median(each[name][figure] for each in measured), 5) for figure in HOST_FIGURES}
        for name in HOSTS
    }
    rounded = {name: {figure: round(value, 4) for figure, value in each.items()} for name, each in medians.items()}
    offloaded, userspace = (medians[name] | hosts[name] for name in ("offloaded", "ovs_userspace"))
    gained = targets(offloaded, userspace)
    return {"rounds": len(measured), "paths": rounded, "ratios": ratios, "hosts": hosts, "targets": gained}
