# SPDX-License-Identifier: Apache-2.0
"""The services' configuration files, as text: what an installation guide of the release has one type, and no more.

What differs from a cloud of several machines: no Keystone (nova and placement take ``noauth2``, neutron ``noauth``),
and no DHCP or L3 agent. neutron's defaults let only services write ``binding:profile``; the operator here is
one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from asap2.openstack.mechanism import Mechanism
from asap2.openstack.plan import (
    CLOUD,
    CONTROLLER,
    CONTROLLER_ADDRESS,
    DIRECTORY,
    INTEGRATION_BRIDGE,
    OVN_TUNNEL,
    PHYSICAL_NETWORK,
    PORTS,
    TOKEN,
    VLAN_RANGE,
    VNI_RANGE,
    Compute,
    url,
)
from asap2.ovn import programs

Sections = Mapping[str, Mapping[str, str | int | Sequence[str]]]

USER, PASSWORD = "openstack", "openstack"
"""Of MariaDB and RabbitMQ, which nobody outside the lab reaches."""
TRANSPORT = f"rabbit://{USER}:{PASSWORD}@{CONTROLLER_ADDRESS}:{PORTS['rabbitmq']}/"
VIF_PLUGGING_SECONDS = 30
"""How long nova waits for neutron's word that a port is there; 300 by default. Here nothing is slow for good reason."""
AGENT_REPORT_SECONDS, AGENT_DOWN_SECONDS = 5, 20
"""How often an agent tells that it lives, and when neutron takes it for dead; 30 and 75 by default."""
OVSDB = "unix:/run/openvswitch/db.sock"

METADATA_SECRET = "asap2"
"""By which nova's metadata service knows that a request is from neutron's agent."""

PRIVSEP_OF_NEUTRON = (
    "privsep",
    "privsep_dhcp_release",
    "privsep_ovs_vsctl",
    "privsep_namespace",
    "privsep_conntrack",
    "privsep_link",
)
"""Sections of neutron's privileged daemons (neutron/privileged/__init__.py), each started by a command of its own."""


def ini(sections: Sections) -> str:
    """*sections* as oslo.config reads them; a list becomes an option given several times."""
    lines = []
    for section, options in sections.items():
        lines.append(f"[{section}]")
        for name, value in options.items():
            values = [value] if isinstance(value, str | int) else value
            lines += [f"{name} = {each}" for each in values]
        lines.append("")
    return "\n".join(lines)


def database(name: str, socket: Path | None = None) -> str:
    """The URL of the database *name*, on the controller or at a local *socket*."""
    at = "localhost" if socket else f"{CONTROLLER_ADDRESS}:{PORTS['database']}"
    local = f"&unix_socket={socket}" if socket else ""
    return f"mysql+pymysql://{USER}:{PASSWORD}@{at}/{name}?charset=utf8{local}"


def files(nodes: Sequence[Compute], environment: Path, mechanism: Mechanism = Mechanism.OPENVSWITCH) -> dict[str, str]:
    """Every file of the cloud, by its path below :data:`~asap2.openstack.plan.DIRECTORY`; *environment* is the
    virtual environment of OpenStack's packages."""
    controller = f"etc/{CONTROLLER}"
    made = {
        f"{controller}/rabbitmq.conf": rabbitmq(),
        f"{controller}/nova.conf": ini(nova(environment)),
        f"{controller}/nova-api-paste.ini": nova_paste((environment / "etc/nova/api-paste.ini").read_text()),
        f"{controller}/placement.conf": ini(placement()),
        f"{controller}/glance-api.conf": ini(glance(environment)),
        f"{controller}/glance-policy.yaml": policies(GLANCE_POLICIES),
        f"{controller}/neutron.conf": ini(neutron(environment, mechanism=mechanism)),
        f"{controller}/neutron-policy.yaml": policies(NEUTRON_POLICIES),
        f"{controller}/ml2_conf.ini": ini(ml2_of_ovn() if mechanism is Mechanism.OVN else ml2()),
        f"{controller}/clouds.yaml": clouds(),
    }
    for node in nodes:
        made[f"etc/{node.host}/nova.conf"] = ini(nova(environment, node))
        made[f"etc/{node.host}/neutron.conf"] = ini(neutron(environment, node))
        if mechanism is Mechanism.OPENVSWITCH:
            made[f"etc/{node.host}/openvswitch_agent.ini"] = ini(agent(node, environment))
        else:
            made[f"etc/{node.host}/neutron_ovn_metadata_agent.ini"] = ini(metadata_agent(node, environment))
    return made


def nova(environment: Path, node: Compute | None = None, directory: Path = DIRECTORY) -> Sections:
    """nova.conf of *node*, or of the controller."""
    name = node.host if node else CONTROLLER
    state = directory / "state" / name / "nova"
    common: dict[str, Mapping[str, str | int | Sequence[str]]] = {
        "DEFAULT": {
            "host": name,
            "my_ip": node.address if node else CONTROLLER_ADDRESS,
            "transport_url": TRANSPORT,
            "state_path": str(state),
            "log_dir": str(directory / "log" / name),
            "periodic_fuzzy_delay": 0,
        },
        "placement": {"auth_type": "admin_token", "token": "admin", "endpoint": url("placement")}
        | {"endpoint_override": url("placement")},
        "neutron": {"auth_type": "none", "endpoint_override": url("network")},
        "glance": {"endpoint_override": url("image")},
        "oslo_concurrency": {"lock_path": str(state / "lock")},
        "oslo_messaging_notifications": {"driver": "noop"},
    }
    if node:
        common["DEFAULT"] = {
            **common["DEFAULT"],
            "compute_driver": "asap2.Asap2Driver",
            "vif_plugging_timeout": VIF_PLUGGING_SECONDS,
            "instances_path": str(state / "instances"),
        }
        common["pci"] = {"device_spec": device_specs(node)}
        common["os_vif_ovs"] = {"ovsdb_connection": OVSDB}
        common["vif_plug_ovs_privileged"] = {
            "helper_command": f"{environment}/bin/privsep-helper --config-file {node.settings}/nova.conf"
        }
        return common
    common["DEFAULT"] = {
        **common["DEFAULT"],
        "enabled_apis": "osapi_compute",
        "osapi_compute_listen": CONTROLLER_ADDRESS,
        "osapi_compute_listen_port": PORTS["compute"],
        "osapi_compute_workers": 1,
    }
    common["DEFAULT"] = {
        **common["DEFAULT"],
        "metadata_listen": CONTROLLER_ADDRESS,
        "metadata_listen_port": PORTS["metadata"],
        "metadata_workers": 1,
    }
    common["neutron"] = {
        **common["neutron"],
        "service_metadata_proxy": "true",
        "metadata_proxy_shared_secret": METADATA_SECRET,
    }
    common["wsgi"] = {"api_paste_config": str(directory / "etc" / name / "nova-api-paste.ini")}
    common["api"] = {"auth_strategy": "noauth2"}
    common["api_database"] = {"connection": database("nova_api")}
    common["database"] = {"connection": database("nova")}
    common["conductor"] = {"workers": 1}
    common["scheduler"] = {"workers": 1, "discover_hosts_in_cells_interval": 3}
    common["filter_scheduler"] = {"enabled_filters": "ComputeFilter,PciPassthroughFilter"}
    return common


def device_specs(node: Compute) -> list[str]:
    """The values of ``[pci] device_spec``, one for each VF; those for tunnelled networks have no physical network."""
    networks = [(address, PHYSICAL_NETWORK) for address in node.vlan_vfs]
    return [
        json.dumps({"address": address, "physical_network": network})
        for address, network in [*networks, *((address, None) for address in node.tunnel_vfs)]
    ]


def nova_paste(original: str) -> str:
    """nova's own api-paste.ini with a filter after ``noauth2`` that gives the operator token and roles."""
    filtered = original.replace(" noauth2 osapi_compute_app_v21", " noauth2 operator osapi_compute_app_v21")
    return f"{filtered}\n[filter:operator]\npaste.filter_factory = asap2.openstack.operator:filter_factory\n"


def placement(directory: Path = DIRECTORY) -> Sections:
    """placement.conf."""
    return {
        "DEFAULT": {"log_file": str(directory / "log" / CONTROLLER / "placement.log")},
        "api": {"auth_strategy": "noauth2"},
        "placement_database": {"connection": database("placement")},
    }


def glance(environment: Path, directory: Path = DIRECTORY) -> Sections:
    """glance-api.conf."""
    state = directory / "state" / CONTROLLER / "glance"
    return {
        "DEFAULT": {
            "bind_host": CONTROLLER_ADDRESS,
            "bind_port": PORTS["image"],
            "workers": 0,
            "log_file": str(directory / "log" / CONTROLLER / "glance-api.log"),
            "enabled_backends": "file:file",
        },
        "database": {"connection": database("glance")},
        "glance_store": {"default_backend": "file"},
        "file": {"filesystem_store_datadir": str(state / "images")},
        "os_glance_staging_store": {"filesystem_store_datadir": str(state / "staging")},
        "os_glance_tasks_store": {"filesystem_store_datadir": str(state / "tasks")},
        "oslo_policy": {"policy_file": str(directory / "etc" / CONTROLLER / "glance-policy.yaml")},
        "oslo_concurrency": {"lock_path": str(state / "lock")},
        "paste_deploy": {"config_file": str(environment / "etc/glance/glance-api-paste.ini")},
    }


def neutron(
    environment: Path,
    node: Compute | None = None,
    directory: Path = DIRECTORY,
    mechanism: Mechanism = Mechanism.OPENVSWITCH,
) -> Sections:
    """neutron.conf of *node*, or of the controller."""
    name = node.host if node else CONTROLLER
    state = directory / "state" / name / "neutron"
    common: dict[str, Mapping[str, str | int | Sequence[str]]] = {
        "DEFAULT": {
            "host": name,
            "core_plugin": "ml2",
            "transport_url": TRANSPORT,
            "state_path": str(state),
            "log_dir": str(directory / "log" / name),
        },
        "oslo_concurrency": {"lock_path": str(state / "lock")},
        "oslo_messaging_notifications": {"driver": "noop"},
    }
    if node:
        return common
    common["DEFAULT"] = {
        **common["DEFAULT"],
        "service_plugins": "ovn-router" if mechanism is Mechanism.OVN else "",
        "auth_strategy": "noauth",
        "bind_host": CONTROLLER_ADDRESS,
        "bind_port": PORTS["network"],
        "api_workers": 1,
        "rpc_workers": 1,
        "rpc_state_report_workers": 0,
        "api_paste_config": str(environment / "etc/neutron/api-paste.ini"),
        "send_events_interval": 0,
        "agent_down_time": AGENT_DOWN_SECONDS,
    }
    common["database"] = {"connection": database("neutron")}
    common["nova"] = {"auth_type": "admin_token", "token": TOKEN, "endpoint": url("compute", "/v2.1")}
    common["oslo_policy"] = {"policy_file": str(directory / "etc" / name / "neutron-policy.yaml")}
    return common


def ml2() -> Sections:
    """ml2_conf.ini."""
    return {
        "ml2": {
            "type_drivers": "flat,vlan,vxlan",
            "tenant_network_types": "vlan,vxlan",
            "mechanism_drivers": "openvswitch",
            "extension_drivers": "port_security",
        },
        "ml2_type_flat": {"flat_networks": PHYSICAL_NETWORK},
        "ml2_type_vlan": {"network_vlan_ranges": f"{PHYSICAL_NETWORK}:{VLAN_RANGE[0]}:{VLAN_RANGE[1]}"},
        "ml2_type_vxlan": {"vni_ranges": f"{VNI_RANGE[0]}:{VNI_RANGE[1]}"},
    }


def ml2_of_ovn() -> Sections:
    """ml2_conf.ini for OVN.

    A floating IP is translated on the node of its server, not on one gateway for all. ``ovn_emit_need_to_frag`` has the
    length of every packet to and from outside checked, with an action for OVN's controller; Open vSwitch offloads no
    flow with such an action.
    """
    types = {"type_drivers": f"flat,vlan,{OVN_TUNNEL}", "tenant_network_types": f"vlan,{OVN_TUNNEL}"}
    vnis = {"vni_ranges": f"{VNI_RANGE[0]}:{VNI_RANGE[1]}"}
    changed: Sections = {
        "ml2": {**ml2()["ml2"], **types, "mechanism_drivers": "ovn"},
        f"ml2_type_{OVN_TUNNEL}": {**vnis, "max_header_size": 38} if OVN_TUNNEL == "geneve" else vnis,
        "ovn": {
            "ovn_nb_connection": programs.northbound(CONTROLLER_ADDRESS),
            "ovn_sb_connection": programs.southbound(CONTROLLER_ADDRESS),
            "ovn_metadata_enabled": "true",
            "enable_distributed_floating_ip": "true",
            "ovn_emit_need_to_frag": "false",
        },
    }
    return {**ml2(), **changed}


def metadata_agent(node: Compute, environment: Path) -> Sections:
    """neutron_ovn_metadata_agent.ini of *node*."""
    return {
        "DEFAULT": {
            "nova_metadata_host": CONTROLLER_ADDRESS,
            "metadata_proxy_shared_secret": METADATA_SECRET,
            "metadata_workers": 0,
        },
        "ovs": {"ovsdb_connection": OVSDB},
        "ovn": {"ovn_sb_connection": programs.southbound(CONTROLLER_ADDRESS)},
        "agent": {"root_helper": "", "use_helper_for_ns_read": "false", "report_interval": AGENT_REPORT_SECONDS},
        **_privsep(node, environment, "neutron_ovn_metadata_agent.ini"),
    }


def _privsep(node: Compute, environment: Path, file: str) -> Sections:
    """The sections of neutron's privileged daemons, for an agent that reads *file*."""
    helper = (
        f"{environment}/bin/privsep-helper --config-file {node.settings}/neutron.conf "
        f"--config-file {node.settings}/{file}"
    )
    return {section: {"helper_command": helper} for section in PRIVSEP_OF_NEUTRON}


def agent(node: Compute, environment: Path) -> Sections:
    """openvswitch_agent.ini of *node*."""
    return {
        "ovs": {
            "ovsdb_connection": OVSDB,
            "integration_bridge": INTEGRATION_BRIDGE,
            "bridge_mappings": f"{PHYSICAL_NETWORK}:{node.bridge}",
            "local_ip": node.tunnel_address,
        },
        "agent": {"tunnel_types": "vxlan", "root_helper": "", "use_helper_for_ns_read": "false"}
        | {"report_interval": AGENT_REPORT_SECONDS},
        "securitygroup": {"firewall_driver": "openvswitch"},
        **_privsep(node, environment, "openvswitch_agent.ini"),
    }


NEUTRON_POLICIES = {
    f"{verb}_port:binding:{what}": "rule:context_is_admin or role:service"
    for verb in ("create", "update")
    for what in ("profile", "host_id")
}
"""The operator types --binding-profile; by default only services may (neutron/conf/policies/port.py)."""

GLANCE_POLICIES = dict.fromkeys(
    (
        "default",
        "context_is_admin",
        *(f"{verb}_image" for verb in ("add", "get", "delete", "modify", "upload", "download", "publicize")),
        "get_images",
        "communitize_image",
        *(f"{verb}_image_location" for verb in ("get", "set", "delete", "fetch")),
    ),
    "",
)
"""Without Keystone nobody has a role, so everybody may do all."""


def policies(rules: Mapping[str, str]) -> str:
    """A policy.yaml of *rules*."""
    return "".join(f"{json.dumps(name)}: {json.dumps(rule)}\n" for name, rule in rules.items())


def rabbitmq() -> str:
    """rabbitmq.conf."""
    return (
        f"listeners.tcp.1 = {CONTROLLER_ADDRESS}:{PORTS['rabbitmq']}\n"
        f"default_user = {USER}\n"
        f"default_pass = {PASSWORD}\n"
        "disk_free_limit.absolute = 50MB\n"
        "vm_memory_high_watermark.absolute = 1GB\n"
    )


def clouds() -> str:
    """clouds.yaml for the client, whose only cloud it is."""
    services = {
        "compute": url("compute", "/v2.1"),
        "image": url("image"),
        "network": url("network"),
        "placement": url("placement"),
    }
    cloud = {
        "auth_type": "admin_token",
        "auth": {"endpoint": url("compute", "/v2.1"), "token": TOKEN},
        "image_api_version": "2",
        "network_api_version": "2",
        **{f"{name}_endpoint_override": address for name, address in services.items()},
    }
    return json.dumps({"clouds": {CLOUD: cloud}}, indent=2) + "\n"
