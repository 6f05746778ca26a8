# SPDX-License-Identifier: Apache-2.0
"""What all formats say in their own words: physical networks, bridges, tunnels, and each node's ``device_spec``.

:func:`resolve` makes it of what is wanted and of the nodes' NICs. The names are those of OpenStack 2025.1.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

from asap2.errors import UsageError
from asap2.openstack.config.nodes import Nic, Node
from asap2.openstack.config.specs import device_specs
from asap2.openstack.mechanism import Mechanism

RELEASE = "2025.1"
PHYSICAL_NETWORK = "default"
"""The getting-started page's name for it."""
VNI_RANGE = "1:1000"
OVN_VNI_RANGE = "1:65536"
"""As devstack has it. The numbers are neutron's alone: OVN gives its networks others."""
CONTROLLER = "controller"
INTEGRATION_BRIDGE = "br-int"
BRIDGE_NAME_MAX = 11
"""Characters of a bridge's name in bridge_mappings, whose agent makes patch ports' names of it (neutron's ovs_conf)."""
USUAL_MTU = 1500
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user says. ``physical_networks``, ``vlan_ranges`` and ``bridges`` are in the order of the NICs;
    ``local_ips`` are the tunnel's ends by node ("" is the only one), ``tunnel_vfs`` how many VFs of each NIC are for
    tunnelled networks, None as many as there are, or half of them where there are physical networks too;
    ``mechanism`` is neutron's mechanism driver."""

    physical_networks: tuple[str, ...] = ()
    vlan_ranges: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    tunnel: bool = False
    tunnel_vfs: int | None = None
    local_ips: tuple[tuple[str, str], ...] = ()
    controller: str | None = None
    mechanism: Mechanism = Mechanism.OPENVSWITCH


@dataclass(frozen=True, slots=True)
class Network:
    """A physical network: the ``vlan_range`` that tenants' networks take their VLANs from ("" for none: an
    administrator gives each its VLAN), its bridge, and what goes into that."""

    name: str
    vlan_range: str
    bridge: str

    @property
    def vlans(self) -> str:
        """As in network_vlan_ranges."""
        return f"{self.name}:{self.vlan_range}" if self.vlan_range else self.name


@dataclass(frozen=True, slots=True)
class Compute:
    """A compute node: its bridges by physical network, each bridge's uplink, its end of tunnels, and what nova may
    give to guests, as ``[pci] device_spec`` has it."""

    name: str
    mappings: tuple[tuple[str, str], ...]
    uplinks: tuple[tuple[str, str], ...]
    local_ip: str | None
    device_specs: tuple[dict[str, Any], ...]
    pfs: tuple[str, ...]
    vfs: int


@dataclass(frozen=True, slots=True)
class Values:
    """All. ``mtu`` is the physical networks', None where it is the usual 1500; ``notes`` are for the user."""

    release: str
    networks: tuple[Network, ...]
    tunnel: bool
    vni_range: str
    mtu: int | None
    controller: str | None
    controller_ip: str | None
    computes: tuple[Compute, ...]
    mechanism: Mechanism = Mechanism.OPENVSWITCH
    notes: tuple[str, ...] = ()

    @property
    def ovn(self) -> bool:
        """Whether OVN is the mechanism driver."""
        return self.mechanism is Mechanism.OVN

    @property
    def tunnel_type(self) -> str:
        """The type of tunnelled networks."""
        return "geneve" if self.ovn else "vxlan"

    @property
    def tenant_types(self) -> tuple[str, ...]:
        """The types that a tenant's network can have: one needs a range to take its number from."""
        vlan = ("vlan",) if any(one.vlan_range for one in self.networks) else ()
        return (*vlan, self.tunnel_type) if self.tunnel else vlan

    @property
    def type_drivers(self) -> tuple[str, ...]:
        """The types of all networks. OVN always has Geneve: its chassis need a tunnel type, and devstack checks it."""
        physical = ("flat", "vlan") if self.networks else ()
        return (*physical, self.tunnel_type) if self.tunnel or self.ovn else physical

    @property
    def vlan_ranges(self) -> str:
        """As network_vlan_ranges has them."""
        return ",".join(one.vlans for one in self.networks)

    @property
    def mappings(self) -> str:
        """As bridge_mappings has them, on a node that has all of the networks."""
        return ",".join(f"{one.name}:{one.bridge}" for one in self.networks)


def mappings(compute: Compute) -> str:
    """A compute node's bridge_mappings."""
    return ",".join(f"{network}:{bridge}" for network, bridge in compute.mappings)


def resolve(wanted: Wanted, nodes: tuple[Node, ...]) -> Values:
    """The values of *wanted* on *nodes*; UsageError for what does not go together."""
    names = wanted.physical_networks or (() if wanted.tunnel else (PHYSICAL_NETWORK,))
    _check_names(names, "physical network")
    _check_names(wanted.bridges, "bridge")
    for node in nodes:
        if not node.nics:
            raise UsageError(f"{node.name} has no NIC with SR-IOV or an eSwitch; `asap2 host check` says more")
    ranges = _per_network(tuple(map(_vlan_range, wanted.vlan_ranges)), names, "VLAN range", "--vlan-range") or (
        "",
    ) * len(names)
    bridges = _bridges(wanted, names, nodes)
    networks = tuple(Network(*each) for each in zip(names, ranges, bridges, strict=True))
    ends = _local_ips(wanted, nodes)
    notes: list[str] = []
    computes = tuple(_compute(wanted, node, networks, ends, notes) for node in nodes)
    mtus = {nic.mtu for node in nodes for nic in node.nics}
    if len(mtus) > 1:
        notes.append(f"the uplinks' MTUs differ ({', '.join(map(str, sorted(mtus)))}): the smallest is taken")
    mtu = min(mtus, default=USUAL_MTU)
    return Values(
        release=RELEASE,
        networks=networks,
        tunnel=wanted.tunnel,
        vni_range=OVN_VNI_RANGE if wanted.mechanism is Mechanism.OVN else VNI_RANGE,
        mtu=mtu if mtu > USUAL_MTU else None,
        controller=wanted.controller,
        controller_ip=ends.get(CONTROLLER),
        computes=computes,
        mechanism=wanted.mechanism,
        notes=tuple(dict.fromkeys(notes)),
    )


def _check_names(names: tuple[str, ...], what: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be the name of a {what}: letters, digits, '.', '_' and '-' can")
        if what == "bridge" and len(name) > BRIDGE_NAME_MAX:
            raise UsageError(f"bridge {name} has {len(name)} characters, and neutron's agent takes {BRIDGE_NAME_MAX}")
    if len(set(names)) != len(names):
        raise UsageError(f"a {what} is named twice: {', '.join(names)}")


def _vlan_range(text: str) -> str:
    found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]) <= 4094:
        raise UsageError(f"{text!r} is no VLAN range: FIRST:LAST, from 1 to 4094, as 100:199")
    return text


def _per_network(given: tuple[str, ...], names: tuple[str, ...], what: str, option: str) -> tuple[str, ...]:
    if not given or len(given) == len(names):
        return given
    raise UsageError(f"{len(given)} times {option}, and {len(names)} physical networks: each has one {what}")


def _bridges(wanted: Wanted, names: tuple[str, ...], nodes: tuple[Node, ...]) -> tuple[str, ...]:
    """The networks' bridges: as said, as they are, or named after the uplink, as on the page, or the network."""
    given = _per_network(wanted.bridges, names, "bridge", "--bridge")
    if given:
        return given
    found = []
    uplinks = _uplinks(nodes[0], names) if nodes else {}
    for number, name in enumerate(names):
        nic = uplinks.get(name)
        bridge = nic.bridge if nic and nic.bridge != INTEGRATION_BRIDGE else None
        usual = (f"br-{nic.uplink}" if nic else "", f"br-{name}", f"br-phys{number}")
        found.append(bridge or next(one for one in usual if 3 < len(one) <= BRIDGE_NAME_MAX))
    return tuple(found)


def _uplinks(node: Node, names: tuple[str, ...]) -> dict[str, Nic]:
    """Each physical network's NIC (of a bond's, the first); UsageError when there are not as many."""
    if not names:
        return {}
    by_uplink: dict[str, Nic] = {}
    for nic in node.nics:
        by_uplink.setdefault(nic.uplink, nic)
    nics = list(by_uplink.values())
    if len(nics) != len(names):
        has = ", ".join(by_uplink)
        raise UsageError(
            f"{node.name}'s uplinks are {has}, and the physical networks {', '.join(names)}: "
            "say --physical-network for each uplink, or which PFs are meant"
        )
    return dict(zip(names, nics, strict=True))


def _local_ips(wanted: Wanted, nodes: tuple[Node, ...]) -> dict[str, str]:
    """The ends of tunnels by node: as said, or the one address that an uplink or its bridge has."""
    if not wanted.tunnel:
        if wanted.local_ips:
            raise UsageError("--local-ip is the end of tunnels: say --tunnel, too")
        return {}
    found: dict[str, str] = {}
    known = {node.name for node in nodes} | {CONTROLLER}
    for name, address in wanted.local_ips:
        if not name and len(nodes) != 1:
            raise UsageError(
                f"--local-ip {address}: say whose it is, as {nodes[0].name if nodes else CONTROLLER}={address}"
            )
        whose = name or nodes[0].name
        if whose not in known:
            raise UsageError(
                f"--local-ip {name}={address}: there is no node {name}; there is {', '.join(sorted(known))}"
            )
        try:
            found[whose] = str(ipaddress.ip_address(address))
        except ValueError:
            raise UsageError(f"--local-ip {address!r} is no IP address") from None
    for node in nodes:
        if node.name not in found:
            found[node.name] = _own_end(node)
    return found


def _own_end(node: Node) -> str:
    addresses = sorted({address.partition("/")[0] for nic in node.nics for address in nic.addresses})
    if len(addresses) == 1:
        return addresses[0]
    has = (
        f"its uplinks have {len(addresses)} addresses ({', '.join(addresses)})"
        if addresses
        else "its uplinks have none"
    )
    raise UsageError(f"--tunnel needs the address of {node.name}'s end, and {has}: say --local-ip {node.name}=ADDRESS")


def _compute(
    wanted: Wanted, node: Node, networks: tuple[Network, ...], ends: dict[str, str], notes: list[str]
) -> Compute:
    by_network = _uplinks(node, tuple(one.name for one in networks))
    bridge_of = {one.name: one.bridge for one in networks}
    specs: list[dict[str, Any]] = []
    for nic in node.nics:
        name = next((name for name, one in by_network.items() if one.uplink == nic.uplink), None)
        specs += device_specs(nic, name, _tunnel_vfs(wanted, nic, name))
        notes += _notes(node, nic, bridge_of.get(name or ""))
    return Compute(
        name=node.name,
        mappings=tuple((name, bridge_of[name]) for name in by_network),
        uplinks=tuple((bridge_of[name], nic.uplink) for name, nic in by_network.items()),
        local_ip=ends.get(node.name),
        device_specs=tuple(specs),
        pfs=tuple(nic.netdev for nic in node.nics),
        vfs=max((len(nic.vfs) for nic in node.nics), default=0),
    )


def _tunnel_vfs(wanted: Wanted, nic: Nic, network: str | None) -> int | None:
    """How many of *nic*'s VFs are for tunnelled networks; None for all, however many there will be."""
    if not wanted.tunnel:
        if wanted.tunnel_vfs:
            raise UsageError("--tunnel-vfs is of VFs for tunnelled networks: say --tunnel, too")
        return 0
    if network is None:
        return None
    if len(nic.vfs) < 2:
        raise UsageError(
            f"{nic.netdev} has {len(nic.vfs) or 'no'} VF{'s' if len(nic.vfs) != 1 else ''}, and nova gives a VF either "
            "to a physical network or to tunnelled ones: make at least two, with `asap2 host setup --vfs N`"
        )
    count = len(nic.vfs) // 2 if wanted.tunnel_vfs is None else wanted.tunnel_vfs
    if not 0 < count < len(nic.vfs):
        raise UsageError(
            f"--tunnel-vfs {count}: {nic.netdev} has {len(nic.vfs)} VFs, and some are to be left for {network}"
        )
    return count


def _notes(node: Node, nic: Nic, bridge: str | None) -> list[str]:
    """What is to be done, or known, of *nic*."""
    said = []
    if nic.mode == "legacy" or not nic.vfs:
        what = "has no VFs" if not nic.vfs else "is in legacy mode"
        said.append(f"{nic.netdev} of {node.name} {what}: `asap2 host setup` before nova-compute starts")
    if nic.bridge == INTEGRATION_BRIDGE and bridge:
        said.append(
            f"{nic.uplink} of {node.name} is in {INTEGRATION_BRIDGE}, which is neutron's own: move it to {bridge}, "
            f"with `ovs-vsctl del-port {INTEGRATION_BRIDGE} {nic.uplink} -- --may-exist add-br {bridge} -- "
            f"add-port {bridge} {nic.uplink}`"
        )
    if not nic.vf_device:
        said.append(
            f"{node.name}'s kernel does not tell {nic.netdev}'s VFs' device id: device_spec matches the PF, too"
        )
    return said
