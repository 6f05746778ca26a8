# SPDX-License-Identifier: Apache-2.0
"""A run as a picture: what packets cost against rules and masks, and the ratios that have a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asap2.lab.bench.drawing import draw_targets, medians_and_ranges, picture

STATES = {"hot_ns": "#76b900", "cold_ns": "#4c78a8", "round_robin_ns": "#d08a3a"}
PACKETS = ("hot_packets_per_second", "round_robin_packets_per_second")


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw *result* (:func:`asap2.lab.bench.scale.run.run`) into the PNG *file*."""
    figures = result["figures"]
    tables = [name for name in figures if "hot_ns" in figures[name]]
    places = range(len(tables))
    labels = [name.replace(", ", "\n") for name in tables]
    title = f"Medians of {result['rounds']} interleaved rounds, and their range"
    with picture(file, 3, (15, 5), title) as (cost, packets, targets):
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


def _line(axis: Any, values: list[dict[str, float]], label: str, colour: str) -> None:
    medians, ranges = medians_and_ranges(values)
    axis.errorbar(range(len(values)), medians, ranges, color=colour, label=label, marker="o", markersize=4, capsize=2)
