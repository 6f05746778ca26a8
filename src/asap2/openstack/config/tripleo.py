# SPDX-License-Identifier: Apache-2.0
"""Hints for TripleO, whose last release was Wallaby: an environment file for `openstack overcloud deploy -e`.

Parameters are those of its heat templates (neutron-ovs-agent and nova-compute); the role is made from the role Compute.
"""

from __future__ import annotations

import json

from asap2.openstack.config import settings
from asap2.openstack.config.files import File
from asap2.openstack.config.nodes import USUAL_VFS
from asap2.openstack.config.values import CONTROLLER, Compute, Values, mappings
from asap2.openstack.mechanism import Mechanism

ENVIRONMENT = "home/stack/ovs-hw-offload-{}.yaml"
ROLE = "ComputeOvsHwOffload"
SERVICES = {Mechanism.OPENVSWITCH: "neutron-ovs.yaml", Mechanism.OVN: "neutron-ovn-dvr-ha.yaml"}
OLD_FILTERS = ("AvailabilityZoneFilter", *settings.FILTERS)
"""As in Wallaby, where nova still had the first."""


def controller(values: Values) -> list[File]:
    """What is said once."""
    lines = [
        "# TripleO (last release: Wallaby). Its default is OVN. Deploy with, in this order,",
        f"#   -e environments/services/{SERVICES[values.mechanism]} -e environments/ovs-hw-offload.yaml",
        "#   -e this file and the nodes'",
        f"# Role: openstack overcloud roles generate -o roles_data.yaml Controller Compute:{ROLE}",
        "parameter_defaults:",
        f"  NeutronMechanismDrivers: {values.mechanism}",
        f"  NeutronTypeDrivers: {json.dumps(','.join(values.type_drivers))}",
        f"  NeutronNetworkType: {json.dumps(','.join(values.tenant_types))}",
    ]
    if values.networks:
        lines += [
            f"  NeutronFlatNetworks: {json.dumps(','.join(one.name for one in values.networks))}",
            f"  NeutronNetworkVLANRanges: {json.dumps(values.vlan_ranges)}",
        ]
    if values.tunnel:
        lines += [f"  NeutronTunnelTypes: {values.tunnel_type}", f"  NeutronVniRanges: {json.dumps(values.vni_range)}"]
    lines.append("  NeutronEnableDVR: true" if values.ovn else "  NeutronOVSFirewallDriver: openvswitch")
    if values.mtu:
        lines.append(f"  NeutronGlobalPhysnetMtu: {values.mtu}")
    lines.append(f"  NovaSchedulerEnabledFilters: {json.dumps([*OLD_FILTERS, settings.FILTER])}")
    return [File(CONTROLLER, ENVIRONMENT.format(CONTROLLER), "\n".join(lines) + "\n")]


def compute(values: Values, one: Compute) -> list[File]:  # noqa: ARG001
    """A node's, as parameters of its role: nodes of one role are alike."""
    bridges = ", ".join(f"{bridge} with {uplink}" for bridge, uplink in one.uplinks) or "no bridge: tunnels only"
    lines = [
        f"# The role of nodes like {one.name}. NIC template: type sriov_pf, numvfs {one.vfs or USUAL_VFS},",
        f"# link_mode switchdev; {bridges}.",
        "# NovaPCIPassthrough becomes [pci] passthrough_whitelist, device_spec's old name.",
        "parameter_defaults:",
        f"  {ROLE}Parameters:",
        "    OvsHwOffload: true",
        '    KernelArgs: "intel_iommu=on iommu=pt"',
    ]
    if one.mappings:
        lines.append(f"    NeutronBridgeMappings: {json.dumps(mappings(one))}")
    lines.append("    NovaPCIPassthrough:")
    for spec in one.device_specs:
        entries = [f"{key}: {json.dumps(value)}" for key, value in spec.items()]
        lines += [f"      - {entries[0]}", *(f"        {entry}" for entry in entries[1:])]
    return [File(one.name, ENVIRONMENT.format(one.name), "\n".join(lines) + "\n")]
