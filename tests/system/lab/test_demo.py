# SPDX-License-Identifier: Apache-2.0
"""The demo does the whole procedure, says so, and leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asap2.lab.bench.against import SOFTWARE_GAINS, missed, targets
from asap2.lab.layout import Layout

from .conftest import Asap2, Machine

KEYS = {
    "ok",
    "steps",
    "ping_loss_percent",
    "packets_sent",
    "representor_packets",
    "offloaded_packets",
    "tcp_gbps",
    "cpu_percent",
    "comparison",
    "firewall",
    "packet_ways",
}


@pytest.mark.slow
def test_the_demo_shows_all_that_it_should_and_leaves_nothing(place: Layout, asap2: Asap2, tmp_path: Path) -> None:
    before = Machine.look(place.root.name)
    done = asap2("demo", "--rounds", "1", "--report", str(tmp_path / "report.json"))
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == KEYS
    assert all(step["ok"] and step["rc"] == 0 for step in report["steps"]), done.stdout
    assert report["ping_loss_percent"] == 0
    assert report["representor_packets"] == 1
    assert report["offloaded_packets"] == report["packets_sent"] - 1
    assert {step["node"] for step in report["steps"]} == {"hv1", "hv2", "vm1", "vm2", "machine"}
    assert all(report["tcp_gbps"][way] > 0 for way in ("userspace", "software", "offloaded"))
    assert set(report["cpu_percent"]) == {"vswitchd", "daemon"}
    assert 0 < report["firewall"]["at_the_host"] < report["firewall"]["in_hardware"] / 20
    assert report["packet_ways"] == {"1": {"hv1": "host", "hv2": "host"}, "2": {"hv1": "nic", "hv2": "nic"}}
    for row in (
        "┌ eth3 ▶ Open vSwitch ┐       ┌ Open vSwitch ▶ eth3 ┐",
        "─── push_vlan 57 ──── p0 ═ p0 ───── pop_vlan ─────",
    ):
        assert done.stdout.count(row) == 1
    compared = report["comparison"]
    assert compared["targets"] == targets(compared["offloaded"], compared["userspace"])
    assert compared["software_targets"] == targets(compared["offloaded"], compared["software"], SOFTWARE_GAINS)
    for found in (compared["targets"], compared["software_targets"]):
        assert found["packets that the host saw"]["met"]
    # the software datapath's work is the hosts', and is measured although no process does it
    assert compared["software"]["host_packets"] > 1000
    assert compared["software"]["host_cpu_seconds_per_gbit"] > 0.0005
    # how fast the machine is meanwhile is not for a test to say
    enough = missed(compared["targets"]) is None
    assert done.stdout.count("✗") == 0 or not enough
    assert (report["ok"], done.returncode) == ((True, 0) if enough else (False, 1)), done.stderr
    assert not place.root.exists()
    assert Machine.look(place.root.name) == before


def test_a_demo_beside_a_lab_is_refused(place: Layout, asap2: Asap2, tmp_path: Path) -> None:
    place.root.mkdir()
    try:
        done = asap2("demo", "--report", str(tmp_path / "report.json"))
    finally:
        place.root.rmdir()
    assert done.returncode == 1
    assert done.stderr == f"asap2: a lab is up already, or half up; `asap2 --lab {place.root} lab down` takes it down\n"
    assert not json.loads((tmp_path / "report.json").read_text())["ok"]
