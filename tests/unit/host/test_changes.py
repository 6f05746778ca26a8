# SPDX-License-Identifier: Apache-2.0
"""What a plan changes, from its steps on a model host."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asap2.host.inventory import Eswitch, Host, OpenVSwitch, Pf, Qdisc, Vf
from asap2.host.setup.changes import Change, changes
from asap2.host.setup.run import prepare, prepare_undo, setup
from asap2.host.setup.steps import AddIngress, AddPorts, DeletePorts, PortRef, SetDrivers, SetEswitch, SetParam, SetVfs
from tests.unit.host.hosts import fresh
from tests.unit.host.machine import Model
from tests.unit.host.test_setup import Quiet, nic, wanted

ADDRESS = "0000:03:00.0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "asap2" / "undo.json"


def by_name(found: tuple[Change, ...]) -> dict[str, tuple[str, str]]:
    """Changes by what they change."""
    return {one.what: (one.before, one.after) for one in found}


def test_a_fresh_host_changes_to_what_is_wanted(path: Path) -> None:
    found = by_name(prepare(wanted(), Model([nic()]), path=path).changes)
    assert found[f"{ADDRESS} VFs"] == ("0", "4")
    assert found[f"{ADDRESS} eSwitch mode"] == ("legacy", "switchdev")
    assert found["enp3s0f0 hw-tc-offload"] == ("off", "on")
    assert found["Open_vSwitch other_config:hw-offload"] == ("not set", "true")
    assert found["bridge br-int"] == ("absent", "present")
    assert found["bridge br-int port enp3s0f0"] == ("absent", "present")
    assert found[f"<representor of VF 3 of {ADDRESS}> hw-tc-offload"] == ("absent", "on")
    assert any(what.startswith("service ") for what in found)


def test_undoing_changes_back_what_setting_up_changed(path: Path) -> None:
    model = Model([nic()])
    there = by_name(prepare(wanted(), model, path=path).changes)
    setup(wanted(), model, Quiet(), path=path)
    planned = prepare_undo(model, path=path)
    assert planned is not None
    back = by_name(planned.changes)
    for what in (f"{ADDRESS} VFs", f"{ADDRESS} eSwitch mode", "enp3s0f0 hw-tc-offload", "bridge br-int"):
        assert back[what] == there[what][::-1]


def test_what_is_so_already_changes_nothing(path: Path) -> None:
    model = Model([nic()])
    setup(wanted(), model, Quiet(), path=path)
    assert prepare(wanted(), model, path=path).changes == ()


def host() -> Host:
    """A host with a PF that has two VFs, the second with vfio-pci."""
    vfs = (Vf(0, "0000:03:00.2", driver="mlx5_core"), Vf(1, "0000:03:00.3", driver="vfio-pci"))
    pf = Pf(ADDRESS, 0x15B3, 0x1017, num_vfs=2, eswitch=Eswitch("legacy"), params=(("p", "a"),), vfs=vfs)
    return dataclasses.replace(fresh(), pfs=(pf,), openvswitch=OpenVSwitch(), qdiscs=(Qdisc("eth9", "ingress"),))


def test_states_on_the_way_do_not_count() -> None:
    steps = (
        SetDrivers(ADDRESS, ((None, None), (None, None)), "mlx5_core"),
        SetEswitch(ADDRESS, "mode", "switchdev"),
        SetVfs(ADDRESS, 0),
        SetVfs(ADDRESS, 2),
        SetDrivers(ADDRESS, (("mlx5_core", None), ("mlx5_core", None)), "mlx5_core"),
        AddPorts("br0", (PortRef(ADDRESS, "uplink", 0, "eth0"),)),
        DeletePorts("br0", ("eth0",)),
    )
    assert changes(host(), steps) == (
        Change(f"{ADDRESS} VF 1 driver", "vfio-pci", "mlx5_core"),
        Change(f"{ADDRESS} eSwitch mode", "legacy", "switchdev"),
    )


def test_an_ingress_qdisc_that_is_there_is_no_change() -> None:
    steps = (AddIngress((Qdisc("eth8", "clsact"), Qdisc("eth9", "ingress"))), SetParam(ADDRESS, "p", "b"))
    assert changes(host(), steps) == (
        Change("eth8 clsact qdisc", "absent", "present"),
        Change(f"{ADDRESS} p", "a", "b"),
    )


@given(st.lists(st.integers(0, 8), max_size=6))
@settings(max_examples=50)
def test_the_last_of_several_counts(numbers: list[int]) -> None:
    found = changes(host(), [SetVfs(ADDRESS, number) for number in numbers])
    last = numbers[-1] if numbers else 2
    assert found == (() if last == 2 else (Change(f"{ADDRESS} VFs", "2", str(last)),))
