# SPDX-License-Identifier: Apache-2.0
"""The compute nodes that settings are for, and of their NICs what nova and neutron need to know.

They come from this host or a capture (:func:`of_host`), or from a lab's topology (:func:`of_topology`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from asap2.host.inventory import Host, Netdev, Pf
from asap2.lab.topology import Nic as TopologyNic
from asap2.lab.topology import Topology
from asap2.nic.model import MELLANOX, MODELS

USUAL_VFS = 4
"""VFs of a NIC whose topology leaves their number open; `asap2 host setup` makes as many."""


@dataclass(frozen=True, slots=True)
class Nic:
    """A PF with its VFs. ``pf`` and ``vfs`` are PCI addresses, ``device`` and ``vf_device`` PCI device ids (0: not
    told). ``uplink`` is what goes into the bridge: the PF's network device, or the bond that it is a port of.
    ``bridge`` is where that is now. ``addresses`` (with prefix length) are of the devices that a tunnel can end at."""

    pf: str
    netdev: str
    vendor: int
    device: int
    vf_device: int
    vfs: tuple[str, ...] = ()
    uplink: str = ""
    bridge: str | None = None
    mtu: int = 1500
    mode: str | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A compute node; its name is its host name."""

    name: str
    nics: tuple[Nic, ...]


def of_host(host: Host, pfs: tuple[Pf, ...]) -> Node:
    """*host*, with *pfs* as its NICs."""
    return Node(host.hostname, tuple(_nic(host, pf) for pf in pfs))


def _nic(host: Host, pf: Pf) -> Nic:
    own = host.uplink(pf)
    uplink = _bond(host, own) or own
    place = host.openvswitch.port_of(uplink.name) if uplink else None
    bridge = place[0].name if place else None
    ends = [one for one in (uplink, host.netdev(bridge)) if one]
    return Nic(
        pf=pf.address,
        netdev=pf.name,
        vendor=pf.vendor,
        device=pf.device,
        vf_device=pf.vf_device,
        vfs=tuple(vf.address for vf in pf.vfs),
        uplink=uplink.name if uplink else pf.name,
        bridge=bridge,
        mtu=uplink.mtu if uplink else 1500,
        mode=pf.eswitch.mode if pf.eswitch else None,
        addresses=tuple(address for one in ends for address in one.addresses if _is_global(address)),
    )


def _bond(host: Host, netdev: Netdev | None) -> Netdev | None:
    """The bond that *netdev* is a port of."""
    master = host.netdev(netdev.master) if netdev else None
    return master if master and master.kind == "bond" else None


def _is_global(address: str) -> bool:
    return not ipaddress.ip_interface(address).is_link_local


def of_topology(topology: Topology) -> tuple[Node, ...]:
    """The nodes of a lab as they are when it is up."""
    return tuple(
        Node(node.name, tuple(_port(nic, port) for nic in node.nics for port in range(nic.ports)))
        for node in topology.nodes
    )


def _port(nic: TopologyNic, port: int) -> Nic:
    model = MODELS[nic.model]
    count = nic.vfs or min(USUAL_VFS, nic.total_vfs)
    return Nic(
        pf=nic.pf_address(port),
        netdev=nic.netdev(port),
        vendor=MELLANOX,
        device=model.device_id,
        vf_device=model.vf_device_id,
        vfs=tuple(nic.vf_address(port, vf) for vf in range(count)),
        uplink=nic.netdev(port),
        mode="switchdev" if nic.switchdev else None,
    )
