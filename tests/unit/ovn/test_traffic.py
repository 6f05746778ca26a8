# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from asap2.lab.layout import Layout
from asap2.lab.terminal import OutputError, StepError, Terminal
from asap2.ovn.scenarios import _judge_limited
from asap2.ovn.traffic import Place, Traffic, counters, judge_counters
from asap2.screen import Screen


def shown(link: tuple[int, int], cpu: tuple[int, int]) -> str:
    """What `ip -j stats show dev eth0` prints, without most of it."""

    def group(numbers: tuple[int, int], **names: str) -> dict[str, Any]:
        received, sent = numbers
        return {"ifname": "eth0", **names, "stats64": {"rx": {"packets": received}, "tx": {"packets": sent}}}

    return json.dumps(
        [
            {"ifname": "eth0", "group": "afstats", "subgroup": "mpls"},
            group(link, group="link"),
            group(cpu, group="offload", subgroup="cpu_hit"),
        ]
    )


def test_packets_of_both_directions_are_counted() -> None:
    assert counters(shown((100, 50), (3, 4))) == (150, 7)


@pytest.mark.parametrize("output", ["", "[]", json.dumps([{"group": "link"}]), "Error"])
def test_a_device_without_counters_of_the_cpu_is_told(output: str) -> None:
    with pytest.raises(OutputError, match="has no counters"):
        judge_counters(output)


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    """Between two guests whose counters a test sets by ``at``."""
    made = Traffic(Terminal(Layout(Path("/nowhere")), Screen()), {"vm1": Place("hv1", "eth0")})
    at = iter([(1000, 10), (2000, 15)])
    monkeypatch.setattr(made, "_counted", lambda _guest: next(at))
    return made


def test_what_hardware_carried_is_kept(traffic: Traffic) -> None:
    with traffic.measured("switch, TCP", "vm1"):
        pass
    (one,) = traffic.carried
    assert (one.kind, one.packets, one.at_host, one.share) == ("switch, TCP", 1000, 5, 0.995)


@pytest.mark.parametrize(("least", "complaint"), [(0.999, "99.9 % should be"), (None, "the host should see them")])
def test_another_share_than_wanted_is_an_error(traffic: Traffic, least: float | None, complaint: str) -> None:
    with (
        pytest.raises(StepError, match=f"995 of 1000 packets in hardware.*{complaint}"),
        traffic.measured("switch, TCP", "vm1", least=least),
    ):
        pass


@pytest.mark.parametrize(
    ("sent", "arrived", "fine"), [(200, 49, True), (200, 7, False), (26, 7, True), (200, 90, False)]
)
def test_a_meter_is_judged_by_what_was_sent(sent: int, arrived: int, fine: bool) -> None:
    rates = {"sender": sent, "receiver": arrived}
    output = "\n".join(f"[  5]  0.00-1.00 sec  3 MBytes  {rate} Mbits/sec  {end}" for end, rate in rates.items())
    with contextlib.nullcontext() if fine else pytest.raises(OutputError, match="the limit is"):
        _judge_limited(output)
