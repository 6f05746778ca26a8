# SPDX-License-Identifier: Apache-2.0
"""Sections of nova's and neutron's files, which the formats put into the files that they have."""

from __future__ import annotations

import json

from asap2.openstack.config import ovn
from asap2.openstack.config.files import Section
from asap2.openstack.config.nodes import USUAL_VFS
from asap2.openstack.config.specs import text
from asap2.openstack.config.values import Compute, Values, mappings

FILTER = "PciPassthroughFilter"
FILTERS = (
    "ComputeFilter",
    "ComputeCapabilitiesFilter",
    "ImagePropertiesFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
)
"""nova's own default in 2025.1 (nova.conf.scheduler); setting the option replaces it."""

OLD_NAMES = (
    "Old names that nova still reads: [pci] passthrough_whitelist, [DEFAULT] pci_passthrough_whitelist.",
    "Filters of old lists that nova has no more, and nova-scheduler does not start with: RetryFilter,",
    "AvailabilityZoneFilter.",
)


def scheduler() -> Section:
    """nova-scheduler's."""
    return "filter_scheduler", (("enabled_filters", ",".join((*FILTERS, FILTER))),)


def pci(compute: Compute) -> Section:
    """nova-compute's."""
    return "pci", tuple(("device_spec", text(spec)) for spec in compute.device_specs)


def neutron(values: Values) -> list[Section]:
    """neutron.conf's."""
    mtu = (("global_physnet_mtu", str(values.mtu)),) if values.mtu else ()
    plugins = (("service_plugins", ovn.L3_PLUGIN),) if values.ovn else ()
    return [("DEFAULT", (("core_plugin", "ml2"), *plugins, *mtu))]


def ml2(values: Values) -> list[Section]:
    """ml2_conf.ini's."""
    main = [
        ("type_drivers", ",".join(values.type_drivers)),
        ("tenant_network_types", ",".join(values.tenant_types)),
        ("mechanism_drivers", values.mechanism.value),
        ("extension_drivers", "port_security"),
    ]
    if values.mtu and values.tunnel:
        main.append(("path_mtu", str(values.mtu)))
    names = ",".join(one.name for one in values.networks)
    vxlan = (("vni_ranges", values.vni_range),) if values.tunnel else ()
    return [
        ("ml2", tuple(main)),
        ("ml2_type_flat", (("flat_networks", names),) if names else ()),
        ("ml2_type_vlan", (("network_vlan_ranges", values.vlan_ranges),) if names else ()),
        *(ovn.server(values) if values.ovn else [("ml2_type_vxlan", vxlan)]),
    ]


def agent(values: Values, compute: Compute | None) -> list[Section]:
    """openvswitch_agent.ini's, of a compute node, or of the node with the network services."""
    bridges = mappings(compute) if compute else values.mappings
    local_ip = compute.local_ip if compute else values.controller_ip
    ovs = [("bridge_mappings", bridges)] if bridges else []
    if values.tunnel and local_ip:
        ovs.append(("local_ip", local_ip))
    return [
        ("ovs", tuple(ovs)),
        ("agent", (("tunnel_types", "vxlan"),) if values.tunnel else ()),
        firewall(),
    ]


def firewall() -> Section:
    """The agent's: it is the one driver whose rules a direct port's packets meet. iptables never see them."""
    return "securitygroup", (("firewall_driver", "openvswitch"),)


def host_commands(compute: Compute) -> list[str]:
    """What is typed on a compute node before its services start."""
    setup = f"asap2 host setup --vfs {compute.vfs or USUAL_VFS}"
    bridges = {uplink: bridge for bridge, uplink in compute.uplinks}
    lines = [f"{setup} {f'--bridge {bridges[pf]}' if pf in bridges else '--no-uplink'} {pf}" for pf in compute.pfs]
    for uplink in bridges.keys() - set(compute.pfs):  # bonds
        lines.append(
            f"ovs-vsctl --may-exist add-br {bridges[uplink]} -- --may-exist add-port {bridges[uplink]} {uplink}"
        )
    return [*lines, "asap2 host persist"]


PORT_SECURITY = (
    "Security groups track connections: NICs from ConnectX-5 on carry those of TCP and UDP once they are established",
    "(Linux 5.7 or later). ICMP and each connection's first packets are the host's.",
)
PORT = (
    "A port for a guest: openstack port create --network NETWORK --vnic-type direct \\",
    '  --binding-profile \'{"capabilities": ["switchdev"]}\' NAME',
    "Without the capability neutron binds no direct port to Open vSwitch; nova adds it where libvirt tells of it.",
)
POLICY_ABOUT = (
    "neutron-server lets only services set a port's binding profile, where the capability switchdev goes. This lets",
    "administrators do so, too, as the getting-started page has it.",
)
POLICIES = {f"{verb}_port:binding:profile": "rule:admin_only or rule:service_api" for verb in ("create", "update")}
"""By rules that neutron has (neutron/conf/policies/base.py)."""


def policy_yaml() -> str:
    """neutron's policy.yaml."""
    rules = [f"{json.dumps(name)}: {json.dumps(rule)}" for name, rule in POLICIES.items()]
    return "\n".join([*(f"# {line}" for line in POLICY_ABOUT), *rules]) + "\n"
