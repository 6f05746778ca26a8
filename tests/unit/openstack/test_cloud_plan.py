# SPDX-License-Identifier: Apache-2.0
"""What a cloud consists of, and the files that its services read."""

from __future__ import annotations

import configparser
import json
from importlib import resources
from pathlib import Path

import pytest

from asap2.errors import Asap2Error
from asap2.lab.topology import parse
from asap2.openstack import settings
from asap2.openstack.mechanism import Mechanism
from asap2.openstack.plan import MANAGEMENT, PHYSICAL_NETWORK, UNDERLAY, Compute, computes
from asap2.openstack.services import ovn_controller, services

PACKAGES = Path("/packages")


def shipped() -> list[Compute]:
    return computes(parse(resources.files("asap2.openstack").joinpath("topology.toml").read_text()))


def test_the_shipped_topology_has_two_compute_nodes() -> None:
    one, other = shipped()
    assert (one.host, other.host) == ("compute-node-1", "compute-node-2")
    assert (one.address, other.tunnel_address) == (f"{MANAGEMENT}.11", f"{UNDERLAY}.12")
    assert (one.uplink, one.bridge) == ("enp3s0f0", "br-enp3s0f0")


def test_half_of_the_vfs_are_for_tunnelled_networks() -> None:
    node = shipped()[0]
    assert node.vlan_vfs == ("0000:03:00.2", "0000:03:00.3", "0000:03:00.4", "0000:03:00.5")
    assert node.tunnel_vfs == ("0000:03:00.6", "0000:03:00.7", "0000:03:01.0", "0000:03:01.1")


@pytest.mark.parametrize(
    ("nic", "complaint"),
    [
        ('openvswitch = false\n[[node.nic]]\nvfs = 2\nmode = "switchdev"', "runs Open vSwitch"),
        ('[[node.nic]]\nvfs = 1\nmode = "switchdev"', "vfs of at least 2"),
        ("[[node.nic]]\nvfs = 4", 'mode = "switchdev"'),
    ],
)
def test_a_node_that_cannot_compute(nic: str, complaint: str) -> None:
    with pytest.raises(Asap2Error, match=complaint):
        computes(parse(f'[[node]]\nname = "hv1"\n{nic}\n'))


def test_an_option_that_is_given_several_times() -> None:
    assert settings.ini({"pci": {"device_spec": ["a", "b"], "alias": 3}}).splitlines() == [
        "[pci]",
        "device_spec = a",
        "device_spec = b",
        "alias = 3",
    ]


def test_device_specs_name_the_physical_network_or_null() -> None:
    node = shipped()[0]
    specs = [json.loads(spec) for spec in settings.device_specs(node)]
    assert {spec["address"]: spec["physical_network"] for spec in specs} == {
        **dict.fromkeys(node.vlan_vfs, PHYSICAL_NETWORK),
        **dict.fromkeys(node.tunnel_vfs),
    }


def test_nova_and_neutron_of_a_node_have_the_same_host() -> None:
    node = shipped()[1]
    for sections in (settings.nova(PACKAGES, node), settings.neutron(PACKAGES, node)):
        read = configparser.ConfigParser(strict=False, interpolation=None)
        read.read_string(settings.ini(sections))
        assert read["DEFAULT"]["host"] == node.host


def test_the_operators_filter_comes_after_noauth2() -> None:
    pipeline = "noauth2 = cors osprofiler noauth2 osapi_compute_app_v21\n"
    made = settings.nova_paste(pipeline)
    assert made.startswith("noauth2 = cors osprofiler noauth2 operator osapi_compute_app_v21\n")
    assert "[filter:operator]" in made


def test_every_service_has_its_place() -> None:
    found = services(shipped(), PACKAGES)
    assert len({str(service) for service in found}) == len(found)
    on_nodes = [service for service in found if service.host != "controller"]
    assert {service.where for service in on_nodes} == {"compute-node-1", "compute-node-2"}
    assert {service.name for service in on_nodes} == {"nova-compute", "neutron-openvswitch-agent"}


def test_a_cloud_with_ovn_has_its_controller_in_place_of_the_agent() -> None:
    found = services(shipped(), PACKAGES, Mechanism.OVN)
    on_node = {service.name for service in found if service.host == "compute-node-2"}
    assert on_node == {"nova-compute", "ovn-controller", "neutron-ovn-metadata-agent"}
    assert {"ovn-central on controller", "nova-api-metadata on controller"} <= set(map(str, found))


def test_a_node_tells_ovn_its_host_name_its_bridge_and_its_end_of_tunnels() -> None:
    node = shipped()[1]
    command = ovn_controller(node).command[-1]
    for word in ("system-id", "hostname"):
        assert f'external_ids:{word}="{node.host}"' in command
    assert f'external_ids:ovn-bridge-mappings="{PHYSICAL_NETWORK}:{node.bridge}"' in command
    assert f'external_ids:ovn-encap-ip="{node.tunnel_address}"' in command
