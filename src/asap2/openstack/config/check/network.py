# SPDX-License-Identifier: Apache-2.0
"""Rules between files: the scheduler's filter, physical networks, bridges, tunnels, neutron's drivers."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.host.check.finding import Finding
from asap2.openstack.config.check.answers import Entry, Settings
from asap2.openstack.config.check.findings import fail, ok, unknown, warn
from asap2.openstack.config.settings import FILTER
from asap2.openstack.config.values import BRIDGE_NAME_MAX, INTEGRATION_BRIDGE


def network(settings: Settings) -> Iterator[Finding]:
    """What does not fit together, as far as the files are there."""
    yield from _filters(settings)
    yield from _drivers(settings)
    yield from _security_groups(settings)
    yield from _ovn(settings)
    yield from _physical_networks(settings)
    yield from _bridges(settings)
    yield from _tunnels(settings)


# ---- nova-scheduler


def _filters(settings: Settings) -> Iterator[Finding]:
    one = settings.last("nova", "filter_scheduler", "enabled_filters")
    why = f"without {FILTER} the scheduler sends a server with a direct port to a host that has no VF left"
    if one is None:
        if any(entry.service == "nova" for entry in settings.entries) and not settings.specs:
            found = "enabled_filters is not set, and nova's default lacks the filter: right on compute nodes only"
            yield unknown("scheduler.filter", found, why, f"[filter_scheduler] enabled_filters = …,{FILTER}")
        return
    names = settings.listed("nova", "filter_scheduler", "enabled_filters")
    if one.opaque:
        names = [name for name in names if "$" not in name]
    if FILTER not in names:
        yield fail("scheduler.filter", f"enabled_filters lacks {FILTER}", why, f"add {FILTER}", one.place)
    else:
        yield ok("scheduler.filter", f"enabled_filters has {FILTER}", one.place)
    available = list(settings.all("nova", "filter_scheduler", "available_filters"))
    ours = not available or all(entry.value.startswith("nova.scheduler.filters.") for entry in available)
    for name in names if ours and settings.filters else ():
        if name not in settings.filters:
            why = "nova-scheduler does not start with a filter that it does not find"
            yield fail("scheduler.filter", f"nova has no filter {name}", why, "take it out", one.place)


# ---- neutron-server


def _drivers(settings: Settings) -> Iterator[Finding]:
    one = settings.last("neutron", "ml2", "mechanism_drivers")
    names = settings.listed("neutron", "ml2", "mechanism_drivers")
    if one and not {"openvswitch", "ovn"} & set(names):
        why = "it is these drivers that bind direct ports with the capability switchdev to Open vSwitch"
        found = f"mechanism_drivers is {one.value}, without openvswitch or ovn"
        yield fail("neutron.driver", found, why, "mechanism_drivers = openvswitch, or ovn", one.place)
    elif one and "sriovnicswitch" in names:
        why = "it binds direct ports without the capability switchdev as legacy SR-IOV, past Open vSwitch"
        found = "mechanism_drivers has sriovnicswitch, too"
        yield warn("neutron.driver", found, why, "take it out where all NICs are in switchdev mode", one.place)
    one = settings.last("neutron", "ovs_driver", "vnic_type_prohibit_list")
    if one and "direct" in settings.listed("neutron", "ovs_driver", "vnic_type_prohibit_list"):
        why = "the driver then binds no direct port"
        yield fail("neutron.driver", "vnic_type_prohibit_list has direct", why, "take it out", one.place)
    one = settings.last("neutron", "ovs", "datapath_type")
    if one and one.value == "netdev":
        why = "os-vif then plugs a DPDK port; a representor is for the kernel's datapath"
        yield fail("neutron.datapath", "datapath_type is netdev", why, "datapath_type = system", one.place)


def _security_groups(settings: Settings) -> Iterator[Finding]:
    """Whether the rules of security groups meet the packets of direct ports."""
    one = settings.last("neutron", "securitygroup", "enable_security_group")
    if one and one.value.strip().lower() in ("false", "0", "no", "off"):
        why = "no port is filtered, whatever its security groups say"
        yield warn("neutron.firewall", "security groups are off", why, "enable_security_group = true", one.place)
    one = settings.last("neutron", "securitygroup", "firewall_driver")
    if one is None or "ovn" in settings.listed("neutron", "ml2", "mechanism_drivers"):
        return
    name = one.value.strip()
    if name == "openvswitch":
        yield ok("neutron.firewall", "firewall_driver is openvswitch", one.place)
    elif "iptables" in name.lower():
        why = "iptables never see the packets of a direct port: it has no security group, although neutron shows it"
        yield fail("neutron.firewall", f"firewall_driver is {name}", why, "firewall_driver = openvswitch", one.place)
    elif name in ("noop", ""):
        why = "no port of this agent is filtered, whatever its security groups say"
        found = f"firewall_driver is {name or 'empty'}"
        yield warn("neutron.firewall", found, why, "firewall_driver = openvswitch", one.place)


def _ovn(settings: Settings) -> Iterator[Finding]:
    """What keeps packets out of hardware, or is not read, with OVN."""
    driver = settings.last("neutron", "ml2", "mechanism_drivers")
    if driver is None or "ovn" not in settings.listed("neutron", "ml2", "mechanism_drivers"):
        return
    one = settings.last("neutron", "securitygroup", "firewall_driver")
    if one and one.value.strip():
        why = "OVN filters by itself, and neutron ignores the setting"
        yield warn("neutron.firewall", f"firewall_driver is {one.value}", why, "take it out", one.place)
    one = settings.last("neutron", "ovn", "ovn_emit_need_to_frag")
    if one is None or one.value.strip().lower() not in ("false", "0", "no", "off"):
        why = "each packet to and from outside then meets check_pkt_len with a controller, which is not offloaded"
        found = (
            f"ovn_emit_need_to_frag is {one.value}" if one else "ovn_emit_need_to_frag is not set, and true by default"
        )
        yield warn("ovn.mtu", found, why, "[ovn] ovn_emit_need_to_frag = false", (one or driver).place)
    one = settings.last("neutron", "ovn", "enable_distributed_floating_ip")
    if one is None or one.value.strip().lower() not in ("true", "1", "yes", "on"):
        why = "floating IPs are then translated on the gateway, and not by the NIC of their server's node"
        found = "floating IPs are not distributed"
        yield warn("ovn.floating-ip", found, why, "[ovn] enable_distributed_floating_ip = true", (one or driver).place)
    plugins = settings.last("neutron", "DEFAULT", "service_plugins")
    if plugins and "ovn-router" not in settings.listed("neutron", "DEFAULT", "service_plugins"):
        why = "OVN has routers by this plugin alone; others' need an L3 agent"
        found = f"service_plugins is {plugins.value}, without ovn-router"
        yield warn("ovn.router", found, why, "service_plugins = ovn-router", plugins.place)


# ---- physical networks and bridges


def _mappings(settings: Settings) -> dict[str, tuple[str, Entry]]:
    found: dict[str, tuple[str, Entry]] = {}
    one = settings.last("neutron", "ovs", "bridge_mappings")
    for pair in settings.listed("neutron", "ovs", "bridge_mappings"):
        name, _, bridge = pair.partition(":")
        if one and bridge:
            found[name] = bridge, one
    return found


def _physical_networks(settings: Settings) -> Iterator[Finding]:
    sections = {one.section.lower() for one in settings.entries}
    # OVN has its mappings in Open vSwitch's database
    mapped, agent = _mappings(settings), bool(sections & {"ovs", "agent"}) and "ovn" not in sections
    ranges = settings.last("neutron", "ml2_type_vlan", "network_vlan_ranges")
    known = {name.partition(":")[0] for name in settings.listed("neutron", "ml2_type_vlan", "network_vlan_ranges")}
    flat = settings.listed("neutron", "ml2_type_flat", "flat_networks")
    for one in settings.specs:
        name = (one.data or {}).get("physical_network")
        if not isinstance(name, str) or name.lower() in ("null", "none", ""):
            continue
        if agent and name not in mapped:
            why = "neutron's agent has no bridge for it, and no port on it is bound"
            has = ", ".join(mapped) or "none"
            found = f"physical network {name} has no bridge in bridge_mappings, which has {has}"
            yield fail("physical-network", found, why, f"[ovs] bridge_mappings = {name}:BRIDGE", one.place)
        if ranges and name not in known and name not in flat and "*" not in flat:
            why = "neutron-server makes no network on it"
            found = f"physical network {name} is in neither network_vlan_ranges nor flat_networks"
            fix = f"[ml2_type_vlan] network_vlan_ranges = {name}:FIRST:LAST"
            yield fail("physical-network", found, why, fix, one.place)
    for name in known if mapped and ranges else ():
        if name not in mapped and ranges:
            why = "the agent has no bridge for it, and no port on it is bound on this node"
            found = f"physical network {name} of network_vlan_ranges is not in bridge_mappings"
            yield warn("physical-network", found, why, None, ranges.place)


def _bridges(settings: Settings) -> Iterator[Finding]:
    host = settings.host
    for name, (bridge, one) in _mappings(settings).items():
        if len(bridge) > BRIDGE_NAME_MAX:
            why = "the agent makes patch ports' names of it, which have 15 characters"
            found = f"{bridge} has {len(bridge)} characters, and {BRIDGE_NAME_MAX} is the most"
            yield warn("bridge", found, why, None, one.place)
        if bridge == INTEGRATION_BRIDGE:
            why = "that is the integration bridge, which the agent joins to the physical networks' ones"
            yield fail("bridge", f"{name} is mapped to {bridge}", why, "give it a bridge of its own", one.place)
            continue
        if host is None or not host.openvswitch.database:
            continue
        found_bridge = next((each for each in host.openvswitch.bridges if each.name == bridge), None)
        if found_bridge is None and one.path.endswith("local.conf"):
            continue  # devstack makes them
        if found_bridge is None:
            why = "the agent ends when a bridge of bridge_mappings is not there"
            fix = f"ovs-vsctl add-br {bridge} -- add-port {bridge} UPLINK"
            yield fail("bridge", f"there is no bridge {bridge} on {host.hostname}", why, fix, one.place)
            continue
        ports = {port.name for port in found_bridge.ports} | {
            interface.name for port in found_bridge.ports for interface in port.interfaces
        }
        yield from _uplinks(settings, name, bridge, ports, one)


def _uplinks(settings: Settings, name: str, bridge: str, ports: set[str], one: Entry) -> Iterator[Finding]:
    """Whether the uplinks of the VFs that are for a physical network are in its bridge."""
    assert settings.host is not None
    wanted = {
        place[0].address: place[0]
        for spec in settings.specs
        if (spec.data or {}).get("physical_network") == name
        for address in spec.matches
        if (place := settings.vf(address))
    }
    for pf in wanted.values():
        netdev = settings.host.uplink(pf)
        uplinks = {pf.name, netdev.master if netdev and netdev.master else pf.name}
        if not uplinks & ports:
            why = f"what a guest with a VF of {pf.name} sends to {name} goes to {bridge}, and not on to the wire"
            elsewhere = settings.host.openvswitch.port_of(pf.name)
            found = f"{bridge} has no port {pf.name}" + (f", which is in {elsewhere[0].name}" if elsewhere else "")
            fix = f"ovs-vsctl add-port {bridge} {pf.name}"
            if elsewhere:
                fix = f"ovs-vsctl del-port {elsewhere[0].name} {pf.name} -- add-port {bridge} {pf.name}"
            yield fail("bridge", found, why, fix, one.place)
        else:
            yield ok("bridge", f"{name} is {bridge}, with {pf.name}", one.place)


# ---- tunnels


def _tunnels(settings: Settings) -> Iterator[Finding]:
    types = settings.last("neutron", "agent", "tunnel_types")
    end = settings.last("neutron", "ovs", "local_ip")
    if types and types.value.strip() and end is None and not types.path.endswith("local.conf"):
        why = "the agent does not start: tunnels need an end"
        found = f"tunnel_types is {types.value}, and there is no [ovs] local_ip"
        yield fail("tunnel", found, why, "[ovs] local_ip = ADDRESS", types.place)
    if end and settings.host and "$" not in end.value:
        has = {address.partition("/")[0] for netdev in settings.host.netdevs for address in netdev.addresses}
        if end.value.strip() not in has:
            why = "the agent does not start with an address that the host has not"
            found = f"local_ip {end.value} is no address of {settings.host.hostname}"
            yield fail("tunnel", found, why, None, end.place)
    if types and "vxlan" in types.value and settings.specs:
        networks = [spec.data.get("physical_network") for spec in settings.specs if spec.data is not None]
        if None not in networks:
            why = "nova gives a direct port on a VXLAN network a VF whose physical_network is null"
            found = "tunnel_types has vxlan, and no entry of device_spec is for tunnels"
            yield warn("tunnel", found, why, '"physical_network": null for some VFs', types.place)
