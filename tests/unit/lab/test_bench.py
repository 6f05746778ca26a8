# SPDX-License-Identifier: Apache-2.0
"""What a run of the benchmark makes of its measurements."""

from __future__ import annotations

from pathlib import Path

from asap2.lab.bench.paths import NAMES, topology
from asap2.lab.bench.plot import plot
from asap2.lab.bench.run import FIGURES, HOST_FIGURES, HOSTS, Rounds, summarize


def rounds(*tcp_of_bridge: float) -> Rounds:
    """Rounds in which every figure is 2, but the bridge's TCP."""
    made: Rounds = []
    for value in tcp_of_bridge:
        made.append({name: dict.fromkeys((*FIGURES, *(HOST_FIGURES if name in HOSTS else ())), 2.0) for name in NAMES})
        made[-1]["bridge"]["tcp_gbps"] = value
    return made


def test_figures_are_medians_and_ratios_to_the_direct_path() -> None:
    result = summarize(rounds(1.0, 100.0, 1.5))
    assert result["rounds"] == 3
    assert result["paths"]["bridge"]["tcp_gbps"] == 1.5
    assert result["ratios"]["bridge"] == {
        "tcp_gbps": 0.75,
        "packets_per_second": 1.0,
        "transactions_per_second": 1.0,
        "cpu_seconds_per_gbit": 1.0,
    }
    assert (
        set(result["paths"]) == set(result["ratios"]) == {"direct", "offloaded", "bridge", "software", "ovs_userspace"}
    )


def test_what_hosts_did_is_apart_and_offload_is_judged_by_the_userspace_switch() -> None:
    measured = rounds(1.0)
    measured[0]["offloaded"] |= {"tcp_gbps": 6.0, "host_packets": 0.01}
    result = summarize(measured)
    assert set(result["hosts"]) == {"offloaded", "software", "ovs_userspace"}
    assert result["hosts"]["offloaded"]["host_packets"] == 0.01
    assert {name for name, each in result["targets"].items() if each["met"]} == {"TCP", "packets that the host saw"}


def test_the_plot_is_a_png(tmp_path: Path) -> None:
    plot(summarize(rounds(1.0)), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_its_topology_has_a_node_for_each_of_our_paths() -> None:
    assert [node.name for node in topology().nodes] == ["offloaded", "software", "ovs-userspace"]
