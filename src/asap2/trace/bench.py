# SPDX-License-Identifier: Apache-2.0
"""What watching packets costs: the same traffic between two nodes while nobody watches, and while somebody does.

===========  ==================================================================================================
``off``      nobody watches: the plain program runs
``trace``    `asap2 trace` looks for packets that there are not: every step of every packet is told, and read
``capture``  `asap2 capture` writes each packet at both guests, with 128 octets, to a file that keeps nothing
===========  ==================================================================================================
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from asap2.errors import Asap2Error
from asap2.lab import gallery
from asap2.lab.bench import suite
from asap2.lab.bench.drawing import medians_and_ranges, picture
from asap2.lab.bench.measure import measure
from asap2.lab.bench.paths import TrafficPath
from asap2.lab.bench.ratios import Figures, Ratio, Suite
from asap2.lab.bench.suite import Measurement
from asap2.lab.execute import run as run_in
from asap2.lab.lab import Lab
from asap2.lab.layout import ROOT_VARIABLE

WAYS: Final[dict[str, tuple[str, ...]]] = {
    "off": (),
    "trace": ("trace", "--filter", "ether proto 0x9999"),
    "capture": ("capture", "-w", os.devnull, "--snap", "128", "vm1", "vm2"),
}
_FIGURES: Final = {
    "tcp_gbps": "TCP, Gbit/s",
    "packets_per_second": "small packets per second",
    "transactions_per_second": "requests and replies per second",
}
RATIOS: Final = tuple(
    Ratio(f"{title}: {way} / off", way, figure, "off")
    for way in WAYS
    if way != "off"
    for figure, title in _FIGURES.items()
)


def run(lab: Lab, rounds: int, tell: Callable[[str], object]) -> dict[str, Any]:
    """Run the suite (:func:`asap2.lab.bench.suite.run`). The lab is brought up for it and taken down after it."""
    return suite.run(Suite("trace", RATIOS, ()), lab, _built(lab), rounds, tell)


@contextlib.contextmanager
def _built(lab: Lab) -> Iterator[list[Measurement]]:
    lab.up(gallery.named("vlan"))
    client, server = (lab.layout.guest(name) / "ns" for name in ("vm1", "vm2"))
    path = TrafficPath("offloaded", client, server, "10.57.0.2")
    run_in(path.client, "ping", "-q", "-c", "2", "-i", "0.2", "-W", "5", path.address)
    yield [suite.named(way, partial(_measured, lab, path, way)) for way in WAYS]


def _measured(lab: Lab, path: TrafficPath, way: str) -> Figures:
    """The figures of one round; ``lost_steps`` are those that the watcher has missed."""
    if not WAYS[way]:
        return measure(path)
    words = [sys.executable, "-m", "asap2.cli.main", *WAYS[way]]
    environment = os.environ | {ROOT_VARIABLE: str(lab.layout.root)}
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(words, env=environment, stdout=nothing, stderr=pipe, text=True) as watcher:
        assert watcher.stderr is not None
        try:
            if "Ctrl-C" not in (said := watcher.stderr.readline()):
                raise Asap2Error(f"`asap2 {' '.join(WAYS[way])}` failed: {said}{watcher.stderr.read()}")
            figures = measure(path)
        finally:
            watcher.send_signal(signal.SIGINT)
        rest = watcher.stderr.read()
    lost = re.search(r"(\d+) (?:steps|records) were lost", rest)
    return figures | {"lost_steps": float(lost[1]) if lost else 0.0}


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw *result* into the PNG *file*."""
    heading = f"What watching packets costs: medians of {result['rounds']} interleaved rounds, and their range"
    with picture(file, len(_FIGURES), (13, 4), heading) as panels:
        for axis, (figure, title) in zip(panels, _FIGURES.items(), strict=True):
            medians, ranges = medians_and_ranges([result["figures"][way][figure] for way in WAYS])
            bars = axis.bar(range(len(WAYS)), medians, yerr=ranges, capsize=2, color=["#76b900", "#4c78a8", "#3f8f5f"])
            axis.bar_label(bars, fmt="%.3g", fontsize=8)
            axis.set_title(title, fontsize=9)
            axis.set_xticks(range(len(WAYS)), WAYS, fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(y=0.15)
