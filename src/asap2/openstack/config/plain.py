# SPDX-License-Identifier: Apache-2.0
"""A plain installation: what to add to nova's and neutron's own files."""

from __future__ import annotations

from asap2.openstack.config import ovn, settings
from asap2.openstack.config.files import File, ini
from asap2.openstack.config.values import CONTROLLER, Compute, Values

NOVA = "etc/nova/nova.conf"
NEUTRON = "etc/neutron/neutron.conf"
ML2 = "etc/neutron/plugins/ml2/ml2_conf.ini"
AGENT = "etc/neutron/plugins/ml2/openvswitch_agent.ini"
METADATA = "etc/neutron/neutron_ovn_metadata_agent.ini"
POLICY = "etc/neutron/policy.yaml"


def _added(service: str, path: str, *about: str) -> list[str]:
    return [f"{service}: add to /{path}, then restart the service. OpenStack 2025.1.", *about]


def controller(values: Values) -> list[File]:
    """The files of the node with the servers and the network services."""
    agent = ["On a node with network services (DHCP, L3). Each bridge must exist, with its uplink as a port."]
    if values.tunnel and not values.controller_ip:
        agent.append("[ovs] local_ip is to be this node's own end of tunnels: --local-ip controller=ADDRESS writes it.")
    about: dict[str, list[str]] = {
        NOVA: _added(
            "nova-scheduler", NOVA, "The list replaces nova's default, which it begins with.", *settings.OLD_NAMES
        ),
        NEUTRON: _added("neutron-server", NEUTRON),
        ML2: _added("neutron-server", ML2, *settings.PORT, *(ovn.NO_FRAG if values.ovn else ())),
    }
    sections = {
        NOVA: [settings.scheduler()],
        NEUTRON: settings.neutron(values),
        ML2: settings.ml2(values),
    }
    if not values.ovn:
        about[AGENT] = _added("neutron-openvswitch-agent", AGENT, *agent)
        sections[AGENT] = settings.agent(values, None)
    files = [File(CONTROLLER, path, ini(about[path], sections[path])) for path in about]
    return [*files, File(CONTROLLER, POLICY, settings.policy_yaml())]


def compute(values: Values, one: Compute) -> list[File]:
    """The files of a compute node."""
    nova = _added(
        "nova-compute",
        NOVA,
        "An entry matches the VFs of the PF at that address, however many; null: for tunnelled networks.",
        "Before: " + "; ".join([*settings.host_commands(one), *([ovn.chassis(values, one)] if values.ovn else [])]),
        *settings.OLD_NAMES,
    )
    if values.ovn:
        about = _added("neutron-ovn-metadata-agent", METADATA, *settings.PORT_SECURITY)
        agent = File(one.name, METADATA, ini(about, ovn.metadata_agent(values)))
    else:
        about = _added("neutron-openvswitch-agent", AGENT, *settings.PORT_SECURITY)
        agent = File(one.name, AGENT, ini(about, settings.agent(values, one)))
    return [File(one.name, NOVA, ini(nova, [settings.pci(one)])), agent]
