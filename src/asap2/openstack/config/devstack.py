# SPDX-License-Identifier: Apache-2.0
"""devstack's local.conf (stable/2025.1), whose default is OVN: ML2 with Open vSwitch's agent has to be asked for.

devstack reads the values of post-config sections as shell words between double quotes (its inc/meta-config), so a
double quote in them is written ``"'"'"`` as on the getting-started page.
"""

from __future__ import annotations

import re

from asap2.errors import UsageError
from asap2.openstack.config import ovn, settings
from asap2.openstack.config.files import File, Section
from asap2.openstack.config.specs import text
from asap2.openstack.config.values import CONTROLLER, Compute, Values, mappings

LOCAL_CONF = "opt/stack/devstack/local.conf"
PUBLIC = "public:br-ex"
"""devstack's own physical network, for floating addresses, where the L3 agent is (lib/neutron_plugins/services/l3)."""
OVN_SERVICES = "ovn ovn-controller ovn-northd ovs-vswitchd ovsdb-server q-ovn-metadata-agent"
AGENT_SERVICES = "q-agt q-dhcp q-l3 q-meta"
NETWORK_SERVICES = f"q-svc {AGENT_SERVICES}"
OVN_SERVER_SERVICES = "q-svc ovn-northd ovn-controller q-ovn-metadata-agent"
OVN_COMPUTE_SERVICES = "n-cpu,placement-client,ovn-controller,ovs-vswitchd,ovsdb-server,q-ovn-metadata-agent"
COMPUTE_SERVICES = "n-cpu,q-agt,placement-client"


def shell(value: str) -> str:
    """*value* as it stands in a post-config section: double quotes are quoted by leaving the shell's own."""
    return re.sub(r'"([^"]*)"', r'''"'"\1"'"''', value)


def _section(name: str, sections: list[Section]) -> list[str]:
    lines = [f"[[post-config|{name}]]"]
    for section, options in sections:
        if options:
            lines += [f"[{section}]", *(f"{key} = {shell(value)}" for key, value in options)]
    return ["", *lines]


def _network_type(values: Values) -> str:
    if not values.tenant_types:
        raise UsageError("devstack makes a tenant network itself: say --vlan-range FIRST:LAST, or --tunnel")
    return ",".join(values.tenant_types)


def _address(values: Values) -> str:
    if values.controller is None:
        raise UsageError("devstack's nodes find the controller by its address: say --controller ADDRESS")
    return values.controller


def _localrc(values: Values, bridges: str, about: list[str]) -> list[str]:
    """What controller and compute nodes have alike."""
    lines = [*about, "", "[[local|localrc]]"]
    lines += ["ADMIN_PASSWORD=secret", "DATABASE_PASSWORD=$ADMIN_PASSWORD", "RABBIT_PASSWORD=$ADMIN_PASSWORD"]
    lines += ["SERVICE_PASSWORD=$ADMIN_PASSWORD", "", f"Q_AGENT={values.mechanism}"]
    lines += [
        f"Q_ML2_PLUGIN_MECHANISM_DRIVERS={values.mechanism}",
        f"Q_ML2_PLUGIN_TYPE_DRIVERS={','.join(values.type_drivers)}",
    ]
    lines += [f"Q_ML2_TENANT_NETWORK_TYPE={_network_type(values)}", f"ENABLE_TENANT_TUNNELS={values.tunnel}"]
    if values.ovn:
        lines += [f'Q_ML2_PLUGIN_GENEVE_TYPE_OPTIONS="vni_ranges={values.vni_range}"', "ENABLE_CHASSIS_AS_GW=True"]
    elif values.tunnel:
        lines.append(f"TENANT_TUNNEL_RANGES={values.vni_range}")
    if values.networks:
        first = values.networks[0]
        lines += [f"PHYSICAL_NETWORK={first.name}", f"OVS_PHYSICAL_BRIDGE={first.bridge}"]
        lines += [] if values.ovn else [f"OVS_BRIDGE_MAPPINGS={bridges}"]
        lines += [f"ML2_VLAN_RANGES={values.vlan_ranges}"]
    return lines


def _flat(values: Values) -> list[Section]:
    """devstack names the first physical network, and its own, as flat ones: all of several are said."""
    if len(values.networks) < 2:
        return []
    return [("ml2_type_flat", (("flat_networks", ",".join(["public", *(one.name for one in values.networks)])),))]


def _agent(values: Values) -> list[Section]:
    """devstack gives the agent GRE where tenants' networks are not of tunnels alone (lib/neutron_plugins/ml2). OVN has
    no such agent."""
    if values.ovn:
        return []
    return [*([("agent", (("tunnel_types", "vxlan"),))] if values.tunnel else []), settings.firewall()]


def controller(values: Values) -> list[File]:
    """The controller's."""
    about = [
        f"# devstack's controller (stable/2025.1): ML2 with {values.mechanism}, and nova's PCI filter.",
        "# The page's `enable_plugin os-vif` is no more: os-vif is installed with nova, and has no devstack plugin.",
        *(f"# {line}" for line in settings.PORT),
        "# neutron lets only services set a binding profile; for administrators, in /etc/neutron/policy.yaml:",
        *(f"#   {line}" for line in settings.policy_yaml().splitlines() if not line.startswith("#")),
    ]
    bridges = ",".join([PUBLIC, values.mappings] if values.networks else [PUBLIC])
    lines = _localrc(values, bridges, about)
    lines += [f"HOST_IP={_address(values)}", "SERVICE_HOST=$HOST_IP"]
    if values.tunnel and values.controller_ip:
        lines.append(f"TUNNEL_ENDPOINT_IP={values.controller_ip}")
    off, on = (AGENT_SERVICES, OVN_SERVER_SERVICES) if values.ovn else (OVN_SERVICES, NETWORK_SERVICES)
    lines += [f"disable_service {off}", f"enable_service {on}"]
    filters: Section = ("filter_scheduler", (("enabled_filters", f"$NOVA_FILTERS,{settings.FILTER}"),))
    lines += _section("$NOVA_CONF", [filters])
    if values.mtu:
        lines += _section("$NEUTRON_CONF", [("DEFAULT", (("global_physnet_mtu", str(values.mtu)),))])
    path_mtu: list[Section] = [("ml2", (("path_mtu", str(values.mtu)),))] if values.mtu and values.tunnel else []
    ovn_options: list[Section] = [("ovn", ovn.DISTRIBUTED)] if values.ovn else []
    plugin = [*path_mtu, *_flat(values), *_agent(values), *ovn_options]
    lines += _section("/$Q_PLUGIN_CONF_FILE", plugin) if plugin else []
    return [File(CONTROLLER, LOCAL_CONF, "\n".join(lines) + "\n")]


def compute(values: Values, one: Compute) -> list[File]:
    """A compute node's."""
    about = [
        f"# devstack's compute node {one.name} (stable/2025.1). Before stack.sh:",
        *(f"#   {line}" for line in settings.host_commands(one)),
        *(f"# {line}" for line in settings.OLD_NAMES),
    ]
    lines = _localrc(values, mappings(one), about)
    lines += [f"SERVICE_HOST={_address(values)}", "DATABASE_TYPE=mysql", "MYSQL_HOST=$SERVICE_HOST"]
    lines += ["RABBIT_HOST=$SERVICE_HOST", "GLANCE_HOSTPORT=$SERVICE_HOST:9292", "Q_HOST=$SERVICE_HOST"]
    if values.tunnel and one.local_ip:
        lines.append(f"TUNNEL_ENDPOINT_IP={one.local_ip}")
    lines += [f"ENABLED_SERVICES={OVN_COMPUTE_SERVICES if values.ovn else COMPUTE_SERVICES}"]
    specs: Section = ("pci", tuple(("device_spec", _compact(spec)) for spec in one.device_specs))
    lines += _section("$NOVA_CPU_CONF", [specs])
    lines += [] if values.ovn else _section("/$Q_PLUGIN_CONF_FILE", _agent(values))
    return [File(one.name, LOCAL_CONF, "\n".join(lines) + "\n")]


def _compact(spec: dict[str, object]) -> str:
    """Without spaces, which the shell would fold."""
    return text(spec).replace(" ", "")
