# SPDX-License-Identifier: Apache-2.0
"""A run as a picture: what packets cost against rules and masks, and the ratios that have a target."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from asap2.errors import Asap2Error

STATES = {"hot_ns": "#76b900", "cold_ns": "#4c78a8", "round_robin_ns": "#d08a3a"}
PACKETS = ("hot_packets_per_second", "round_robin_packets_per_second")


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw *result* (:func:`asap2.lab.bench.scale.run.run`) into the PNG *file*."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise Asap2Error("the plot needs matplotlib; `make setup` installs it") from None
    mpl.use("Agg")
    from matplotlib import pyplot

    figures = result["figures"]
    tables = [name for name in figures if "hot_ns" in figures[name]]
    places = range(len(tables))
    labels = [name.replace(", ", "\n") for name in tables]
    figure, (cost, packets, targets) = pyplot.subplots(1, 3, figsize=(15, 5), layout="constrained")
    for state, colour in STATES.items():
        _line(cost, [figures[name][state] for name in tables], state.removesuffix("_ns").replace("_", " "), colour)
    cost.set_yscale("log")
    cost.set_title("eBPF program, ns a packet", fontsize=10)
    for key, colour in zip(PACKETS, ("#76b900", "#d08a3a"), strict=True):
        words = key.removesuffix("_packets_per_second").replace("_", " ")
        _line(packets, [figures[name][key] for name in tables], words, colour)
    direct = figures["direct_frames"]["round_robin_packets_per_second"]["median"]
    packets.axhline(direct, color="#555555", linewidth=0.8, linestyle=":", label="direct veth")
    packets.set_ylim(bottom=0)
    packets.set_title("packets/s from guest to guest", fontsize=10)
    for axis in (cost, packets):
        axis.set_xticks(places, labels, fontsize=7, rotation=60)
        axis.legend(fontsize=8)
    draw_targets(targets, result)
    figure.suptitle(f"Medians of {result['rounds']} interleaved rounds, and their range", fontsize=11)
    try:
        figure.savefig(file, dpi=110)
    finally:
        pyplot.close(figure)


def _line(axis: Any, values: list[dict[str, float]], label: str, colour: str) -> None:
    medians = [each["median"] for each in values]
    spread = [
        [each["median"] - each["least"] for each in values],
        [each["most"] - each["median"] for each in values],
    ]
    axis.errorbar(range(len(values)), medians, spread, color=colour, label=label, marker="o", markersize=4, capsize=2)


def draw_targets(axis: Any, result: dict[str, Any]) -> None:
    """Each target as how far it is met: 1 is as wanted, more is better."""
    names, shares = [], []
    for name, each in result["targets"].items():
        reached, wanted = (each["value"], each["at_least"]) if "at_least" in each else (each["at_most"], each["value"])
        names.append(textwrap.fill(name, 34))
        shares.append(reached / wanted if wanted else 1.0)
    colours = ["#76b900" if share >= 1 else "#c44e52" for share in shares]
    bars = axis.barh(range(len(names)), shares, color=colours)
    axis.bar_label(bars, fmt="%.2f", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.invert_yaxis()
    axis.axvline(1, color="#555555", linewidth=0.8, linestyle=":")
    axis.set_title("targets: reached / wanted", fontsize=10)
    axis.margins(x=0.15)
