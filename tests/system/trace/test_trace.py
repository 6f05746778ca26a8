# SPDX-License-Identifier: Apache-2.0
"""`asap2 trace` in a lab of two nodes."""

from __future__ import annotations

import re
from typing import Any

from tests.schemas import answer
from tests.system.offload.labs import Bench
from tests.system.patience import PATIENCE
from tests.system.trace.conftest import forget
from tests.system.trace.programs import watched

ONE_SIDE = ["representor", "pipeline", "pipeline", "pipeline", "upcall", "upcall", "switch", "switch", "pipeline"]
"""The stages of a first packet from the silicon of a node to its way out."""


def trace(bench: Bench, *words: str) -> tuple[list[dict[str, Any]], list[float]]:
    """The ways that ``asap2 trace`` tells of, and the milliseconds that ping printed meanwhile."""
    done = bench.asap2("trace", "--json", *words, timeout=PATIENCE)
    found = answer(done.stdout)
    assert found["lost"] == 0
    return found["ways"], [float(time) for time in re.findall(r"time=([\d.]+) ms", done.stderr)]


def took(ways: list[dict[str, Any]]) -> float:
    """The milliseconds from the first step of the first of two ways to the last of the other."""
    request, reply = ways
    return float(reply["began"] - request["began"]) / 1e6 + float(reply["microseconds"]) / 1e3


def test_the_first_packet_is_in_software_with_every_stage_and_the_second_in_hardware(bench: Bench) -> None:
    forget(bench)
    ways, pings = trace(bench, "--filter", "icmp", "vm1", "ping -c2 -i1 10.57.0.2")
    first, second = ways[:2], ways[2:]
    assert [(way["origin"], way["targets"], way["in_hardware"]) for way in ways] == [
        *(("vm1", ["vm2"], False), ("vm2", ["vm1"], False)),
        *(("vm1", ["vm2"], True), ("vm2", ["vm1"], True)),
    ]
    for way, nodes in zip(first, (("hv1", "hv2"), ("hv2", "hv1")), strict=True):
        stages = [(step["node"], step["stage"]) for step in way["steps"]]
        here, there = nodes
        assert stages == [
            *((here, "vf"), (here, "silicon")),
            *((here, stage) for stage in ONE_SIDE),
            *((here, "representor"), (here, "cable"), (there, "uplink"), (there, "silicon")),
            *((there, stage) for stage in ONE_SIDE),
            *((there, "representor"), (there, "delivery")),
        ], stages
        times = [step["microseconds"] for step in way["steps"]]
        assert times == sorted(times)
        missed = [step for step in way["steps"] if step["text"].startswith("no rule in")]
        assert [step["why"] is not None for step in missed] == [True] * 6
        puts = [step for step in way["steps"] if "puts a TC filter" in step["text"]]
        assert [step["node"] for step in puts] == list(nodes)
        assert ["in hardware" in step["text"] for step in puts] == [True, True]
    for way in second:
        assert [step["stage"] for step in way["steps"]] == ["vf", "silicon", "cable", "uplink", "silicon", "delivery"]
        pushed, popped = (step["rewritten"] for step in way["steps"] if step["stage"] in ("cable", "delivery"))
        assert (pushed, popped) == ([["vlan", "none", "52"]], [["vlan", "52", "none"]])
    # What ping measures besides is its own guest's stack, both ways.
    assert len(pings) == 2
    for pair, ping in zip((first, second), pings, strict=True):
        assert ping * 0.4 - 0.1 < took(pair) <= ping + 0.01, (took(pair), ping)
    assert took(first) > pings[0] * 0.9
    assert watched(bench) == set()
