# SPDX-License-Identifier: Apache-2.0
"""What is refused, in one sentence, before anything changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asap2.errors import Asap2Error, UsageError
from asap2.host.inventory import Bridge, Host, Interface, OpenVSwitch, Pf, Port, Vf
from asap2.host.setup.journal import Journal
from asap2.host.setup.plan import plan
from asap2.host.setup.restore import restore_target
from asap2.host.setup.target import RefusedError, setup_target, with_default
from asap2.host.setup.wanted import Nic, Switch, VfWanted, Wanted, as_toml, load
from tests.unit.host.hosts import (
    ADDRESS,
    PF,
    fresh,
    offloading,
    port,
    with_netdev,
    with_pf,
    with_switch,
)


def wish(**more: object) -> Wanted:
    """A wish for the one NIC."""
    return Wanted((Nic(PF, **more),))  # type: ignore[arg-type]


def legacy(**vf: object) -> Host:
    """A host in legacy mode with one VF."""
    host = offloading(1)
    one = dataclasses.replace(host.pfs[0].vfs[0], **vf)  # type: ignore[arg-type]
    return with_switch(with_pf(host, eswitch=fresh().pfs[0].eswitch, vfs=(one,)), other_config=(), bridges=())


REFUSALS = [
    (fresh(), wish(vfs=99), "enp3s0f0 has at most 8 VFs, not 99"),
    (fresh(), Wanted((Nic("eth7"),)), "there is no PF 'eth7' here; such PFs here: enp3s0f0 (0000:03:00.0)"),
    (
        with_pf(fresh(), eswitch=None, eswitch_refusal="Operation not supported", driver="ixgbe"),
        wish(),
        "enp3s0f0 (ixgbe) is not a switchdev NIC: Operation not supported",
    ),
    (
        with_pf(fresh(), driver=None, eswitch=None),
        wish(),
        "0000:03:00.0 has no driver: `echo 0000:03:00.0 > /sys/bus/pci/drivers_probe` binds it",
    ),
    (
        with_pf(fresh(), total_vfs=0),
        wish(),
        "enp3s0f0 has no VFs to offer: SR-IOV is off in its firmware; see `asap2 host check`",
    ),
    (
        legacy(driver="vfio-pci", netdev=None, opened_by="qemu-kvm, pid 412"),
        wish(),
        "VF 0 of enp3s0f0 (0000:03:00.2) is in use by a guest (qemu-kvm, pid 412); stop it first",
    ),
    (
        legacy(netdev=None),
        wish(vfs=2),
        "VF 0 of enp3s0f0 (0000:03:00.2) is in use by a guest (its network device is in another namespace); "
        "stop it first",
    ),
    (
        with_netdev(legacy(), "enp3s0f0v0", addresses=("10.0.0.1/24",)),
        wish(),
        "VF 0 of enp3s0f0 (enp3s0f0v0) is in use by this host, it has the address 10.0.0.1/24; --force takes it away",
    ),
    (
        with_switch(fresh(), database=False, running=False),
        wish(),
        "Open vSwitch is not running; `systemctl start openvswitch-switch` starts it",
    ),
    (
        dataclasses.replace(fresh(), openvswitch=OpenVSwitch()),
        wish(),
        "Open vSwitch is not installed; install it first",
    ),
    (
        with_switch(fresh(), service=None),
        wish(),
        "systemd has no service for Open vSwitch here; say --no-restart, and restart it yourself",
    ),
    (
        dataclasses.replace(fresh(), reached_by=(PF,)),
        wish(),
        "this host is reached over enp3s0f0 (default route or SSH), and would be cut off; --force does it",
    ),
    (
        dataclasses.replace(with_switch(offloading(), bridges=()), reached_by=(PF,)),
        wish(bridge="br-int"),
        "this host is reached over enp3s0f0 (default route or SSH), and would be cut off; --force does it",
    ),
    (
        with_switch(fresh(), bridges=(Bridge("br-int", "netdev"),)),
        wish(bridge="br-int"),
        "bridge br-int has the datapath netdev, which does not offload through TC",
    ),
    (
        with_switch(fresh(), bridges=(Bridge("br-ex", "", (port(PF),)),)),
        wish(bridge="br-int"),
        "enp3s0f0 is in bridge br-ex already, not in br-int",
    ),
    (
        with_netdev(fresh(), PF, master="bond0"),
        wish(bridge="br-int"),
        "enp3s0f0 is a port of bond0, so it cannot be in br-int; say --no-uplink",
    ),
    (
        offloading(),
        wish(steering="smfs"),
        "flow_steering_mode of enp3s0f0 can change in legacy mode only; say `asap2 host undo` first",
    ),
    (with_pf(fresh(), params=()), wish(steering="smfs"), "enp3s0f0 has no flow_steering_mode to set"),
    (
        fresh(),
        wish(vfs=2, representor_names=("a", "b", "c")),
        "enp3s0f0 has 2 VFs, and 3 representors are named",
    ),
    (
        offloading(),
        wish(vf=(VfWanted(1, trust=True),)),
        "trust of VF 1 of enp3s0f0 can only be set before it is in switchdev mode",
    ),
    (fresh(), wish(vf=(VfWanted(7),)), "enp3s0f0 is to have 4 VFs, so there is no VF 7"),
    (fresh(), Wanted((Nic(PF), Nic(ADDRESS))), f"{PF} is there twice, as {ADDRESS} too"),
]


@pytest.mark.parametrize(("host", "wanted", "sentence"), REFUSALS, ids=[one[2][:40] for one in REFUSALS])
def test_what_cannot_be_is_refused_in_a_sentence(host: Host, wanted: Wanted, sentence: str) -> None:
    with pytest.raises(Asap2Error) as told:
        setup_target(host, wanted)
    assert str(told.value) == sentence
    assert "\n" not in sentence


def test_force_cuts_the_link_and_takes_vfs_from_the_host_but_not_from_guests() -> None:
    assert setup_target(dataclasses.replace(fresh(), reached_by=(PF,)), wish(), force=True).nics
    assert setup_target(with_netdev(legacy(), "enp3s0f0v0", addresses=("10.0.0.1/24",)), wish(), force=True).nics
    with pytest.raises(RefusedError, match="in use by a guest"):
        setup_target(legacy(netdev=None), wish(), force=True)


def test_a_link_that_is_not_touched_is_not_cut() -> None:
    host = dataclasses.replace(offloading(), reached_by=(PF,))
    assert plan(host, setup_target(host, wish())) == ()
    assert plan(host, setup_target(host, wish(bridge="br-int", representors=True))) == ()


def test_vfs_in_use_do_not_matter_when_they_stay() -> None:
    host = offloading(1)
    guest = with_pf(host, vfs=(Vf(0, "0000:03:00.2", "mlx5_core"),))
    assert setup_target(guest, wish(vfs=1)).nics


def test_at_boot_open_vswitch_need_not_run() -> None:
    host = with_switch(fresh(), database=False, running=False)
    target = setup_target(host, dataclasses.replace(wish(bridge="br-int"), nic_only=True))
    assert (target.options, target.bridges, target.add, target.service) == ((), (), (), None)


def test_a_driver_that_wants_the_other_order_gets_it() -> None:
    host = with_pf(fresh(), driver="ice")
    assert setup_target(host, wish()).nics[0].order == "switchdev-first"
    assert setup_target(host, wish(order="vfs-first")).nics[0].order == "vfs-first"


def test_an_old_inline_mode_is_raised_to_where_rules_can_match_on_ports() -> None:
    host = with_pf(fresh(), eswitch=dataclasses.replace(fresh().pfs[0].eswitch, inline_mode="link"))  # type: ignore[type-var]
    assert setup_target(host, wish()).nics[0].inline == "transport"
    assert setup_target(fresh(), wish()).nics[0].inline is None


def test_one_pf_need_not_be_named_of_several_one_must() -> None:
    assert with_default(fresh(), ()) == (PF,)
    second = dataclasses.replace(fresh().pfs[0], address="0000:03:00.1", netdev="enp3s0f1")
    with pytest.raises(UsageError, match="enp3s0f0, enp3s0f1"):
        with_default(dataclasses.replace(fresh(), pfs=(*fresh().pfs, second)), ())
    with pytest.raises(RefusedError, match="no switchdev NIC"):
        with_default(dataclasses.replace(fresh(), pfs=(Pf("0000:05:00.0", 1, 2),)), ())


# ---- undoing


def journal(before: Host, *bridges: str) -> Journal:
    """A journal of a set-up of the one NIC."""
    return Journal(before, wish(), ("0000:03:00.0",), bridges, ("hw-offload",))


def test_undoing_takes_no_vf_from_a_guest() -> None:
    now = with_pf(offloading(1), vfs=(Vf(0, "0000:03:00.2", "mlx5_core"),))
    with pytest.raises(RefusedError, match="in use by a guest"):
        restore_target(journal(fresh()), now, force=True)


def test_a_bridge_of_ours_with_ports_of_others_is_not_taken_away() -> None:
    host = offloading()
    (bridge,) = host.openvswitch.bridges
    foreign = dataclasses.replace(bridge, ports=(*bridge.ports, Port("tap1", interfaces=(Interface("tap1"),))))
    host = with_switch(host, bridges=(foreign,))
    with pytest.raises(RefusedError, match=r"br-int was made by .* has ports that were not: tap1"):
        restore_target(journal(fresh(), "br-int"), host)
    assert restore_target(journal(fresh(), "br-int"), host, force=True).bridges == (("br-int", False),)


def test_undoing_needs_the_switch_where_something_of_it_is_to_be_undone() -> None:
    with pytest.raises(RefusedError, match="Open vSwitch is not running"):
        restore_target(journal(fresh()), with_switch(offloading(), running=False))


# ---- the configuration file


def test_a_configuration_comes_back_from_toml(tmp_path: Path) -> None:
    whole = Wanted(
        (
            Nic(
                PF,
                4,
                "switchdev-first",
                True,
                "smfs",
                "br-int",
                False,
                True,
                ("rep0", "rep1"),
                (VfWanted(0, "02:00:00:00:00:01", True, False),),
            ),
            Nic("0000:04:00.0"),
        ),
        Switch("skip_sw", 30000, False),
    )
    path = tmp_path / "host.toml"
    path.write_text(as_toml(whole))
    assert load(path) == whole


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[[nic]]\npf = "x"\nvf_count = 3', "unknown key 'vf_count' in nic[0]; known are pf, vfs, order"),
        ("[openvswitch]\nmax-idle = 3", "unknown key 'max-idle' in openvswitch; known are tc_policy, max_idle"),
        ("[nics]", "unknown key 'nics'; known are nic, openvswitch"),
        ("[[nic]]\nvfs = 3", "nic[0] has no 'pf'"),
        ('[[nic]]\npf = "x"\nvfs = "3"', "nic[0].vfs is to be a whole number, not '3'"),
        ('[[nic]]\npf = "x"\nvfs = 0', "x is to have at least 1 VF, not 0"),
        ('[[nic]]\npf = "x"\norder = "random"', "nic[0].order is to be one of auto, vfs-first, switchdev-first"),
        ('[[nic]]\npf = "x"\n[[nic]]\npf = "x"', "x is there twice"),
        ('[[nic]]\npf = "x"\nbridge = ""', "'' is no name of a network device"),
        ('[[nic]]\npf = "x"\nbridge = "a/b"', "'a/b' is no name of a network device"),
        ('[[nic]]\npf = "x"\nrepresentor_names = ["a b"]', "'a b' is no name of a network device"),
        ('[[nic]]\npf = "x"\nrepresentor_names = ["sixteen-letters-"]', "is no name of a network device"),
        ('[[nic]]\npf = "x"\n[[nic.vf]]\nindex = 0\nmac = "03:0:0"', "'03:0:0' is not a unicast MAC"),
        ('[[nic]]\npf = "x"\nvfs = 1\n[[nic.vf]]\nindex = 3', "x is to have no VF 3"),
        ("[openvswitch]\nmax_idle = 0", "max_idle is a number of milliseconds above 0, not 0"),
        ("nic = [", "is not TOML"),
    ],
)
def test_a_wrong_configuration_is_told_in_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as told:
        load(path)
    assert sentence in str(told.value)
    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no configuration"):
        load(tmp_path / "none.toml")
