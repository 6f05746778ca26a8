# SPDX-License-Identifier: Apache-2.0
"""Hints for OpenStack-Ansible (stable/2025.1): variables, and the networks of openstack_user_config.yml."""

from __future__ import annotations

import json

from asap2.openstack.config import ovn, settings
from asap2.openstack.config.files import File
from asap2.openstack.config.specs import text
from asap2.openstack.config.values import CONTROLLER, Compute, Values

DEPLOY = "etc/openstack_deploy"


def controller(values: Values) -> list[File]:
    """The deployment's."""
    variables = [
        "# OpenStack-Ansible. nova_device_spec was nova_pci_passthrough_whitelist, which still counts.",
        f"neutron_plugin_type: {'ml2.ovn' if values.ovn else 'ml2.ovs'}",
        f'neutron_ml2_drivers_type: "{",".join(values.type_drivers)}"',
        "nova_scheduler_extra_filters:",
        f"  - {settings.FILTER}",
        *(f"# {line}" for line in settings.PORT_SECURITY),
    ]
    overrides = [*(f"# {line}" for line in settings.POLICY_ABOUT), "neutron_policy_overrides:"]
    overrides += [f"  {json.dumps(name)}: {json.dumps(rule)}" for name, rule in settings.POLICIES.items()]
    if values.mtu:
        overrides += ["neutron_neutron_conf_overrides:", "  DEFAULT:", f"    global_physnet_mtu: {values.mtu}"]
    if values.ovn:
        overrides += [
            "neutron_ml2_conf_ini_overrides:",
            "  ovn:",
            *(f"    {key}: {word}" for key, word in ovn.DISTRIBUTED),
        ]
    else:
        overrides += ["neutron_openvswitch_agent_ini_overrides:"]
        name, options = settings.firewall()
        overrides += [f"  {name}:", *(f"    {key}: {word}" for key, word in options)]
    files = [
        File(CONTROLLER, f"{DEPLOY}/user_variables_ovs_hw_offload.yml", "\n".join([*variables, *overrides]) + "\n")
    ]
    uplinks = {bridge: uplink for one in values.computes for bridge, uplink in one.uplinks}
    networks = ["# Add to global_overrides: provider_networks: of openstack_user_config.yml.", "provider_networks:"]
    group = "neutron_ovn_controller" if values.ovn else "neutron_openvswitch_agent"
    for one in values.networks:
        networks += ["  - network:", f'      container_bridge: "{one.bridge}"', '      container_type: "veth"']
        networks += ['      type: "vlan"', f'      net_name: "{one.name}"']
        networks += [f'      range: "{one.vlan_range}"'] if one.vlan_range else []
        networks += [f'      network_interface: "{uplinks[one.bridge]}"'] if one.bridge in uplinks else []
        networks += ["      group_binds:", f"        - {group}"]
    if values.tunnel:
        networks += ["  - network:", '      container_bridge: "br-vxlan"', '      container_type: "veth"']
        networks += [
            '      container_interface: "eth10"',
            '      ip_from_q: "tunnel"',
            f'      type: "{values.tunnel_type}"',
        ]
        networks += [f'      range: "{values.vni_range}"', f'      net_name: "{values.tunnel_type}"']
        networks += ["      group_binds:", f"        - {group}"]
    return [*files, File(CONTROLLER, f"{DEPLOY}/provider_networks_ovs_hw_offload.yml", "\n".join(networks) + "\n")]


def compute(values: Values, one: Compute) -> list[File]:  # noqa: ARG001
    """A compute node's variables."""
    lines = [
        "# Before nova-compute starts, by hand on the node:",
        *(f"#   {line}" for line in settings.host_commands(one)),
        "nova_device_spec:",
        *(f"  - {_quoted(text(spec))}" for spec in one.device_specs),
    ]
    return [File(CONTROLLER, f"{DEPLOY}/host_vars/{one.name}.yml", "\n".join(lines) + "\n")]


def _quoted(value: str) -> str:
    """A YAML scalar that stays a string: its template takes strings as they are."""
    return f"'{value}'" if "'" not in value else json.dumps(value)
