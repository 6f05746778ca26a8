# SPDX-License-Identifier: Apache-2.0
"""What NICs and options become: physical networks, bridges, ends of tunnels, device_spec."""

from __future__ import annotations

import dataclasses

import pytest

from asap2.errors import UsageError
from asap2.host.inventory import Bridge, Host, Netdev
from asap2.lab.topology import parse
from asap2.openstack.config.nodes import Node, of_host, of_topology
from asap2.openstack.config.values import Values, Wanted, resolve
from tests.unit.host.hosts import PF, fresh, offloading, port, with_netdev, with_pf, with_switch

TWO_NODES = """
[[node]]
name = "hv1"
[[node.nic]]
vfs = 4
mode = "switchdev"
[[node]]
name = "hv2"
[[node.nic]]
model = "ConnectX-6 Dx"
"""


def host(vfs: int = 4, bridge: str = "br-phys") -> Host:
    """A hypervisor whose uplink is in *bridge*."""
    made = with_pf(offloading(vfs), vf_device=0x1018)
    return with_switch(made, bridges=(Bridge(bridge, ports=(port(bridge, "internal"), port(PF))),))


def values(one: Host, **wanted: object) -> Values:
    """What *wanted* gives there."""
    return resolve(Wanted(**wanted), (of_host(one, one.pfs),))  # type: ignore[arg-type]


def refusal(nodes: tuple[Node, ...], **wanted: object) -> str:
    """The sentence that refuses *wanted*."""
    with pytest.raises(UsageError) as raised:
        resolve(Wanted(**wanted), nodes)  # type: ignore[arg-type]
    return str(raised.value)


def test_a_hosts_nic_gives_one_network_its_bridge_and_an_entry_for_all_vfs_but_not_the_pf() -> None:
    found = values(host(), vlan_ranges=("100:199",))
    (one,) = found.computes
    assert found.vlan_ranges == "default:100:199"
    assert (found.type_drivers, found.tenant_types) == (("flat", "vlan"), ("vlan",))
    assert one.mappings == (("default", "br-phys"),)
    assert one.uplinks == (("br-phys", PF),)
    assert one.device_specs == (
        {"vendor_id": "15b3", "product_id": "1018", "address": "0000:03:00.0", "physical_network": "default"},
    )
    assert found.notes == ()


def test_without_a_range_tenants_have_no_vlans_and_administrators_do() -> None:
    found = values(host())
    assert (found.vlan_ranges, found.tenant_types) == ("default", ())


@pytest.mark.parametrize(
    ("uplink", "bridge"), [("enp3s0f0", "br-enp3s0f0"), ("enp129s0f0", "br-default"), ("enp129s0f0np0", "br-default")]
)
def test_a_bridge_that_is_not_there_is_named_as_on_the_page_if_neutron_takes_the_name(uplink: str, bridge: str) -> None:
    made = with_pf(fresh(), netdev=uplink)
    made = dataclasses.replace(made, netdevs=(dataclasses.replace(made.netdevs[0], name=uplink),))
    assert values(made).networks[0].bridge == bridge


def test_an_uplink_in_br_int_is_to_be_moved() -> None:
    found = values(host(bridge="br-int"))
    assert found.networks[0].bridge == "br-enp3s0f0"
    assert found.notes == (
        "enp3s0f0 of hv1 is in br-int, which is neutron's own: move it to br-enp3s0f0, with `ovs-vsctl del-port br-int "
        "enp3s0f0 -- --may-exist add-br br-enp3s0f0 -- add-port br-enp3s0f0 enp3s0f0`",
    )


def test_a_nic_that_is_not_set_up_is_told_of() -> None:
    assert values(fresh()).notes[0] == "enp3s0f0 of hv1 has no VFs: `asap2 host setup` before nova-compute starts"


def test_tunnels_alone_want_null_for_the_physical_network() -> None:
    found = values(with_netdev(host(), PF, addresses=("10.1.0.1/24", "fe80::1/64")), tunnel=True)
    (one,) = found.computes
    assert (found.networks, found.type_drivers, found.tenant_types) == ((), ("vxlan",), ("vxlan",))
    assert (one.local_ip, one.mappings) == ("10.1.0.1", ())
    assert [spec["physical_network"] for spec in one.device_specs] == [None]


def test_a_tunnels_end_may_be_at_the_uplinks_bridge() -> None:
    made = host()
    made = dataclasses.replace(made, netdevs=(*made.netdevs, Netdev(90, "br-phys", addresses=("10.1.0.7/24",))))
    assert values(made, tunnel=True).computes[0].local_ip == "10.1.0.7"


def test_vlans_and_tunnels_share_a_nics_vfs() -> None:
    found = values(host(vfs=5), physical_networks=("p",), tunnel=True, tunnel_vfs=1, local_ips=(("", "10.1.0.1"),))
    specs = found.computes[0].device_specs
    assert [(one["address"]["function"], one["physical_network"]) for one in specs] == [("[2345]", "p"), ("6", None)]
    assert found.tenant_types == ("vxlan",)
    halves = values(host(vfs=4), physical_networks=("p",), tunnel=True, local_ips=(("", "10.1.0.1"),))
    assert [spec["address"]["function"] for spec in halves.computes[0].device_specs] == ["[23]", "[45]"]


def test_vfs_that_are_shared_out_cross_slots() -> None:
    topology = '[[node]]\nname = "hv1"\n[[node.nic]]\ntotal_vfs = 16\nvfs = 16\n'
    nodes = of_topology(parse(topology))
    wanted = Wanted(("p",), tunnel=True, tunnel_vfs=10, local_ips=(("hv1", "10.1.0.1"),))
    specs = resolve(wanted, nodes).computes[0].device_specs
    assert [(one["address"]["slot"], one["address"]["function"], one["physical_network"]) for one in specs] == [
        ("00", "[234567]", "p"),
        ("01", "[01234567]", None),
        ("02", "[01]", None),
    ]


def test_a_bond_is_one_uplink_and_both_ports_vfs_are_given() -> None:
    made = host()
    second = dataclasses.replace(made.pfs[0], address="0000:03:00.1", netdev="enp3s0f1")
    uplinks = [dataclasses.replace(made.netdevs[0], name=name, master="bond0") for name in (PF, "enp3s0f1")]
    made = dataclasses.replace(made, pfs=(made.pfs[0], second), netdevs=(*uplinks, Netdev(80, "bond0", kind="bond")))
    (one,) = values(made).computes
    assert one.uplinks == (("br-bond0", "bond0"),)
    assert [spec["address"] for spec in one.device_specs] == ["0000:03:00.0", "0000:03:00.1"]
    assert {spec["physical_network"] for spec in one.device_specs} == {"default"}


def test_larger_mtus_are_taken_over_and_the_smallest_of_several() -> None:
    assert values(with_netdev(host(), PF, mtu=9000)).mtu == 9000
    assert values(host()).mtu is None


def test_a_topologys_nodes_have_their_models_ids() -> None:
    found = resolve(Wanted(), of_topology(parse(TWO_NODES)))
    assert [(one.name, one.device_specs[0]["product_id"]) for one in found.computes] == [
        ("hv1", "1018"),
        ("hv2", "101e"),
    ]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"vlan_ranges": ("5",)}, "'5' is no VLAN range: FIRST:LAST, from 1 to 4094, as 100:199"),
        ({"vlan_ranges": ("200:100",)}, "'200:100' is no VLAN range"),
        ({"vlan_ranges": ("1:2", "3:4")}, "2 times --vlan-range, and 1 physical networks: each has one VLAN range"),
        ({"physical_networks": ("a", "b")}, "hv1's uplinks are enp3s0f0, and the physical networks a, b: say"),
        ({"physical_networks": ("a", "a")}, "a physical network is named twice: a, a"),
        ({"physical_networks": ("a:b",)}, "'a:b' cannot be the name of a physical network"),
        ({"bridges": ("br-physical-one",)}, "bridge br-physical-one has 15 characters, and neutron's agent takes 11"),
        (
            {"tunnel": True},
            "--tunnel needs the address of hv1's end, and its uplinks have none: say --local-ip hv1=ADDRESS",
        ),
        ({"tunnel": True, "local_ips": (("hv9", "10.0.0.1"),)}, "--local-ip hv9=10.0.0.1: there is no node hv9"),
        ({"tunnel": True, "local_ips": (("", "ten"),)}, "--local-ip 'ten' is no IP address"),
        ({"local_ips": (("", "10.0.0.1"),)}, "--local-ip is the end of tunnels: say --tunnel, too"),
        ({"tunnel_vfs": 2}, "--tunnel-vfs is of VFs for tunnelled networks: say --tunnel, too"),
        (
            {"physical_networks": ("p",), "tunnel": True, "tunnel_vfs": 4, "local_ips": (("", "10.0.0.1"),)},
            "--tunnel-vfs 4: enp3s0f0 has 4 VFs, and some are to be left for p",
        ),
    ],
)
def test_what_does_not_go_together_is_one_sentence(wanted: dict[str, object], said: str) -> None:
    made = host()
    assert refusal((of_host(made, made.pfs),), **wanted).startswith(said)


def test_a_host_without_nics_and_a_nic_with_too_few_vfs_are_refused() -> None:
    assert "hv1 has no NIC" in refusal((Node("hv1", ()),))
    made = host(vfs=1)
    both: dict[str, object] = {"physical_networks": ("p",), "tunnel": True, "local_ips": (("", "10.0.0.1"),)}
    assert "enp3s0f0 has 1 VF, and nova gives a VF either" in refusal((of_host(made, made.pfs),), **both)
