# SPDX-License-Identifier: Apache-2.0
"""Requests that the node's daemon answers, and one of the kernel, by programs that are redirected in two ways.

=============  =============================================================================================
``preloaded``  the program calls libc, which the redirect library stands in front of
``filtered``   the same, and redirectd's seccomp filter watches the process, as all programs of a node
``own_calls``  the program makes its system calls itself, as static programs do, and redirectd handles them
=============  =============================================================================================
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Final

from asap2.errors import Asap2Error
from asap2.lab.bench import suite
from asap2.lab.bench.ratios import Figures, Ratio, Round, Suite, Target
from asap2.lab.bench.suite import Measurement
from asap2.lab.enter import enter, environment, move_in
from asap2.lab.lab import Lab
from asap2.lab.topology import parse

PROGRAM: Final = Path(__file__).with_name("requests")
WAYS: Final = ("preloaded", "filtered", "own_calls")
REQUESTS: Final = {
    "family": "a generic netlink family (the daemon)",
    "link": "a representor's link (the daemon)",
    "driver": "its driver, by ioctl (the daemon)",
    "route": "a route (the kernel)",
}
TURNS: Final = 5
COUNT: Final = 1000
_REPRESENTOR = "eth0"

RATIOS = tuple(
    Ratio(f"{REQUESTS[request]}: with the filter / without", "filtered", request, "preloaded", 1.05, most=True)
    for request in ("family", "link", "driver")
) + tuple(
    Ratio(f"{REQUESTS[request]}: own calls / preloaded", "own_calls", request, "filtered") for request in REQUESTS
)
TARGETS = tuple(
    Target(f"{REQUESTS[request]}: own calls, µs", "own_calls", request, 100, most=True)
    for request in ("family", "driver")
)
"""The daemon itself takes about 100 µs for a link."""


def run(lab: Lab, rounds: int, tell: Callable[[str], object], count: int = COUNT) -> dict[str, Any]:
    """Run the suite (:func:`asap2.lab.bench.suite.run`). The lab is brought up for it and taken down after it."""
    return suite.run(Suite("redirect", RATIOS, TARGETS), lab, _built(lab, count), rounds, tell)


@contextlib.contextmanager
def _built(lab: Lab, count: int) -> Iterator[list[Measurement]]:
    lab.up(parse(resources.files("asap2.lab").joinpath("topologies/one-node.toml").read_text()))
    yield [partial(_in_turn, lab.layout.node("hv1") / "ns", count)]


def _in_turn(bundle: Path, count: int) -> Round:
    """Microseconds that a request takes, by way and request: the medians of a few turns. Ways alternate within them."""
    took: dict[str, dict[str, list[float]]] = {way: {request: [] for request in REQUESTS} for way in WAYS}
    for _ in range(TURNS):
        for request in REQUESTS:
            for way in WAYS:
                took[way][request].append(_median(bundle, way, request, count))
    return {way: _medians(requests) for way, requests in took.items()}


def _medians(requests: dict[str, list[float]]) -> Figures:
    return {request: statistics.median(values) for request, values in requests.items()}


def _median(bundle: Path, way: str, request: str, count: int) -> float:
    inside = enter if way == "preloaded" else move_in
    words = [str(PROGRAM), _REPRESENTOR, request, str(count), "own" if way == "own_calls" else "libc"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), preexec_fn=lambda: inside(bundle))
    if done.returncode:
        raise Asap2Error(f"`{' '.join(words)}` failed: {done.stderr.strip()}")
    return statistics.median(map(int, done.stdout.split())) / 1000
