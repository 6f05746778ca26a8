# SPDX-License-Identifier: Apache-2.0
"""The suite of tracked connections measures all that it should, at sizes that say nothing about speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asap2.lab.bench import measure
from asap2.lab.bench.stateful.plot import plot
from asap2.lab.bench.stateful.run import RATIOS, TARGETS, run
from asap2.lab.bench.stateful.sizes import Sizes
from asap2.lab.lab import Lab
from asap2.lab.layout import Layout

TINY = Sizes(connect_seconds=0.2, many=2000, packets_seconds=0.05, turns=1, requests=100)
TCP = {"tcp_gbps", "cpu_seconds_per_gbit", "packets_per_second", "connections_per_second"}
HOST = TCP | {"host_cpu_seconds_per_gbit"}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    told: list[str] = []
    root = Path(f"/run/{tmp_path_factory.mktemp('t-stateful').name}-{id(told):x}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "TCP_SECONDS", 1)
        found = run(Lab(Layout(root)), 1, told.append, TINY)
    assert not root.exists()
    assert {line.split(": ")[1] for line in told} == set(found["figures"])
    return found


@pytest.mark.slow
def test_all_that_is_promised_is_measured(result: dict[str, Any]) -> None:
    assert (result["suite"], result["rounds"]) == ("stateful", 1)
    assert {name: set(figures) for name, figures in result["figures"].items()} == {
        "plain": HOST,
        "tracked": HOST | {"host_packets", "connection_packets"},
        "software": HOST,
        "router": TCP,
        "many": {"one_packets_per_second", "many_packets_per_second", "connections", "bytes_each"},
    }
    assert list(result["ratios"]) == [ratio.name for ratio in RATIOS]
    assert set(result["targets"]) >= {target.name for target in TARGETS}


@pytest.mark.slow
def test_the_host_sees_the_begin_and_the_end_of_a_connection(result: dict[str, Any]) -> None:
    tracked, many = (result["figures"][name] for name in ("tracked", "many"))
    assert tracked["connection_packets"]["median"] >= 2 * TINY.requests
    assert 0 < tracked["host_packets"]["median"] <= 8
    assert many["connections"]["median"] == TINY.many


@pytest.mark.slow
def test_the_plot_is_a_picture(result: dict[str, Any], tmp_path: Path) -> None:
    plot(result, tmp_path / "stateful.png")
    assert (tmp_path / "stateful.png").read_bytes().startswith(b"\x89PNG")
