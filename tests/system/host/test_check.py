# SPDX-License-Identifier: Apache-2.0
"""``asap2 host check`` and ``capture`` in a node."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.schemas import answer
from tests.system.host.conftest import Hosts


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


@pytest.fixture(scope="module")
def ready(bench: Hosts) -> Hosts:
    """The lab with hv1 set up."""
    bench.clear("hv1")
    bench.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    return bench


def test_a_node_that_is_set_up_passes_and_rules_are_tried(ready: Hosts) -> None:
    data = ready.data("hv1", "check")
    assert data["verdict"] == "ok"
    trial = next(one for one in data["findings"] if one["id"] == "trial")
    assert (trial["verdict"], trial["found"]) == ("ok", "taken: drop, forward, vlan push, vlan pop")


def test_checking_changes_nothing(ready: Hosts) -> None:
    before = ready.state("hv1")
    ready.done("hv1", "check")
    assert ready.state("hv1") == before


def test_warnings_count_when_asked_to(ready: Hosts) -> None:
    assert verdicts(ready, "hv1")["iommu"] == "warn"
    assert ready.host("hv1", "check", "--strict").returncode == 1


ORPHAN = "prio 5 protocol ip flower ip_proto 99 action drop cookie d3bbfb4f09cb4344913c0f266a6d9c1b"
SET = "ovs-vsctl set Open_vSwitch . other_config"
VXLAN = "-- set interface vx type=vxlan options:remote_ip=10.0.0.9"


@pytest.mark.parametrize(
    ("damage", "repair", "finding"),
    [
        ("ethtool -K eth0 hw-tc-offload off", "ethtool -K eth0 hw-tc-offload on", "hw-tc-offload"),
        ("tc qdisc del dev eth0 ingress", "tc qdisc add dev eth0 ingress", "tc.ingress"),
        ("ip link set eth0 down", "ip link set eth0 up", "representors.up"),
        ("ovs-vsctl add-port br-int nosuch 2> /dev/null", "ovs-vsctl del-port nosuch", "ovs.ports"),
        (f"tc filter add dev eth0 ingress {ORPHAN} && {SET}:hw-offload=false", f"{SET}:hw-offload=true", "tc.orphans"),
        (f"{SET}:tc-policy=skip_hw", "ovs-vsctl remove Open_vSwitch . other_config tc-policy", "ovs.tc-policy"),
        (f"ovs-vsctl add-port br-int vx {VXLAN}", "ovs-vsctl del-port vx", "mtu"),
        ("systemctl stop openvswitch", "systemctl start openvswitch", "ovs.running"),
    ],
)
def test_what_is_broken_is_found(ready: Hosts, damage: str, repair: str, finding: str) -> None:
    assert verdicts(ready, "hv1").get(finding, "ok") == "ok"
    ready.run("hv1", damage)
    try:
        done = ready.host("hv1", "check", "--json")
        assert done.returncode == 1
        assert (finding, "fail") in [(one["id"], one["verdict"]) for one in answer(done.stdout)["findings"]]
    finally:
        ready.ok("hv1", repair)


def test_a_capture_is_judged_elsewhere_as_it_was_there(ready: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "capture.json"
    ready.done("hv1", "capture", str(path))
    here = ready.asap2("host", "check", "--from", str(path), "--json")
    assert here.returncode == 0, here.stdout + here.stderr
    there = {one["id"]: one["verdict"] for one in answer(here.stdout)["findings"]}
    assert there == verdicts(ready, "hv1")
    assert ready.asap2("host", "status", "--from", str(path)).returncode == 0


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["check", "enp9s0"], 2, "there is no PF 'enp9s0' here; such PFs here: enp3s0f0 (0000:03:00.0)"),
        (["check", "lo"], 2, "lo is not a switchdev NIC"),
        (["check", "--from", "/nowhere"], 1, "/nowhere: No such file or directory"),
        (["check", "--colour"], 2, "No such option"),
    ],
)
def test_bad_input_gets_one_sentence(bench: Hosts, words: list[str], status: int, sentence: str) -> None:
    done = bench.host("hv1", *words)
    assert done.returncode == status
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_who_is_not_root_is_told_so(bench: Hosts) -> None:
    changing = ("setup", "undo", "persist")
    looking = (
        "check",
        "status",
        "explain",
        "explain --deep",
        "verify eth0 10.0.0.1",
        "metrics --once",
        "capture /tmp/x",
    )
    for words in (*changing, *looking):
        # who may read everything, so that the program can be run from wherever it lies
        user = "--reuid 65534 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search"
        done = bench.run("hv1", f"setpriv {user} {sys.executable} -m asap2.cli.main host {words}")
        assert done.returncode == 1
        assert done.stderr.strip() == "asap2: this needs root; say `sudo asap2 host …`", words
