# SPDX-License-Identifier: Apache-2.0
"""Requests that the node's daemon answers, and one of the kernel, by programs that are redirected in two ways.

=============  =============================================================================================
``preloaded``  the program calls libc, which the redirect library stands in front of
``filtered``   the same, and redirectd's seccomp filter watches the process, as all programs of a node
``own_calls``  the program makes its system calls itself, as static programs do, and redirectd handles them
``go``         the same, in Go; measured where there is a Go compiler
=============  =============================================================================================
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
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
SOURCE: Final = Path(__file__).with_name("requests.go")
WAYS: Final = ("preloaded", "filtered", "own_calls", "go")
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
GO_RATIOS = tuple(Ratio(f"{REQUESTS[request]}: Go / own calls", "go", request, "own_calls") for request in REQUESTS)
TARGETS, GO_TARGETS = (
    tuple(Target(f"{REQUESTS[request]}: {name}, µs", way, request, 100, most=True) for request in ("family", "driver"))
    for way, name in (("own_calls", "own calls"), ("go", "Go"))
)
"""The daemon itself takes about 100 µs for a link."""


def run(lab: Lab, rounds: int, tell: Callable[[str], object], count: int = COUNT) -> dict[str, Any]:
    """Run the suite (:func:`asap2.lab.bench.suite.run`). The lab is brought up for it and taken down after it."""
    with tempfile.TemporaryDirectory() as directory:
        go = _compiled(Path(directory))
        if go is None:
            tell("there is no Go compiler: Go's requests are not measured")
        measured = Suite("redirect", RATIOS + (GO_RATIOS if go else ()), TARGETS + (GO_TARGETS if go else ()))
        return suite.run(measured, lab, _built(lab, go, count), rounds, tell)


def _compiled(directory: Path) -> Path | None:
    """The program in Go, in *directory*; None where there is no compiler for it."""
    if shutil.which("go") is None:
        return None
    program = directory / "requests"
    variables = {"GO111MODULE": "off", "CGO_ENABLED": "0", "GOFLAGS": ""}
    if not os.environ.get("GOCACHE"):
        variables["GOCACHE"] = str(directory / "cache")  # nothing of ours in a home
    command = ["go", "build", "-o", str(program), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment() | variables)
    if done.returncode:
        raise Asap2Error(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return program


@contextlib.contextmanager
def _built(lab: Lab, go: Path | None, count: int) -> Iterator[list[Measurement]]:
    lab.up(parse(resources.files("asap2.lab").joinpath("topologies/one-node.toml").read_text()))
    yield [partial(_in_turn, lab.layout.node("hv1") / "ns", go, count)]


def _in_turn(bundle: Path, go: Path | None, count: int) -> Round:
    """Microseconds that a request takes, by way and request: the medians of a few turns. Ways alternate within them."""
    programs = {way: PROGRAM for way in WAYS if way != "go"} | ({"go": go} if go else {})
    took: dict[str, dict[str, list[float]]] = {way: {request: [] for request in REQUESTS} for way in programs}
    for _ in range(TURNS):
        for request in REQUESTS:
            for way, program in programs.items():
                took[way][request].append(_median(bundle, program, way, request, count))
    return {way: _medians(requests) for way, requests in took.items()}


def _medians(requests: dict[str, list[float]]) -> Figures:
    return {request: statistics.median(values) for request, values in requests.items()}


def _median(bundle: Path, program: Path, way: str, request: str, count: int) -> float:
    inside = enter if way == "preloaded" else move_in
    words = [str(program), _REPRESENTOR, request, str(count)]
    if way != "go":
        words.append("own" if way == "own_calls" else "libc")
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), preexec_fn=lambda: inside(bundle))
    if done.returncode:
        raise Asap2Error(f"`{' '.join(words)}` failed: {done.stderr.strip()}")
    return statistics.median(map(int, done.stdout.split())) / 1000
