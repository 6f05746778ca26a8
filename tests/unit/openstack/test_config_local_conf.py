# SPDX-License-Identifier: Apache-2.0
"""``--check`` of devstack's local.conf."""

from __future__ import annotations

import json
from pathlib import Path

from asap2.openstack.config.check.devstack import devstack
from asap2.openstack.config.check.reading import Devstack, read

LOCAL_CONF = """\
[[local|localrc]]
PCI=03:00
enable_plugin os-vif https://example.org/os-vif
PHYSICAL_NETWORK=default  # as on the page
OVS_PHYSICAL_BRIDGE="br-${PHYSICAL_NETWORK}"
[[post-config|$NOVA_CONF]]
[pci]
# a comment
passthrough_whitelist ={"'"address"'":"'"*:'"${PCI}"'.*"'","'"physical_network"'":"'"default"'"}
[filter_scheduler]
enabled_filters = $NOVA_FILTERS,$MORE,PciPassthroughFilter
[[post-config|/$Q_PLUGIN_CONF_FILE]]
[agent]
tunnel_types = vx"lan
[[post-config|$KEYSTONE_CONF]]
[DEFAULT]
debug = True
"""


def test_a_local_conf_is_read_as_devstack_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "local.conf"
    path.write_text(LOCAL_CONF)
    found = read([str(path)])
    first, second = found.assignments["nova"]
    assert (first.line, first.section, first.key) == (9, "pci", "passthrough_whitelist")
    assert json.loads(first.value) == {"address": "*:03:00.*", "physical_network": "default"}
    assert second.value.startswith("ComputeFilter,")
    assert second.opaque
    (mapping,) = found.assignments["neutron"]
    assert (mapping.line, mapping.key, mapping.value) == (4, "bridge_mappings", "default:br-default")
    assert found.devstacks[0].unread == ((14, 'tunnel_types = vx"lan'),)
    assert [(one.id, one.subject) for one in devstack(found.devstacks)] == [
        ("devstack.quotes", f"{path}:14"),
        ("devstack.plugin", f"{path}:3"),
        ("devstack.agent", f"{path}:1"),
    ]


def test_a_local_conf_with_open_vswitch_is_right() -> None:
    assert list(devstack([Devstack("local.conf", {"Q_AGENT": (3, "openvswitch")})])) == []


def test_a_local_conf_with_ovn_says_so() -> None:
    drivers = {"Q_ML2_PLUGIN_MECHANISM_DRIVERS": (4, "ovn,logger")}
    assert list(devstack([Devstack("local.conf", drivers)])) == []
    (found,) = devstack([Devstack("local.conf", {"Q_AGENT": (3, "openvswitch"), **drivers})])
    assert found.found == "Q_AGENT is openvswitch, and Q_ML2_PLUGIN_MECHANISM_DRIVERS ovn,logger"
