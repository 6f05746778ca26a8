# SPDX-License-Identifier: Apache-2.0
"""Many offloaded flows that are all used: how long the revalidator's dump of them takes, and what follows from it.

ovs-vswitchd dumps its flows about twice a second. From a dump of more than 1.3 s on it cuts its flow limit, and flows
above the limit are removed although packets still use them (ofproto-dpif-upcall.c, udpif_revalidator).
"""

from __future__ import annotations

import os
import re
import statistics
import time

from asap2.errors import Asap2Error
from asap2.lab.bench.scale.burst import Burst
from asap2.lab.bench.scale.generator import Generator
from asap2.lab.execute import run

_DURATION = re.compile(r"dump duration : (\d+)ms")
_LIMIT = re.compile(r"\(limit (\d+)\)")
_PAUSE = 0.25
"""Seconds between two looks: less than the time from one dump to the next."""
_TURNS = 10
"""Looks after which every flow has been used once more: 2.5 s, and idle flows stay for 30."""


class Held:
    """Flows of *burst*, each of *counts* in turn, held for *seconds*."""

    def __init__(self, burst: Burst, counts: tuple[int, ...], seconds: float) -> None:
        self._burst = burst
        self._counts = counts
        self._seconds = seconds

    def measure(self) -> dict[str, float]:
        """For each count: the dump's time in ms, median and most, and the least flow limit meanwhile."""
        figures: dict[str, float] = {}
        for count in self._counts:
            try:
                durations, limits = self._hold(count)
            finally:
                run(self._burst.node, "ovs-appctl", "revalidator/purge")
            figures[f"dump_{count}_ms"] = statistics.median(durations)
            figures[f"dump_{count}_most_ms"] = max(durations)
            figures[f"flow_limit_{count}"] = min(limits)
        return figures

    def _hold(self, count: int) -> tuple[list[int], list[int]]:
        frames, *_ = self._burst.make(count)
        netns = os.open(self._burst.guest / "ns" / "net", os.O_RDONLY | os.O_CLOEXEC)
        generator = Generator(netns, "eth0", frames)
        os.close(netns)
        durations, limits = [], []
        try:
            end = time.monotonic() + self._seconds
            while time.monotonic() < end:
                generator.send_some(-(-count // _TURNS))
                time.sleep(_PAUSE)
                shown = run(self._burst.node, "ovs-appctl", "upcall/show")
                duration, limit = _DURATION.search(shown), _LIMIT.search(shown)
                if duration is None or limit is None:
                    raise Asap2Error(f"upcall/show does not tell of dumps: {' '.join(shown.split())[:300]}")
                durations.append(int(duration[1]))
                limits.append(int(limit[1]))
        finally:
            generator.close()
        return durations, limits
