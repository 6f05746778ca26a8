# SPDX-License-Identifier: Apache-2.0
"""``asap2 host setup`` and ``undo`` in nodes, with the real programs around them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.schemas import answer
from tests.system.host.conftest import ADDRESS, PF, Hosts
from tests.system.patience import PATIENCE

SETUP = ("setup", "--vfs", "2", "--bridge", "br-int", "--representors")


def differing(before: Any, after: Any, where: str = "") -> list[str]:
    """What of two states is not the same, each thing with its place, for a reader of a failed test."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        return [words for key in keys for words in differing(before.get(key), after.get(key), f"{where}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            words for n, two in enumerate(zip(before, after, strict=True)) for words in differing(*two, f"{where}/{n}")
        ]
    return [] if before == after else [f"{where}: {before!r} became {after!r}"]


def assert_same(before: Any, after: Any) -> None:
    """Two states are the same."""
    found = differing(before, after)
    assert not found, "\n".join(found)


def test_one_command_from_a_fresh_node_to_offload_that_traffic_proves(both: Hosts) -> None:
    both.done("hv2", *SETUP, PF)
    both.hand_over("hv2", "vm2")
    before = both.state("hv1")
    done = both.host("hv1", *SETUP, "--verify", "10.57.0.2", "--address", "10.57.0.1/24", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    proof = answer(done.stdout)["verify"]
    assert (proof["vf"], proof["representor"], proof["offloaded"]) == (0, "eth0", True)
    for one in proof["results"]:
        assert (one["total"], one["offloaded"]) == (1000, True)
        assert one["by_host"] <= 10
    assert "10.57.0.1" not in both.ok("hv1", "ip addr show")
    both.done("hv1", "undo")
    assert_same(before, both.state("hv1"))


def test_a_proof_that_fails_is_told(lab: Hosts) -> None:
    done = lab.host("hv1", *SETUP, "--verify", "10.57.0.99", "--address", "10.57.0.1/24")
    assert done.returncode == 1
    assert "not verified: not all traffic is offloaded" in done.stdout
    assert lab.host("hv1", "check").returncode == 0
    again = lab.host("hv1", *SETUP, "--verify", "10.57.0.99")
    assert again.returncode == 1
    assert again.stderr == f"asap2: {PF}v0 has no address to send from: say one with --address, as 10.57.0.1/24\n"
    told = lab.host("hv1", *SETUP, "--verify", "10.57.0.99", "--json")
    assert (told.returncode, told.stderr) == (1, again.stderr)
    proof = answer(told.stdout)["verify"]
    assert proof == {"offloaded": False, "error": again.stderr.removeprefix("asap2: ").strip()}


@pytest.mark.parametrize("order", ["vfs-first", "switchdev-first"])
def test_undoing_brings_back_what_was_in_either_order(lab: Hosts, order: str) -> None:
    before = lab.state("hv1")
    lab.done("hv1", *SETUP, "--order", order)
    assert lab.host("hv1", "check").returncode == 0
    assert lab.state("hv1") != before
    lab.done("hv1", "undo")
    assert_same(before, lab.state("hv1"))


def test_setting_up_again_does_nothing(lab: Hosts) -> None:
    assert lab.data("hv1", *SETUP)["changed"] is True
    before = lab.state("hv1")
    pid = lab.ok("hv1", "cat /var/run/openvswitch/ovs-vswitchd.pid")
    again = lab.data("hv1", *SETUP)
    assert (again["changed"], again["steps"]) == (False, [])
    assert lab.state("hv1") == before
    assert lab.ok("hv1", "cat /var/run/openvswitch/ovs-vswitchd.pid") == pid


def test_a_dry_run_shows_the_commands_and_changes_nothing(lab: Hosts) -> None:
    before = lab.state("hv1")
    shown = lab.done("hv1", *SETUP, "--dry-run")
    assert f"echo 2 > /sys/bus/pci/devices/{ADDRESS}/sriov_numvfs" in shown
    assert f"devlink dev eswitch set pci/{ADDRESS} mode switchdev" in shown
    assert "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true" in shown
    assert lab.state("hv1") == before


def test_what_was_there_comes_back_with_its_attributes(lab: Hosts) -> None:
    """VFs with attributes in legacy mode, a bridge with the uplink, an option, a filter of somebody's."""
    lab.ok(
        "hv1",
        f"echo 3 > /sys/class/net/{PF}/device/sriov_numvfs; "
        f"ip link set {PF} vf 0 mac 02:00:00:00:00:01; ip link set {PF} vf 1 vlan 57; ip link set {PF} vf 2 trust on; "
        f"ip link set {PF} up mtu 9000; ip link set {PF}v2 up; "
        f"ovs-vsctl add-br br-ex -- add-port br-ex {PF} -- set Open_vSwitch . other_config:max-idle=12345; "
        "sleep 1; "  # Open vSwitch takes qdiscs away while it takes in a port
        f"tc qdisc add dev {PF} ingress; "
        f"tc filter add dev {PF} ingress prio 7 protocol arp flower skip_hw action pass",
    )
    before = lab.state("hv1")
    lab.done("hv1", "setup", "--vfs", "4", "--bridge", "br-int", "--representors", "--no-uplink")
    lab.ok("hv1", "ovs-vsctl set Open_vSwitch . other_config:n-revalidator-threads=1")
    lab.ok("hv1", "ovs-vsctl remove Open_vSwitch . other_config n-revalidator-threads")
    lab.done("hv1", "undo")
    assert_same(before, lab.state("hv1"))


def test_orphaned_filters_are_removed(lab: Hosts) -> None:
    """Offload is turned off by hand, and flows stay in TC: undoing takes them away, and nobody else's."""
    lab.ok("hv1", f"ovs-vsctl add-br br-ex -- add-port br-ex {PF}")
    before = lab.state("hv1")
    lab.done("hv1", "setup", "--vfs", "2")
    lab.ok("hv1", "ovs-vsctl remove Open_vSwitch . other_config hw-offload && systemctl restart openvswitch")
    add = f"tc filter add dev {PF} ingress protocol ip flower ip_proto 99 action drop"
    lab.ok("hv1", f"tc qdisc replace dev {PF} ingress; {add} cookie d3bbfb4f09cb4344913c0f266a6d9c1b")
    assert "fail" in [one["verdict"] for one in lab.data("hv1", "check")["findings"] if one["id"] == "tc.orphans"]
    lab.done("hv1", "undo")
    assert_same(before, lab.state("hv1"))


def test_two_pfs_of_one_nic(both: Hosts) -> None:
    before = both.state("hv2")
    both.done("hv2", "setup", "--vfs", "2", PF)
    both.done("hv2", "setup", "--vfs", "3", "--bridge", "br-two", "--representors", "enp3s0f1")
    pfs = {one["name"]: one for one in both.data("hv2", "status")["nics"]}
    assert (pfs[PF]["mode"], pfs[PF]["num_vfs"]) == ("switchdev", 2)
    assert (pfs["enp3s0f1"]["mode"], pfs["enp3s0f1"]["num_vfs"]) == ("switchdev", 3)
    assert {vf["bridge"] for vf in pfs["enp3s0f1"]["vfs"]} == {"br-two"}
    both.done("hv2", "undo")
    assert_same(before, both.state("hv2"))


def test_a_configuration_file_does_the_same(lab: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    path.write_text(
        f'[openvswitch]\nmax_idle = 30000\n[[nic]]\npf = "{ADDRESS}"\nvfs = 2\nbridge = "br-int"\nrepresentors = true\n'
        'representor_names = ["rep0", "rep1"]\n[[nic.vf]]\nindex = 1\nmac = "02:00:00:00:00:11"\n'
    )
    before = lab.state("hv1")
    lab.done("hv1", "setup", "--config", str(path))
    (nic,) = lab.data("hv1", "status")["nics"]
    assert [vf["representor"] for vf in nic["vfs"]] == ["rep0", "rep1"]
    assert nic["vfs"][1]["mac"] == "02:00:00:00:00:11"
    assert "link/ether 02:00:00:00:00:11" in lab.ok("hv1", f"ip link show {PF}v1")
    assert "30000" in lab.ok("hv1", "ovs-vsctl get Open_vSwitch . other_config:max-idle")
    assert lab.data("hv1", "setup", "--config", str(path))["changed"] is False
    lab.done("hv1", "undo")
    assert_same(before, lab.state("hv1"))


def test_a_step_that_fails_takes_all_back(lab: Hosts) -> None:
    lab.ok("hv1", "ip link add br-int type veth peer name br-other")  # so that no bridge can be called that
    try:
        before = lab.state("hv1")
        done = lab.host("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
        assert done.returncode == 1
        assert "everything is as it was before" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert_same(before, lab.state("hv1"))
    finally:
        lab.ok("hv1", "ip link del br-int")


def test_a_switch_that_offloads_already_keeps_its_ports_and_filters(lab: Hosts) -> None:
    lab.ok(
        "hv1",
        "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true && systemctl restart openvswitch; "
        f"ovs-vsctl add-br br-ex -- add-port br-ex {PF}; ip link set {PF} up",
    )
    before = lab.state("hv1")
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-ex", "--representors")
    assert lab.host("hv1", "check").returncode == 0
    lab.done("hv1", "undo")
    after = lab.state("hv1")
    for state in (before, after):
        state["tc"].pop("filters")  # flows come and go
    assert_same(before, after)


@pytest.mark.parametrize(
    ("prepare", "words", "sentence"),
    [
        ("true", ["--vfs", "99"], "enp3s0f0 has at most 8 VFs, not 99"),
        ("true", ["--vfs", "0"], "enp3s0f0 is to have at least 1 VF, not 0"),
        ("true", ["enp9s0"], "there is no PF 'enp9s0' here"),
        ("true", ["lo"], "lo is not a switchdev NIC"),
        ("true", ["--verify", "vm2"], "--verify takes an IP address, not 'vm2'"),
        ("true", ["--verify", "10.57.0.2", "--address", "10.57.0.1"], "10.57.0.2 cannot be reached from 10.57.0.1"),
        ("true", ["--address", "10.57.0.1/24"], "--address is for --verify PEER"),
        ("true", ["--order", "random"], "is to be one of auto, vfs-first, switchdev-first"),
        (
            "systemctl stop openvswitch",
            [],
            "Open vSwitch is not running; `systemctl start openvswitch-switch` starts it",
        ),
        (
            f"ip addr add 192.0.2.1/24 dev {PF} && ip link set {PF} up && ip route add default via 192.0.2.2",
            [],
            "this host is reached over enp3s0f0 (default route or SSH), and would be cut off; --force does it",
        ),
        (
            f"echo 2 > /sys/class/net/{PF}/device/sriov_numvfs && ip link set {PF}v1 netns vm1",
            [],
            "VF 1 of enp3s0f0 (0000:03:00.3) is in use by a guest (its network device enp3s0f0v1 is in the namespace "
            "vm1)",
        ),
        (
            "ovs-vsctl add-br br-dp -- set bridge br-dp datapath_type=netdev",
            ["--bridge", "br-dp"],
            "bridge br-dp has the datapath netdev",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(
    lab: Hosts, prepare: str, words: list[str], sentence: str
) -> None:
    lab.ok("hv1", prepare)
    try:
        before = lab.state("hv1")
        done = lab.host("hv1", "setup", *words)
        assert done.returncode in (1, 2)
        assert sentence in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert lab.state("hv1") == before
    finally:
        lab.ok("hv1", f"ip addr flush dev {PF}; ip route flush default; true")


def test_a_wrong_configuration_changes_nothing(lab: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    path.write_text(f'[[nic]]\npf = "{PF}"\nnumber_of_vfs = 3\n')
    before = lab.state("hv1")
    done = lab.host("hv1", "setup", "--config", str(path))
    assert done.returncode == 2
    assert "unknown key 'number_of_vfs' in nic[0]" in done.stderr
    assert lab.state("hv1") == before


def test_undoing_with_a_guest_on_a_vf_is_refused(lab: Hosts) -> None:
    lab.done("hv1", *SETUP)
    lab.ok("hv1", f"ip link set {PF}v1 netns vm1")
    before = lab.state("hv1")
    done = lab.host("hv1", "undo", "--force")
    assert done.returncode == 1
    assert "VF 1 of enp3s0f0 (0000:03:00.3) is in use by a guest" in done.stderr
    assert lab.state("hv1") == before
    lab.ok("hv1", f"echo {ADDRESS[:-1]}3 > /sys/bus/pci/drivers/mlx5_core/unbind")


def test_undoing_without_a_set_up_does_nothing(lab: Hosts) -> None:
    before = lab.state("hv1")
    assert lab.data("hv1", "undo") | {"seconds": 0} == {
        "schema": "urn:asap2:host-undo:1",
        "changed": False,
        "removed": [],
        "left": [],
        "changes": [],
        "steps": [],
        "seconds": 0,
    }
    assert lab.state("hv1") == before


def test_the_page_shows_guests_and_what_passed_the_host_by(both: Hosts) -> None:
    both.done("hv2", *SETUP, PF)
    both.done("hv1", *SETUP)
    both.hand_over("hv1", "vm1")
    both.hand_over("hv2", "vm2")
    both.ok("hv1", "ovs-vsctl set interface eth1 external_ids:vm-uuid=8e2c -- set port eth1 tag=57")
    both.ok("hv2", "ovs-vsctl set port eth1 tag=57")
    both.ping("vm1", "10.57.0.2", 100)
    data = both.data("hv1", "status")
    vf = data["nics"][0]["vfs"][1]
    assert (vf["guest"], vf["vlan"], vf["representor"], vf["bridge"]) == ("server 8e2c", 57, "eth1", "br-int")
    assert vf["tx_packets"] >= 100
    assert vf["host_packets"] < 20
    assert data["flows"]["in_hardware"] >= 2
    page = both.done("hv1", "status")
    assert "hv1" in page
    assert "server 8e2c" in page
    watching = both.start(
        "hv1", sys.executable, "-m", "asap2.cli.main", "host", "status", "--watch", "--json", "--interval", "0.2"
    )
    assert watching.stdout is not None
    pages = [answer(watching.stdout.readline()) for _ in range(2)]
    watching.terminate()
    watching.communicate(timeout=PATIENCE)
    assert [page["host"] for page in pages] == ["hv1", "hv1"]
