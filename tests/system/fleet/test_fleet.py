# SPDX-License-Identifier: Apache-2.0
"""Eight hosts at once, from fresh to set up, verified and back. The tests are one story, in their order."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.fleet.fleet import NODES, VF_ADDRESS, Fleet, Play, peer
from tests.system.host.conftest import PF
from tests.system.host.test_setup import assert_same

ALL = f"offload_serial={len(NODES)}"
REPRESENTOR = "eth1"
"""Of VF 1."""
UNIT = "/etc/systemd/system/asap2-host.service"


@pytest.fixture(scope="module")
def before(fleet: Fleet) -> dict[str, Any]:
    """What the hosts are like before anything is set up."""
    return fleet.states()


@pytest.fixture(scope="module")
def first(fleet: Fleet, before: dict[str, Any]) -> Play:
    """The first set-up of all."""
    assert before
    return fleet.play("setup", "-e", ALL)


def test_a_check_of_fresh_hosts_fails_with_what_is_missing(fleet: Fleet) -> None:
    play = fleet.play("check")
    assert play.status == 2
    found = play.of("check")
    assert set(found) == set(NODES)
    for result in found.values():
        assert (result["outcome"], result["changed"]) == ("failed", False)
        assert result["msg"].startswith("hardware offload is not ready here: vfs: enp3s0f0: there are no VFs (fix: ")
        assert "eswitch.mode: enp3s0f0: legacy (fix: asap2 host setup enp3s0f0)" in result["msg"]


def test_a_dry_run_shows_before_and_after_and_changes_nothing(fleet: Fleet, before: dict[str, Any]) -> None:
    play = fleet.play("setup", "--check", "--diff", "--tags", "setup", "-e", ALL)
    assert play.status == 0, play.output
    found = play.of("setup")
    assert set(found) == set(NODES)
    for result in found.values():
        assert result["changed"] is True
        assert "0000:03:00.0 eSwitch mode: legacy\n" in result["diff"]["before"]
        assert "0000:03:00.0 eSwitch mode: switchdev\n" in result["diff"]["after"]
    assert "-0000:03:00.0 VFs: 0" in play.output
    assert "+0000:03:00.0 VFs: 2" in play.output
    assert_same(before, fleet.states())


def test_setting_up_changes_all_and_their_verdict_is_good(first: Play) -> None:
    assert first.status == 0, first.output
    assert first.touched == set(NODES)
    found = first.of("check")
    assert {host: result["verdict"] for host, result in found.items()} == dict.fromkeys(NODES, "ok")


def test_group_variables_count(fleet: Fleet, first: Play) -> None:
    """The second group has offload_persist."""
    assert {host for host, result in first.of("persist").items() if result.get("changed")} == set(NODES[4:])
    assert fleet.run(NODES[0], f"ls {UNIT}").returncode
    assert fleet.ok(NODES[4], f"ls {UNIT}")


def proofs() -> dict[str, Any]:
    """The variables of hosts whose guests are to ping the next host's."""
    return {
        node: {
            "offload_verify": [
                {
                    "vf": VF_ADDRESS,
                    "netns": f"vm{node[2:]}",
                    "peer": f"10.57.0.{peer(node)[2:]}",
                    "protocols": ["icmp"],
                    "count": 200,
                }
            ]
        }
        for node in NODES
    }


def test_the_second_time_nothing_changes_and_traffic_proves_it(fleet: Fleet, first: Play) -> None:
    assert first.status == 0
    fleet.hand_out()
    fleet.inventory(proofs())
    play = fleet.play("setup", "-e", ALL, "--tags", "setup,persist,verify")
    assert play.status == 0, play.output
    assert play.touched == set()
    assert set(play.of("setup")) == set(play.of("verify")) == set(NODES)
    for result in play.of("verify").values():
        (one,) = [proof for proof in result["results"] if isinstance(proof, dict)]
        assert one["results"][0]["verdict"].startswith("offloaded: ")
        assert one["results"][0]["total"] >= 200


def test_a_rollout_stops_where_traffic_is_not_offloaded(fleet: Fleet, first: Play) -> None:
    """The third host's OpenFlow rule does what no rule of a NIC can; its check does not see that, its traffic does."""
    assert first.status == 0
    cut = f"in_port={PF},ip,actions=output(port={REPRESENTOR},max_len=1000)"
    fleet.ok(NODES[2], f"ovs-ofctl add-flow br-int 'priority=50,{cut}'")
    try:
        play = fleet.play("setup", "-e", "offload_serial=2", "--tags", "setup,check,verify")
    finally:
        fleet.ok(NODES[2], f"ovs-ofctl del-flows br-int in_port={PF},ip")
    assert play.status == 2
    assert play.hosts == set(NODES[:4]), play.output
    assert {result["verdict"] for result in play.of("check").values()} == {"ok"}
    assert set(play.failed) == {NODES[2]}
    (proof,) = play.failed[NODES[2]]["results"]
    assert "is not offloaded: icmp: " in proof["msg"]
    assert "action.truncate: " in proof["msg"]


def test_undoing_is_refused_while_guests_have_vfs(fleet: Fleet) -> None:
    play = fleet.play("undo", "-e", "offload_serial=2")
    assert play.status == 2
    assert play.hosts == set(NODES[:2])
    refusal = "VF 1 of enp3s0f0 (0000:03:00.3) is in use by a guest (its network device eth0 is in the namespace "
    said = [result["msg"] for result in play.of("undo").values()]
    assert all(message.startswith(refusal) for message in said), said


def test_undoing_brings_all_back(fleet: Fleet, before: dict[str, Any]) -> None:
    fleet.take_back()
    fleet.inventory({})
    play = fleet.play("undo", "--diff", "-e", ALL)
    assert play.status == 0, play.output
    assert play.touched == set(NODES)
    assert "-0000:03:00.0 eSwitch mode: switchdev" in play.output
    assert f"-{UNIT}: present" in play.output
    assert_same(before, fleet.states())


def test_a_rollout_stops_at_a_bad_verdict_and_touches_no_host_after_it(fleet: Fleet, before: dict[str, Any]) -> None:
    """The fourth has an option that setting up leaves alone, and that keeps flows out of the NIC."""
    fleet.ok(NODES[3], "ovs-vsctl set Open_vSwitch . other_config:tc-policy=skip_hw")
    play = fleet.play("setup", "-e", "offload_serial=2")
    assert play.status == 2
    assert play.touched == play.hosts == set(NODES[:4])
    assert {host for host, result in play.of("check").items() if result["outcome"] == "ok"} == set(NODES[:3])
    assert set(play.failed) == {NODES[3]}
    assert play.failed[NODES[3]]["msg"].startswith("hardware offload is not ready here: ovs.tc-policy: skip_hw")
    now = fleet.states()
    assert_same({node: before[node] for node in NODES[4:]}, {node: now[node] for node in NODES[4:]})


def test_a_host_that_lacks_something_is_not_begun_nor_those_after_it(fleet: Fleet) -> None:
    """Open vSwitch does not run on the sixth."""
    fleet.ok(NODES[5], "systemctl stop openvswitch")
    play = fleet.play("setup", "-e", "offload_serial=1", "--limit", ":".join(NODES[5:7]))
    assert play.status == 2
    assert play.of("check")[NODES[5]]["msg"].startswith("hardware offload is not ready here: ovs.running: ")
    assert play.of("setup") == {}
    assert play.hosts == {NODES[5]}


def test_a_host_that_is_not_reached_stops_the_rollout_too(fleet: Fleet) -> None:
    fleet.inventory({NODES[0]: {"ansible_host": "192.0.2.200", "ansible_ssh_timeout": 2}})
    play = fleet.play("setup", "-e", "offload_serial=1", "--limit", "first")
    assert play.status == 2
    assert [one["host"] for one in play.tasks if one["outcome"] == "unreachable"] == [NODES[0]]
    assert play.of("setup") == {}
    assert {host: result["msg"] for host, result in play.failed.items()} == {
        NODES[1]: f"not begun: the batch of {NODES[0]} did not finish"
    }
    assert not play.hosts & set(NODES[2:])
