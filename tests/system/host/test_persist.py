# SPDX-License-Identifier: Apache-2.0
"""``asap2 host persist``: what comes back when a node boots, in the order in which systemd would start it."""

from __future__ import annotations

import re
import shlex
from typing import Any

from tests.system.host.conftest import ADDRESS, PF, Hosts
from tests.system.host.test_setup import assert_same

UNIT = "/etc/systemd/system/asap2-host.service"
SWITCH_UNITS = ("ovsdb-server", "ovs-vswitchd")


def boot(lab: Hosts, node: str) -> None:
    """What a boot does: Open vSwitch is gone, the NIC is new, and then the units start, each after those that it
    names."""
    lab.ok(node, "systemctl stop openvswitch")
    lab.ok(
        node,
        f"echo {ADDRESS} > /sys/bus/pci/drivers/mlx5_core/unbind; echo {ADDRESS} > /sys/bus/pci/drivers/mlx5_core/bind",
    )
    assert lab.ok(node, f"cat /sys/class/net/{PF}/device/sriov_numvfs").strip() == "0"
    for unit in order(lab, node):
        if unit == "asap2-host":
            (command,) = re.findall(r"^ExecStart=(.*)$", lab.ok(node, f"cat {UNIT}"), re.MULTILINE)
            lab.ok(node, shlex.join(shlex.split(command)))
        else:
            lab.ok(node, f"systemctl start {unit}")


def order(lab: Hosts, node: str) -> list[str]:
    """The units that are enabled or wanted, in the order that their After= and Before= ask for."""
    wanted = ["asap2-host"] if "asap2-host" in lab.ok(node, "ls /etc/systemd/system/multi-user.target.wants") else []
    units = [*wanted, *SWITCH_UNITS]
    after: dict[str, set[str]] = {unit: set() for unit in units}
    for unit in units:
        path = UNIT if unit == "asap2-host" else f"/lib/systemd/system/{unit}.service"
        for key, words in re.findall(r"^(After|Before)=(.*)$", lab.ok(node, f"cat {path}"), re.MULTILINE):
            for other in words.split():
                other = other.removesuffix(".service")
                if other in after:
                    after[unit if key == "After" else other].add(other if key == "After" else unit)
    ordered: list[str] = []
    while left := [unit for unit in units if unit not in ordered]:
        ordered.append(next(unit for unit in left if after[unit] <= set(ordered)))
    return ordered


def kept(state: dict[str, Any]) -> dict[str, Any]:
    """What of a state is to be the same after a boot: not the VFs' own random MACs, nor which flows there are."""
    for link in state["links"].values():
        link.pop("address", None)
    state["tc"].pop("filters")
    for interface in state["ovsdb"]["Interface"]:
        for key in ("mac_in_use", "ofport", "external_ids"):
            interface.pop(key)
    state["ovsdb"]["Interface"].sort(key=lambda row: row["name"])
    for row in state["ovsdb"]["Datapath"]:
        row.pop("capabilities", None)
    return state


def test_after_a_boot_everything_is_as_it_was_kept(lab: Hosts) -> None:
    lab.done("hv1", "setup", "--vfs", "3", "--bridge", "br-int", "--representors")
    lab.ok("hv1", f"ip link set {PF} vf 2 mac 02:00:00:00:00:22")
    for old, new in (("eth0", "eth9"), ("eth1", "eth0"), ("eth9", "eth1"), ("eth2", "rep2")):
        lab.ok("hv1", f"ip link set {old} down; ip link set {old} name {new}; ip link set {new} up")
    lab.ok("hv1", "ovs-vsctl del-port eth2 -- add-port br-int rep2")
    lab.done("hv1", "persist")
    before = kept(lab.state("hv1"))
    assert order(lab, "hv1").index("asap2-host") < order(lab, "hv1").index("ovs-vswitchd")

    boot(lab, "hv1")
    assert_same(before, kept(lab.state("hv1")))
    assert lab.host("hv1", "check").returncode == 0
    names = [vf["representor"] for vf in lab.data("hv1", "status")["nics"][0]["vfs"]]
    assert names == ["eth1", "eth0", "rep2"]


def test_without_it_a_boot_forgets(lab: Hosts) -> None:
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    lab.done("hv1", "persist")
    files = lab.done("hv1", "persist", "--remove")
    assert UNIT in files
    assert "asap2" not in lab.ok("hv1", "ls /etc/systemd/system /etc/systemd/system/multi-user.target.wants")
    boot(lab, "hv1")
    assert lab.data("hv1", "check")["verdict"] == "fail"


def test_undoing_removes_it_too_even_after_a_boot(lab: Hosts) -> None:
    before = lab.state("hv1")
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    lab.done("hv1", "persist")
    boot(lab, "hv1")
    assert UNIT in lab.done("hv1", "undo")
    assert_same(before, lab.state("hv1"))
    assert lab.run("hv1", f"ls {UNIT} /etc/udev/rules.d/82-asap2-host.rules /etc/asap2").stdout == ""


def test_a_dry_run_tells_what_it_would_write_or_remove_and_does_not(lab: Hosts) -> None:
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    would = lab.data("hv1", "persist", "--dry-run")
    assert lab.run("hv1", f"ls {UNIT}").returncode
    written = lab.data("hv1", "persist")
    assert (written["changed"], written["files"]) == (True, would["files"])
    assert UNIT in [one["path"] for one in written["files"]]
    assert all(lab.ok("hv1", f"test -e {one['path']}") == "" for one in written["files"])
    again = lab.data("hv1", "persist")
    assert (again["changed"], again["files"]) == (False, [])
    for verb in (["persist", "--remove"], ["undo"]):
        assert UNIT in lab.done("hv1", *verb, "--dry-run")
        assert lab.ok("hv1", f"ls {UNIT}")
    removed = lab.data("hv1", "persist", "--remove")
    assert {one["path"] for one in removed["files"]} == {one["path"] for one in written["files"]}
    assert lab.run("hv1", f"ls {UNIT}").returncode


def test_nothing_is_kept_where_nothing_is_set_up(lab: Hosts) -> None:
    done = lab.host("hv1", "persist")
    assert done.returncode == 1
    assert done.stderr.startswith("asap2: no NIC is in switchdev mode")
    assert "nothing to remove" in lab.done("hv1", "persist", "--remove")


def test_the_rules_for_udev_name_what_is_there(lab: Hosts) -> None:
    """Each rule's matches are looked up in sysfs, as udev would for the device that it is for."""
    lab.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    lab.ok("hv1", "ip link set eth1 down; ip link set eth1 name rep1; ip link set rep1 up")
    lab.done("hv1", "persist")
    rules = lab.ok("hv1", "cat /etc/udev/rules.d/82-asap2-host.rules").splitlines()
    (named,) = [rule for rule in rules if "NAME=" in rule and not rule.startswith("#")]
    matches = dict(re.findall(r"ATTR\{(\w+)\}==\"([^\"]*)\"", named))
    for attribute, value in matches.items():
        assert lab.ok("hv1", f"cat /sys/class/net/rep1/{attribute}").strip() == value
    assert named.endswith('NAME="rep1"')
