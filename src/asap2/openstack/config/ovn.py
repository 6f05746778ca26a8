# SPDX-License-Identifier: Apache-2.0
"""What OVN needs in place of neutron's Open vSwitch agent: sections of neutron's files, and a chassis's settings."""

from __future__ import annotations

from asap2.errors import UsageError
from asap2.openstack.config.files import Section
from asap2.openstack.config.values import Compute, Values
from asap2.ovn import programs

GENEVE_HEADER = "38"
"""Octets that neutron must leave for OVN's Geneve header; it does not start with less (its OVN mechanism driver)."""
L3_PLUGIN = "ovn-router"
NO_FRAG = (
    "ovn_emit_need_to_frag (neutron's default) has the length of each packet to and from outside checked, by an action",
    "that Open vSwitch does not offload: with it, floating IPs and SNAT are not in hardware.",
)
DISTRIBUTED = (("enable_distributed_floating_ip", "true"), ("ovn_emit_need_to_frag", "false"))
"""Floating IPs are translated on the node of their server, by its NIC."""


def databases(values: Values) -> tuple[tuple[str, str], ...]:
    """Where OVN's databases are; UsageError when that is not known."""
    if values.controller is None:
        raise UsageError("OVN's databases are at the controller: say --controller ADDRESS")
    return (
        ("ovn_nb_connection", programs.northbound(values.controller)),
        ("ovn_sb_connection", programs.southbound(values.controller)),
    )


def server(values: Values) -> list[Section]:
    """ml2_conf.ini's sections that only OVN's mechanism driver reads."""
    return [
        ("ml2_type_geneve", (("vni_ranges", values.vni_range), ("max_header_size", GENEVE_HEADER))),
        ("ovn", (*databases(values), ("ovn_metadata_enabled", "true"), *DISTRIBUTED)),
    ]


def metadata_agent(values: Values) -> list[Section]:
    """neutron_ovn_metadata_agent.ini's."""
    (_, southbound) = databases(values)
    return [("DEFAULT", (("nova_metadata_host", values.controller or ""),)), ("ovn", (southbound,))]


def chassis(values: Values, one: Compute) -> str:
    """What is typed on a compute node, for ovn-controller."""
    found = programs.Chassis(
        one.name,
        values.controller or "",
        one.local_ip or "ADDRESS",
        values.tunnel_type,
        dict(one.mappings),
        {"ovn-cms-options": "enable-chassis-as-gw"},
    ).external_ids()
    wanted = ("system-id", "ovn-remote", "ovn-encap-type", "ovn-encap-ip", "ovn-bridge-mappings", "ovn-cms-options")
    words = " ".join(f"external_ids:{name}={found[name]}" for name in wanted if name in found)
    return f"ovs-vsctl set Open_vSwitch . {words}"
