# SPDX-License-Identifier: Apache-2.0
"""What looking at a lab costs: the same traffic between two nodes while nobody looks, and while somebody does.

========  ==============================================================================================
``off``   `asap2 view` runs, and no browser is open
``view``  a browser is open, which shows the flows of a node: a program reads in its place what is sent to it, since
          a browser's own CPU time is spent wherever it runs
========  ==============================================================================================
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from asap2.errors import Asap2Error
from asap2.lab import gallery
from asap2.lab.bench import suite
from asap2.lab.bench.drawing import medians_and_ranges, picture
from asap2.lab.bench.measure import tcp
from asap2.lab.bench.paths import SwitchingHost, TrafficPath
from asap2.lab.bench.ratios import Figures, Ratio, Round, Suite
from asap2.lab.bench.suite import Measurement
from asap2.lab.cpu import process_seconds
from asap2.lab.execute import run as run_in
from asap2.lab.lab import Lab
from asap2.lab.layout import ROOT_VARIABLE

NODE: Final = "hv1"
"""The node whose flows are shown."""
WAYS: Final = ("off", "view")
TURNS: Final = 4
"""Measurements of each way in a round, in pairs whose order changes: what else a machine does goes up and down."""
SETTLE: Final = 4.0
"""Seconds from the first message that a reader gets to a measurement: the reader of flows has started by then."""
_FIGURES: Final = {
    "tcp_gbps": "TCP, Gbit/s",
    "view_cores": "CPUs of the view",
    "node_cores": "CPUs of a node",
}
RATIOS: Final = (Ratio("TCP, Gbit/s: view / off", "view", "tcp_gbps", "off", target=0.97),)


def run(lab: Lab, rounds: int, tell: Callable[[str], object]) -> dict[str, Any]:
    """Run the suite (:func:`asap2.lab.bench.suite.run`). The lab is brought up for it and taken down after it."""
    return suite.run(Suite("view", RATIOS, ()), lab, _built(lab), rounds, tell)


@contextlib.contextmanager
def _built(lab: Lab) -> Iterator[list[Measurement]]:
    lab.up(gallery.named("vxlan"))
    client, server = (lab.layout.guest(name) / "ns" for name in ("vm1", "vm2"))
    path = TrafficPath("offloaded", client, server, "10.57.0.2")
    run_in(path.client, "ping", "-q", "-c", "1", "-w", "30", path.address)
    command = [sys.executable, "-m", "asap2.cli.main", "view", "--port", "0"]
    environment = os.environ | {ROOT_VARIABLE: str(lab.layout.root)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as view:
        assert view.stdout is not None
        try:
            url = next((word for word in view.stdout.readline().split() if word.startswith("http")), None)
            if url is None:
                raise Asap2Error(f"`asap2 view` failed with status {view.wait()}")
            yield [partial(_round, path, SwitchingHost(lab.layout, NODE), url, view.pid)]
        finally:
            view.terminate()


def _round(path: TrafficPath, host: SwitchingHost, url: str, view: int) -> Round:
    """Both ways by turns."""
    measured: dict[str, list[Figures]] = {way: [] for way in WAYS}
    for turn in range(TURNS):
        for way in WAYS if turn % 2 else reversed(WAYS):
            with _reading(url) if way == "view" else contextlib.nullcontext():
                measured[way].append(_measured(path, host, view))
    return {way: _mean(figures) for way, figures in measured.items()}


def _measured(path: TrafficPath, host: SwitchingHost, view: int) -> Figures:
    own, programs = [view, *_children(view)], host.processes()
    began, by_view, by_node = time.monotonic(), process_seconds(own), process_seconds(programs)
    figures = {"tcp_gbps": tcp(path)["tcp_gbps"]}
    seconds = time.monotonic() - began
    figures["view_cores"] = (process_seconds(own) - by_view) / seconds
    figures["node_cores"] = (process_seconds(programs) - by_node) / seconds
    return figures


def _children(process: int) -> list[int]:
    """What reads flows."""
    threads = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


def _mean(figures: list[Figures]) -> Figures:
    return {name: statistics.mean(one[name] for one in figures) for name in figures[0]}


@contextlib.contextmanager
def _reading(url: str) -> Iterator[None]:
    command = [sys.executable, "-m", "asap2.view.reader", url, NODE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        try:
            assert reader.stdout is not None
            if reader.stdout.readline() != "reading\n":
                raise Asap2Error("`asap2 view` sends nothing")
            time.sleep(SETTLE)
            yield
        finally:
            reader.terminate()
            reader.communicate()


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw *result* into the PNG *file*."""
    heading = f"What looking at a lab costs: medians of {result['rounds']} rounds, and their range"
    with picture(file, len(_FIGURES), (12, 4), heading) as panels:
        for axis, (figure, title) in zip(panels, _FIGURES.items(), strict=True):
            medians, ranges = medians_and_ranges([result["figures"][way][figure] for way in WAYS])
            bars = axis.bar(range(len(WAYS)), medians, yerr=ranges, capsize=2, color=["#76b900", "#4c78a8"])
            axis.bar_label(bars, fmt="%.3g", fontsize=8)
            axis.set_title(title, fontsize=9)
            axis.set_xticks(range(len(WAYS)), WAYS, fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(y=0.15)
