# SPDX-License-Identifier: Apache-2.0
"""A program for the Python that has nova and neutron: what they make of their files, as their services read them.

The question on standard input: ``nova`` and ``neutron``, lists of files, and ``devices`` as nova's drivers report them.
The answer has device_spec's matches by network, the scheduler's filter classes, and neutron's parsed values.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def nova(files: list[str], devices: list[dict[str, Any]]) -> dict[str, Any]:
    """nova-compute's and nova-scheduler's."""
    import nova.conf
    from nova.pci import utils, whitelist
    from nova.scheduler import filters

    conf = nova.conf.CONF
    conf([word for file in files for word in ("--config-file", file)], project="nova", default_config_files=[])
    pfs = {one["address"] for one in devices if one["dev_type"] == "type-PF"}
    utils.is_physical_function = lambda domain, bus, slot, func: f"{domain}:{bus}:{slot}.{func}" in pfs
    found = whitelist.Whitelist(conf.pci.device_spec)
    tags = {one["address"]: spec.get_tags() for one in devices if (spec := found.device_assignable(one))}

    def pool(network: str | None) -> list[str]:
        """The devices for a direct port on *network* (None: a tunnel), as the scheduler filters them."""
        return sorted(
            address
            for address, each in tags.items()
            if utils.pci_device_prop_match({**each, "address": address}, [{"physical_network": network}])
        )

    handler = filters.HostFilterHandler()
    classes = {each.__name__ for each in handler.get_matching_classes(conf.filter_scheduler.available_filters)}
    return {
        "default": pool("default"),
        "tunnels": pool(None),
        "filters": conf.filter_scheduler.enabled_filters,
        "missing": sorted(set(conf.filter_scheduler.enabled_filters) - classes),
    }


def neutron(files: list[str]) -> dict[str, Any]:
    """neutron-server's and the agent's."""
    from neutron.common import config
    from neutron.conf.plugins.ml2 import config as ml2
    from neutron.conf.plugins.ml2.drivers import driver_type, ovs_conf
    from neutron_lib.plugins import utils as plugins
    from neutron_lib.utils import helpers
    from oslo_config import cfg

    ml2.register_ml2_plugin_opts()
    driver_type.register_ml2_drivers_vlan_opts()
    driver_type.register_ml2_drivers_vxlan_opts()
    driver_type.register_ml2_drivers_flat_opts()
    ovs_conf.register_ovs_agent_opts()
    config.register_common_config_options()
    conf = cfg.CONF
    conf([word for file in files for word in ("--config-file", file)], project="neutron", default_config_files=[])
    ranges = plugins.parse_network_vlan_ranges(conf.ml2_type_vlan.network_vlan_ranges)
    return {
        "core_plugin": conf.core_plugin,
        "mtu": conf.global_physnet_mtu,
        "drivers": conf.ml2.mechanism_drivers,
        "types": conf.ml2.type_drivers,
        "tenants": conf.ml2.tenant_network_types,
        "ranges": ranges,
        "flat": conf.ml2_type_flat.flat_networks,
        "vni": conf.ml2_type_vxlan.vni_ranges,
        "mappings": helpers.parse_mappings(conf.OVS.bridge_mappings),
        "local_ip": conf.OVS.local_ip,
        "tunnels": conf.AGENT.tunnel_types,
    }


def main() -> None:
    """Answer."""
    question = json.load(sys.stdin)
    output, sys.stdout = sys.stdout, sys.stderr
    service = question["service"]
    files, devices = question["files"], question["devices"]
    json.dump(nova(files, devices) if service == "nova" else neutron(files), output)


if __name__ == "__main__":
    main()
