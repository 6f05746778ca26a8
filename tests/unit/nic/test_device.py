# SPDX-License-Identifier: Apache-2.0
"""The driver's state machine: what each operation does, in which order, and which errors it gives."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable

import pytest

from asap2.nic.device import Driver, DriverError
from asap2.nic.function import EswitchMode, LinkState
from tests.unit.nic.backend import RecordingBackend, booted, nic, refused

PF = "0000:03:00.0"
VFS = ["0000:03:00.2", "0000:03:00.3", "0000:03:00.4", "0000:03:00.5"]


@pytest.fixture
def made() -> tuple[Driver, RecordingBackend]:
    return booted()


# ---- numvfs


def test_enabling_vfs_makes_and_binds_them(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    driver.set_numvfs(PF, 4)
    assert backend.take() == [*(f"create enp3s0f0v{i}" for i in range(4)), "program enp3s0f0 legacy 4"]
    assert [vf.bdf for vf in driver.nics[0].pfs[0].vfs] == VFS
    assert all(vf.bound for vf in driver.nics[0].pfs[0].vfs)


def test_without_autoprobe_new_vfs_stay_unbound(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    driver.set_autoprobe(PF, False)
    driver.set_numvfs(PF, 2)
    assert backend.take() == ["program enp3s0f0 legacy 2"]
    assert not any(vf.bound for vf in driver.nics[0].pfs[0].vfs)


@pytest.mark.parametrize(
    ("present", "asked", "number"),
    [(4, 2, errno.EBUSY), (4, 8, errno.EBUSY), (0, 9, errno.ERANGE), (0, -1, errno.ERANGE), (4, 9, errno.ERANGE)],
)
def test_a_number_of_vfs_that_cannot_be_is_refused_and_nothing_changes(
    made: tuple[Driver, RecordingBackend], present: int, asked: int, number: int
) -> None:
    driver, backend = made
    driver.set_numvfs(PF, present)
    backend.take()
    generation = driver.generation
    with refused(number):
        driver.set_numvfs(PF, asked)
    assert (len(driver.nics[0].pfs[0].vfs), backend.take(), driver.generation) == (present, [], generation)


def test_the_present_number_of_vfs_changes_nothing(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    driver.set_numvfs(PF, 2)
    backend.take()
    driver.set_numvfs(PF, 2)
    assert backend.take() == []


def test_vfs_go_with_their_attributes(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 2)
    driver.set_vf_mac(pf, 1, bytes.fromhex("020000000001"))
    backend.take()
    driver.set_numvfs(PF, 0)
    assert backend.take() == ["destroy enp3s0f0v0", "destroy enp3s0f0v1", "program enp3s0f0 legacy 0"]
    driver.set_numvfs(PF, 2)
    assert pf.vfs[1].mac == bytes(6)


@pytest.mark.parametrize("fails", ["create rep pf0vf1", "create enp3s0f0v1"])
def test_vfs_that_cannot_all_be_made_are_none(made: tuple[Driver, RecordingBackend], fails: str) -> None:
    driver, backend = made
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    backend.fails = fails
    with refused(errno.EEXIST):
        driver.set_numvfs(PF, 3)
    assert driver.nics[0].pfs[0].vfs == []
    undone = {call.removeprefix("destroy ") for call in backend.done if call.startswith("destroy")}
    assert {call.removeprefix("create ") for call in backend.done if call.startswith("create")} - undone <= {fails[7:]}
    backend.fails = ""
    driver.set_numvfs(PF, 3)


def test_an_unbound_pf_takes_no_vfs(made: tuple[Driver, RecordingBackend]) -> None:
    driver, _ = made
    driver.unbind(PF)
    with refused(errno.ENOENT):
        driver.set_numvfs(PF, 1)
    driver.set_numvfs(PF, 0)


# ---- binding


def test_binding_and_unbinding_errors_are_those_of_the_bus(made: tuple[Driver, RecordingBackend]) -> None:
    driver, _ = made
    driver.set_numvfs(PF, 1)
    for bdf in ("0000:03:00.7", "", "nonsense"):
        with refused(errno.ENODEV):
            driver.bind(bdf)
        with refused(errno.ENODEV):
            driver.unbind(bdf)
    with refused(errno.EBUSY):
        driver.bind(VFS[0])
    driver.unbind(VFS[0])
    with refused(errno.ENODEV):
        driver.unbind(VFS[0])


def test_another_drivers_override_keeps_a_function_from_this_one(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    driver.set_numvfs(PF, 1)
    driver.unbind(VFS[0])
    driver.set_driver_override(VFS[0], "vfio-pci")
    backend.take()
    with refused(errno.ENODEV):
        driver.bind(VFS[0])
    driver.probe(VFS[0])
    assert backend.take() == []
    driver.set_driver_override(VFS[0], "")
    driver.probe(VFS[0])
    assert backend.take()[0] == "create enp3s0f0v0"
    driver.probe(VFS[0])
    assert backend.take() == []
    with refused(errno.ENODEV):
        driver.probe("0000:07:00.0")


def test_the_order_of_the_getting_started_page(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    driver.set_numvfs(PF, 4)
    backend.take()
    for bdf in VFS:
        driver.unbind(bdf)
    assert backend.take() == [f"destroy enp3s0f0v{i}" for i in range(4)]
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    assert backend.take() == [*(f"create rep pf0vf{i}" for i in range(4)), "program enp3s0f0 switchdev 4"]
    for place, bdf in enumerate(VFS):
        driver.bind(bdf)
        assert backend.take() == [f"create enp3s0f0v{place}", "program enp3s0f0 switchdev 4"]


def test_unbinding_the_pf_ends_sriov_and_switchdev(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    driver.set_numvfs(PF, 1)
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    backend.take()
    driver.unbind(PF)
    assert backend.take() == [
        "destroy enp3s0f0v0",
        "destroy rep pf0vf0",
        "program enp3s0f0 switchdev 0",
        "program enp3s0f0 legacy 0",
        "destroy enp3s0f0",
    ]
    assert [found.bdf for found in driver.functions()] == [PF]
    with refused(errno.ENODEV):
        driver.eswitch(PF)
    driver.bind(PF)
    assert backend.take() == ["create enp3s0f0", "program enp3s0f0 legacy 0"]


# ---- eSwitch mode


def test_switchdev_first_and_vfs_later_works_too(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    assert backend.take() == ["program enp3s0f0 switchdev 0"]
    driver.set_numvfs(PF, 1)
    assert backend.take() == ["create rep pf0vf0", "create enp3s0f0v0", "program enp3s0f0 switchdev 1"]


def test_the_present_mode_changes_nothing(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    driver.set_mode(PF, EswitchMode.LEGACY)
    assert backend.take() == []


def test_back_to_legacy_removes_representors_and_what_was_theirs(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 1)
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    assert [vf.link_state for vf in pf.vfs] == [LinkState.DISABLE]
    pf.hw_tc_offload.update(uplink=True, rep0=True)
    backend.take()
    driver.set_mode(PF, EswitchMode.LEGACY)
    assert backend.take() == ["destroy rep pf0vf0", "program enp3s0f0 legacy 1"]
    assert [vf.link_state for vf in pf.vfs] == [LinkState.AUTO]
    assert pf.hw_tc_offload == {"uplink": True}


def test_the_mode_cannot_change_while_rules_are_offloaded(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    backend.take()
    backend.rules = 1
    with pytest.raises(DriverError, match="E-Switch is busy") as failure:
        driver.set_mode(PF, EswitchMode.LEGACY)
    assert failure.value.errno == errno.EBUSY
    assert (backend.take(), driver.nics[0].pfs[0].mode) == ([], EswitchMode.SWITCHDEV)


def test_a_mode_whose_representors_cannot_be_made_is_not_taken(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 2)
    backend.fails = "create rep pf0vf1"
    with pytest.raises(DriverError, match="Failed setting eswitch to offloads") as failure:
        driver.set_mode(PF, EswitchMode.SWITCHDEV)
    assert failure.value.errno == errno.EEXIST
    assert (pf.mode, [vf.link_state for vf in pf.vfs]) == (EswitchMode.LEGACY, [LinkState.AUTO] * 2)
    assert "destroy rep pf0vf0" in backend.done


def test_functions_without_an_eswitch_say_so(made: tuple[Driver, RecordingBackend]) -> None:
    driver, _ = made
    driver.set_numvfs(PF, 1)
    with refused(errno.EOPNOTSUPP):
        driver.set_mode(VFS[0], EswitchMode.SWITCHDEV)
    with refused(errno.ENODEV):
        driver.set_mode("0000:09:00.0", EswitchMode.SWITCHDEV)
    plain, _ = booted(nic(total_vfs=0))
    with refused(errno.EOPNOTSUPP):
        plain.set_mode(PF, EswitchMode.SWITCHDEV)


def test_inline_headers_can_be_set_where_the_nic_needs_them() -> None:
    driver, backend = booted(nic("ConnectX-4 Lx"))
    driver.set_inline_mode(PF, 3)
    assert driver.nics[0].pfs[0].inline_mode == 3
    driver.set_inline_mode(PF, 0)
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    assert driver.nics[0].pfs[0].inline_mode == 1  # what its queues need at least
    backend.rules = 1
    with pytest.raises(DriverError, match="when flows are configured"):
        driver.set_inline_mode(PF, 1)
    driver, _ = booted()
    driver.set_inline_mode(PF, 0)
    with pytest.raises(DriverError, match="can't be set"):
        driver.set_inline_mode(PF, 1)


def test_encapsulation_can_be_forbidden_but_not_given_to_a_nic_without_it() -> None:
    driver, backend = booted()
    driver.set_encap(PF, False)
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    backend.rules = 1
    driver.set_encap(PF, False)
    with pytest.raises(DriverError, match="when flows are configured"):
        driver.set_encap(PF, True)
    driver, _ = booted(nic("ConnectX-4 Lx"))
    with refused(errno.EOPNOTSUPP):
        driver.set_encap(PF, True)


def test_each_port_has_an_eswitch_of_its_own() -> None:
    driver, backend = booted(nic(ports=2, total_vfs=2))
    driver.set_numvfs("0000:03:00.1", 1)
    driver.set_mode("0000:03:00.1", EswitchMode.SWITCHDEV)
    assert [pf.mode for pf in driver.nics[0].pfs] == [EswitchMode.LEGACY, EswitchMode.SWITCHDEV]
    assert "create rep pf1vf0" in backend.take()


# ---- VF attributes


def test_attributes_of_a_vf_that_is_not_are_refused(made: tuple[Driver, RecordingBackend]) -> None:
    driver, _ = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 2)
    calls: list[Callable[[int], None]] = [
        lambda n: driver.set_vf_mac(pf, n, bytes(6)),
        lambda n: driver.set_vf_vlan(pf, n, 1, 0, 0x8100),
        lambda n: driver.set_vf_flag(pf, n, "trust", True),
        lambda n: driver.set_vf_link_state(pf, n, 1),
        lambda n: driver.set_vf_rate(pf, n, 0, 100),
        lambda n: driver.set_vf_guid(pf, n),
    ]
    for call in calls:
        for index in (-1, 2, 0xFFFF_FFFF):
            with refused(errno.EINVAL):
                call(index)


def test_vf_attributes_are_kept(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 1)
    backend.take()
    mac = bytes.fromhex("fa163eb9b8ce")
    driver.set_vf_mac(pf, 0, mac)
    driver.set_vf_vlan(pf, 0, 57, 3, 0x8100)
    driver.set_vf_flag(pf, 0, "spoofchk", True)
    driver.set_vf_flag(pf, 0, "trust", True)
    driver.set_vf_link_state(pf, 0, LinkState.ENABLE)
    assert backend.take() == ["program enp3s0f0 legacy 1"] * 5
    driver.set_vf_rate(pf, 0, 10, 100)
    vf = pf.vfs[0]
    assert (vf.mac, vf.vlan, vf.qos, vf.spoofchk, vf.trust, vf.link_state) == (mac, 57, 3, True, True, LinkState.ENABLE)
    assert (vf.min_tx_rate, vf.max_tx_rate) == (10, 100)


def test_values_that_no_vf_can_have_are_refused(made: tuple[Driver, RecordingBackend]) -> None:
    driver, _ = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 1)
    for mac in (bytes.fromhex("010000000001"), b"\xff" * 6, b"", bytes(5)):
        with refused(errno.EINVAL):
            driver.set_vf_mac(pf, 0, mac)
    for vlan, qos, proto, number in (
        (4096, 0, 0x8100, errno.EINVAL),
        (1, 8, 0x8100, errno.EINVAL),
        (1, 0, 0x88A8, errno.EPROTONOSUPPORT),
    ):
        with refused(number):
            driver.set_vf_vlan(pf, 0, vlan, qos, proto)
    with refused(errno.EPROTONOSUPPORT):  # the tag is looked at before the VF
        driver.set_vf_vlan(pf, 9, 1, 0, 0x88A8)
    with refused(errno.EINVAL):
        driver.set_vf_link_state(pf, 0, 3)
    with refused(errno.EINVAL):
        driver.set_vf_rate(pf, 0, 200, 100)
    with refused(errno.EOPNOTSUPP):
        driver.set_vf_guid(pf, 0)


def test_in_switchdev_mode_the_vlan_is_the_representors_but_clearing_it_is_allowed(
    made: tuple[Driver, RecordingBackend],
) -> None:
    driver, _ = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 1)
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    with refused(errno.EOPNOTSUPP):
        driver.set_vf_vlan(pf, 0, 57, 0, 0x8100)
    driver.set_vf_vlan(pf, 0, 0, 0, 0x8100)


@pytest.mark.parametrize("name", ["spoofchk", "trust"])
def test_in_switchdev_mode_flags_and_link_state_cannot_be_set(made: tuple[Driver, RecordingBackend], name: str) -> None:
    driver, backend = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 1)
    driver.set_vf_flag(pf, 0, name, True)
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    backend.take()
    with refused(errno.EOPNOTSUPP):
        driver.set_vf_flag(pf, 0, name, False)
    with refused(errno.EOPNOTSUPP):
        driver.set_vf_link_state(pf, 0, LinkState.ENABLE)
    assert (getattr(pf.vfs[0], name), pf.vfs[0].link_state, backend.take()) == (True, LinkState.DISABLE, [])


def test_what_vfs_keep_over_a_change_of_mode_and_what_they_lose(made: tuple[Driver, RecordingBackend]) -> None:
    driver, _ = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 1)
    mac, vf = bytes.fromhex("fa163eb9b8ce"), pf.vfs[0]
    driver.set_vf_mac(pf, 0, mac)
    driver.set_vf_vlan(pf, 0, 57, 3, 0x8100)
    driver.set_vf_flag(pf, 0, "spoofchk", True)
    driver.set_vf_flag(pf, 0, "trust", True)
    for mode, link_state in ((EswitchMode.SWITCHDEV, LinkState.DISABLE), (EswitchMode.LEGACY, LinkState.AUTO)):
        driver.set_vf_rate(pf, 0, 10, 100)
        driver.set_mode(PF, mode)
        assert (vf.mac, vf.vlan, vf.qos, vf.spoofchk, vf.trust) == (mac, 57, 3, True, True)
        assert (vf.min_tx_rate, vf.max_tx_rate, vf.link_state) == (0, 0, link_state)


def test_a_vfs_link_follows_its_representor(made: tuple[Driver, RecordingBackend]) -> None:
    driver, backend = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 1)
    backend.take()
    driver.follow_representor(pf.vfs[0], True)
    assert (pf.vfs[0].link_state, backend.take()) == (LinkState.AUTO, [])  # legacy mode knows no representors
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    backend.take()
    for up, state in ((True, LinkState.ENABLE), (False, LinkState.DISABLE)):
        driver.follow_representor(pf.vfs[0], up)
        driver.follow_representor(pf.vfs[0], up)
        assert (pf.vfs[0].link_state, backend.take()) == (state, ["program enp3s0f0 switchdev 1"])


# ---- keeping


def test_a_snapshot_as_json_restores_all_without_touching_a_device(
    made: tuple[Driver, RecordingBackend],
) -> None:
    driver, backend = made
    pf = driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 3)
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    driver.set_vf_mac(pf, 2, bytes.fromhex("fa163eb9b8ce"))
    driver.follow_representor(pf.vfs[2], True)
    driver.unbind(VFS[1])
    driver.set_driver_override(VFS[1], "vfio-pci")
    pf.hw_tc_offload["rep2"] = True
    saved = json.loads(json.dumps(driver.snapshot()))
    backend.take()

    other_backend = RecordingBackend()
    other = Driver([nic()], other_backend, lambda _pf: 0)
    other.restore(saved)
    assert other_backend.done == []
    for one, same in zip(other.functions(), driver.functions(), strict=True):
        tree = ("nic", "pf", "vfs")
        assert {k: v for k, v in vars(one).items() if k not in tree} == {
            k: v for k, v in vars(same).items() if k not in tree
        }
    assert other.snapshot() == saved


def test_state_of_a_nic_that_is_gone_is_ignored(made: tuple[Driver, RecordingBackend]) -> None:
    driver, _ = made
    driver.restore({"another": []})
    assert driver.nics[0].pfs[0].bound


def test_every_change_moves_the_generation(made: tuple[Driver, RecordingBackend]) -> None:
    driver, _ = made
    pf = driver.nics[0].pfs[0]
    changes: list[Callable[[], None]] = [
        lambda: driver.set_numvfs(PF, 2),
        lambda: driver.set_mode(PF, EswitchMode.SWITCHDEV),
        lambda: driver.set_vf_mac(pf, 0, bytes(6)),
        lambda: driver.unbind(VFS[0]),
        lambda: driver.bind(VFS[0]),
        lambda: driver.set_driver_override(VFS[0], "x"),
        lambda: driver.set_autoprobe(PF, False),
        lambda: driver.set_vf_rate(pf, 0, 0, 5),
    ]
    for change in changes:
        before = driver.generation
        change()
        assert driver.generation > before
