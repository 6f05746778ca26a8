# SPDX-License-Identifier: Apache-2.0
"""Which network device is what, and who uses a VF."""

from __future__ import annotations

import dataclasses

import pytest

from asap2.errors import UsageError
from asap2.host.inventory import Netdev, OpenVSwitch, Vf, vf_use_by_host, vf_user
from asap2.host.observe import below
from asap2.host.select import choose
from tests.unit.host.hosts import ADDRESS, PF, SWITCH_ID, fresh, offloading, with_netdev


@pytest.mark.parametrize(
    ("port_name", "pf", "vf", "uplink"),
    [
        ("pf0vf3", 0, 3, False),
        ("pf1vf12", 1, 12, False),
        ("c1pf0vf7", 0, 7, False),
        ("3", None, 3, False),  # mlx5 before Linux 5.1
        ("p0", 0, None, True),
        ("p1s0", 1, None, True),
        ("pf0sf88", None, None, False),
        ("pf0", None, None, False),
        (None, None, None, False),
    ],
)
def test_port_names_tell_what_a_device_represents(
    port_name: str | None, pf: int | None, vf: int | None, uplink: bool
) -> None:
    netdev = Netdev(1, "x", switch_id=SWITCH_ID, port_name=port_name)
    assert (netdev.pf_number, netdev.vf_number, netdev.is_uplink) == (pf, vf, uplink)


def test_without_a_switch_id_a_device_represents_nothing() -> None:
    assert Netdev(1, "x", port_name="pf0vf3").vf_number is None
    assert not Netdev(1, "x", port_name="p0").is_uplink


def test_representors_are_those_of_the_same_switch_and_pf() -> None:
    host = offloading()
    others = (
        Netdev(90, "other", switch_id="ff", port_name="pf0vf0"),
        Netdev(91, "second", switch_id=SWITCH_ID, port_name="pf1vf0"),
    )
    host = dataclasses.replace(host, netdevs=(*others, *host.netdevs))
    assert [(number, one.name) for number, one in host.representors(host.pfs[0])] == [(0, "eth0"), (1, "eth1")]


@pytest.mark.parametrize("name", [PF, ADDRESS, "03:00.0"])
def test_a_pf_goes_by_its_names(name: str) -> None:
    assert choose(fresh(), [name, name]) == fresh().pfs


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("enp9s0", "there is no PF 'enp9s0' here; such PFs here: enp3s0f0 (0000:03:00.0)"),
        ("enp3s0f0v1", "enp3s0f0v1 is VF 1 of enp3s0f0; name the PF enp3s0f0 instead"),
        ("03:00.2", "03:00.2 is VF 0 of enp3s0f0; name the PF enp3s0f0 instead"),
        ("eth1", "eth1 is the representor of VF 1 of enp3s0f0; name the PF enp3s0f0 instead"),
        (
            "lo",
            "lo is not a switchdev NIC: it has neither SR-IOV nor an eSwitch; such PFs here: enp3s0f0 (0000:03:00.0)",
        ),
    ],
)
def test_what_is_no_pf_is_told_what_it_is(name: str, sentence: str) -> None:
    host = dataclasses.replace(offloading(), netdevs=(*offloading().netdevs, Netdev(1, "lo")))
    with pytest.raises(UsageError) as told:
        choose(host, [name])
    assert str(told.value) == sentence


def test_who_uses_a_vf() -> None:
    host = offloading()
    assert vf_user(host.pfs[0].vfs[0]) is None
    assert vf_user(Vf(0, "a", "vfio-pci")) is None
    assert vf_user(Vf(0, "a")) is None
    assert vf_user(Vf(0, "a", "vfio-pci", opened_by="qemu-kvm, pid 412")) == "a guest (qemu-kvm, pid 412)"
    assert vf_user(Vf(0, "a", "mlx5_core")) == "a guest (its network device is in another namespace)"
    used = with_netdev(host, "enp3s0f0v0", addresses=("10.0.0.1/24",))
    assert vf_use_by_host(used, used.pfs[0].vfs[0]) == "it has the address 10.0.0.1/24"
    used = with_netdev(host, "enp3s0f0v1", master="br0")
    assert vf_use_by_host(used, used.pfs[0].vfs[1]) == "it is a port of br0"
    assert vf_use_by_host(host, host.pfs[0].vfs[0]) is None


def test_the_way_to_a_gateway_is_followed_down_to_the_nic() -> None:
    netdevs = [
        Netdev(2, PF, master="bond0"),
        Netdev(3, "eno1"),
        Netdev(4, "bond0", kind="bond"),
        Netdev(5, "bond0.7", kind="vlan", lower="bond0"),
        Netdev(6, "br-ex"),
        Netdev(7, "tap0"),
    ]
    assert below(["bond0.7"], netdevs, OpenVSwitch()) == ("bond0", "bond0.7", PF)
    assert below(["eno1"], netdevs, OpenVSwitch()) == ("eno1",)
    host = offloading()
    assert below(["br-int"], host.netdevs, host.openvswitch) == ("br-int", PF, "eth0", "eth1")
