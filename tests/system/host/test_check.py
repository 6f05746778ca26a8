# SPDX-License-Identifier: Apache-2.0
"""``asap2 host check`` and ``capture`` in a node."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from tests.system.host.conftest import Hosts

CHECK_SECONDS = 2.0


def verdicts(bench: Hosts, node: str, *words: str) -> dict[str, str]:
    """Each finding's verdict by its id."""
    return {one["id"]: one["verdict"] for one in bench.data(node, "check", *words)["findings"]}


def test_a_fresh_node_fails_and_is_told_why(lab: Hosts) -> None:
    done = lab.host("hv1", "check")
    assert done.returncode == 1
    assert "fix: asap2 host setup enp3s0f0" in done.stdout
    assert "hv1: hardware offload is not ready here" in done.stdout
    failed = {id for id, verdict in verdicts(lab, "hv1").items() if verdict == "fail"}
    assert failed == {"vfs", "eswitch.mode", "hw-tc-offload", "ovs.hw-offload"}


def test_a_node_that_is_set_up_passes_and_rules_are_tried(lab: Hosts) -> None:
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    data = lab.data("hv1", "check")
    assert data["verdict"] == "ok"
    trial = next(one for one in data["findings"] if one["id"] == "trial")
    assert (trial["verdict"], trial["found"]) == ("ok", "taken: drop, forward, vlan push, vlan pop")
    assert lab.host("hv1", "check").returncode == 0


def test_checking_is_quick_and_changes_nothing(lab: Hosts) -> None:
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    before = lab.state("hv1")
    began = time.monotonic()
    lab.done("hv1", "check")
    assert time.monotonic() - began < CHECK_SECONDS
    assert lab.state("hv1") == before


def test_warnings_count_when_asked_to(lab: Hosts) -> None:
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    assert verdicts(lab, "hv1")["iommu"] == "warn"
    assert lab.host("hv1", "check", "--strict").returncode == 1


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("ethtool -K eth0 hw-tc-offload off", "hw-tc-offload"),
        ("tc qdisc del dev eth0 ingress", "tc.ingress"),
        ("ip link set eth0 down", "representors.up"),
        ("ovs-vsctl add-port br-int nosuch 2>/dev/null; true", "ovs.ports"),
        ("ovs-vsctl set Open_vSwitch . other_config:hw-offload=false", "tc.orphans"),
        ("ovs-vsctl set Open_vSwitch . other_config:tc-policy=skip_hw", "ovs.tc-policy"),
        ("systemctl stop openvswitch", "ovs.running"),
        ("ovs-vsctl add-port br-int vx -- set interface vx type=vxlan options:remote_ip=10.0.0.9", "mtu"),
    ],
)
def test_what_is_broken_is_found(lab: Hosts, damage: str, finding: str) -> None:
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    if finding == "tc.orphans":
        cookie = "cookie d3bbfb4f09cb4344913c0f266a6d9c1b"
        lab.ok("hv1", f"tc filter add dev eth0 ingress prio 5 protocol ip flower ip_proto 99 action drop {cookie}")
    assert verdicts(lab, "hv1").get(finding, "ok") == "ok"
    lab.ok("hv1", damage)
    assert verdicts(lab, "hv1")[finding] == "fail"
    assert lab.host("hv1", "check").returncode == 1


def test_openflow_rules_that_track_connections_are_warned_of(lab: Hosts) -> None:
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    lab.ok("hv1", "ovs-ofctl add-flow br-int 'ip,actions=ct(table=1)'")
    assert verdicts(lab, "hv1")["ct"] == "warn"


def test_a_capture_is_judged_elsewhere_as_it_was_there(lab: Hosts, tmp_path: Path) -> None:
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    path = tmp_path / "capture.json"
    lab.done("hv1", "capture", str(path))
    here = lab.asap2("host", "check", "--from", str(path), "--json")
    assert here.returncode == 0, here.stdout + here.stderr
    there = {one["id"]: one["verdict"] for one in json.loads(here.stdout)["findings"]}
    assert there == verdicts(lab, "hv1")
    assert lab.asap2("host", "status", "--from", str(path)).returncode == 0


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["check", "enp9s0"], 2, "there is no PF 'enp9s0' here; such PFs here: enp3s0f0 (0000:03:00.0)"),
        (["check", "lo"], 2, "lo is not a switchdev NIC"),
        (["check", "--from", "/nowhere"], 1, "/nowhere: No such file or directory"),
        (["check", "--colour"], 2, "No such option: --colour"),
    ],
)
def test_bad_input_gets_one_sentence(lab: Hosts, words: list[str], status: int, sentence: str) -> None:
    done = lab.host("hv1", *words)
    assert done.returncode == status
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_who_is_not_root_is_told_so(lab: Hosts) -> None:
    for words in ("check", "setup", "undo", "status", "persist", "capture /tmp/x"):
        done = lab.run("hv1", f"setpriv --reuid 65534 --clear-groups {sys.executable} -m asap2.cli.main host {words}")
        assert done.returncode == 1
        assert done.stderr.strip() == "asap2: this needs root: say `sudo asap2 host …`", words
