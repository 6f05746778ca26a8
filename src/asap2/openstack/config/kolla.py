# SPDX-License-Identifier: Apache-2.0
"""Hints for Kolla-Ansible (stable/2025.1): variables for globals.yml, and files that it merges into the services' own.

It merges /etc/kolla/config/nova/nova-scheduler.conf, nova/HOST/nova.conf, neutron/ml2_conf.ini and
neutron/openvswitch_agent.ini, and copies neutron/policy.yaml (its roles' tasks/config.yml); HOST is the inventory's
name.
"""

from __future__ import annotations

from asap2.openstack.config import ovn, settings
from asap2.openstack.config.files import File, ini
from asap2.openstack.config.values import CONTROLLER, Compute, Values

GLOBALS = "etc/kolla/globals.d/ovs-hw-offload.yml"
CONFIG = "etc/kolla/config"


def controller(values: Values) -> list[File]:
    """The deployment's."""
    lines = [
        "# Kolla-Ansible reads globals.d after globals.yml.",
        f"neutron_plugin_agent: {values.mechanism}",
        'openvswitch_hw_offload: "yes"',
        '# enable_neutron_sriov stays "no": it is for legacy SR-IOV, and writes a passthrough_whitelist of its own.',
        f'neutron_type_drivers: "{",".join(values.type_drivers)}"',
        f'neutron_tenant_network_types: "{",".join(values.tenant_types)}"',
    ]
    if values.ovn:
        lines.append('neutron_ovn_distributed_fip: "yes"')
    if values.networks:
        uplinks = {bridge: uplink for one in values.computes for bridge, uplink in one.uplinks}
        names = [uplinks.get(one.bridge, "UPLINK") for one in values.networks]
        lines += [
            "# So that compute nodes have the bridges, with the uplinks in them. Where names differ by node, set",
            "# neutron_external_interface in the inventory.",
            'enable_neutron_provider_networks: "yes"',
            f'neutron_external_interface: "{",".join(names)}"',
            f'neutron_bridge_name: "{",".join(one.bridge for one in values.networks)}"',
            f'neutron_physical_networks: "{",".join(one.name for one in values.networks)}"',
        ]
    ml2 = [section for section in settings.ml2(values) if section[0] in ("ml2_type_vlan", "ml2_type_vxlan")]
    ml2 += [("ovn", ovn.DISTRIBUTED)] if values.ovn else []
    own = [("ml2", (("path_mtu", str(values.mtu)),))] if values.mtu and values.tunnel else []
    scheduler = ini(["Merged by Kolla-Ansible into nova-scheduler's nova.conf."], [settings.scheduler()])
    files = [
        File(CONTROLLER, GLOBALS, "\n".join(lines) + "\n"),
        File(CONTROLLER, f"{CONFIG}/nova/nova-scheduler.conf", scheduler),
        File(CONTROLLER, f"{CONFIG}/neutron/ml2_conf.ini", ini(["Merged by Kolla-Ansible."], [*own, *ml2])),
    ]
    if not values.ovn:
        agent = ini(["Merged by Kolla-Ansible.", *settings.PORT_SECURITY], [settings.firewall()])
        files.append(File(CONTROLLER, f"{CONFIG}/neutron/openvswitch_agent.ini", agent))
    files.append(File(CONTROLLER, f"{CONFIG}/neutron/policy.yaml", settings.policy_yaml()))
    if values.mtu:
        mtu = ini(["Merged by Kolla-Ansible."], [("DEFAULT", (("global_physnet_mtu", str(values.mtu)),))])
        files.append(File(CONTROLLER, f"{CONFIG}/neutron.conf", mtu))
    return files


def compute(values: Values, one: Compute) -> list[File]:  # noqa: ARG001
    """A compute node's. Its bridges and its end of tunnels are from the variables."""
    about = [
        "Merged by Kolla-Ansible into nova-compute's nova.conf on this host of the inventory.",
        "Before: " + "; ".join(settings.host_commands(one)),
    ]
    return [File(one.name, f"{CONFIG}/nova/{one.name}/nova.conf", ini(about, [settings.pci(one)]))]
