# SPDX-License-Identifier: Apache-2.0
"""The scale suite measures all that it should, at sizes that say nothing about speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asap2.lab.bench import measure
from asap2.lab.bench.scale.plot import plot
from asap2.lab.bench.scale.run import ratios, run, targets
from asap2.lab.bench.scale.sizes import Sizes
from asap2.lab.lab import Lab
from asap2.lab.layout import Layout

TINY = Sizes(
    tables=((1, 1), (1000, 1), (1000, 16), (1000, 64)),
    many_flows=2000,
    cold_flows=500,
    runs=5000,
    packets_seconds=0.05,
    batch_rules=200,
    new_flows=100,
    window=16,
    first_packets=5,
    turns=1,
    held=(300,),
    held_seconds=1.0,
    flood_flows=2000,
    flood_rate=10_000,
)
DIFFERENCES = ("hot_ns", "cold_ns", "round_robin_ns")
"""Of two times, so that one on a busy machine may be below 0."""
LOOKUP = (*DIFFERENCES, "hot_packets_per_second", "round_robin_packets_per_second")
PATH = ("tcp_gbps", "cpu_seconds_per_gbit", "packets_per_second")
FLOOD = ("quiet_first_packet_ms", "flood_first_packet_ms", "lost", "flood_packets", "flood_packets_came")
FLOWS = ("flows_per_second", "flows_lost", "first_packet_ms", "second_packet_ms")


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(told: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = Path(f"/run/{tmp_path_factory.mktemp('t-scale').name}-{id(told):x}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "TCP_SECONDS", 1)
        found = run(Lab(Layout(root)), 1, told.append, TINY)
    assert not root.exists()
    return found


@pytest.mark.slow
def test_all_that_is_promised_is_measured(result: dict[str, Any], told: list[str]) -> None:
    assert (result["suite"], result["rounds"]) == ("scale", 1)
    assert result["load_average_before"] >= 0
    assert {name: tuple(figures) for name, figures in result["figures"].items()} == {
        **dict.fromkeys(("direct", "same_node", "vlan", "vxlan", "geneve", "kernel_vxlan"), PATH),
        "direct_frames": ("round_robin_packets_per_second",),
        **dict.fromkeys(
            ("1 rule, 1 mask", "1000 rules, 1 mask", "1000 rules, 16 masks", "1000 rules, 64 masks"), LOOKUP
        ),
        "insertion": ("rules_per_second", "kernel_neighbours_per_second"),
        **dict.fromkeys(("flows_offloaded", "flows_software"), FLOWS),
        "flood": FLOOD,
        "held": ("dump_300_ms", "dump_300_most_ms", "flow_limit_300"),
    }
    assert {line.split(": ")[1] for line in told} == set(result["figures"])


@pytest.mark.slow
def test_every_figure_is_positive_and_within_its_spread(result: dict[str, Any]) -> None:
    found = [(name, figure, each) for name, of in result["figures"].items() for figure, each in of.items()]
    found += [(name, "ratio", each) for name, each in result["ratios"].items()]
    for name, figure, each in found:
        assert each["least"] <= each["median"] <= each["most"], (name, figure)
        if figure in DIFFERENCES:
            continue
        assert each["least"] >= 0, (name, figure)
        assert each["median"] > 0 or figure in ("flows_lost", "lost"), (name, figure)


@pytest.mark.slow
def test_ratios_and_targets_are_those_of_the_figures(result: dict[str, Any], tmp_path: Path) -> None:
    figures = result["figures"]
    expected = ratios(TINY)
    assert list(result["ratios"]) == [ratio.name for ratio in expected]
    for ratio in expected:
        value = (
            figures[ratio.of][ratio.figure]["median"] / figures[ratio.to][ratio.peer_figure or ratio.figure]["median"]
        )
        assert result["ratios"][ratio.name]["median"] == pytest.approx(value, rel=0.01)
    assert set(result["targets"]) == {r.name for r in expected if r.target} | {target.name for target in targets(TINY)}
    for each in result["targets"].values():
        met = each["value"] >= each["at_least"] if "at_least" in each else each["value"] <= each["at_most"]
        assert each["met"] is met
    plot(result, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
