# SPDX-License-Identifier: Apache-2.0
"""Bridges, the ports that only Open vSwitch knows of, and tunnels: from its database, which may be another node's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from asap2.host import openvswitch
from asap2.host.inventory import Bridge as SwitchBridge
from asap2.host.inventory import Interface
from asap2.live.snapshot import Bridge, Port, PortKind, Tunnel
from asap2.namespaces import in_mntns

RUN_DIRECTORY = "/run/openvswitch"
TUNNELS = frozenset({"vxlan", "geneve", "gre", "ip6gre", "erspan", "ip6erspan", "gtpu", "bareudp"})
"""Types of interfaces that are ends of tunnels (ovs-vswitchd.conf.db(5))."""
_DEVICES = {"vxlan": "vxlan_sys_{}", "geneve": "genev_sys_{}", "gre": "gre_sys", "ip6gre": "ip6gre_sys"}
"""What Open vSwitch calls the device of all tunnels of a type (lib/dpif-netlink-rtnl.c, lib/netdev-vport.c)."""
_UDP_PORTS = {"vxlan": "4789", "geneve": "6081"}
_PATIENCE = 2.0
"""Seconds that the database may take."""


class SwitchDatabase:
    """Open vSwitch's database of the node whose mount namespace is open at *mount_namespace*, read from outside it.

    The directory of sockets is opened again when there is none at the old place: it goes with the node's programs.
    """

    def __init__(self, mount_namespace: int) -> None:
        self._mount_namespace = mount_namespace
        self._directory: int | None = None

    def bridges(self) -> tuple[SwitchBridge, ...]:
        """The bridges; none while the database does not run or does not answer."""
        for _ in range(2):
            found = self._read()
            if found is not None:
                return found
            self.close()
        return ()

    def path(self, name: str) -> str | None:
        """The path of a file in the directory of sockets; None while that is not open."""
        return f"/proc/self/fd/{self._directory}/{name}" if self._directory is not None else None

    def close(self) -> None:
        """Let go of the directory."""
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    def _read(self) -> tuple[SwitchBridge, ...] | None:
        try:
            if self._directory is None:
                flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
                self._directory = in_mntns(self._mount_namespace, lambda: os.open(RUN_DIRECTORY, flags))
            path = self.path("db.sock")
            if path is None or not os.path.exists(path):
                return None
            return read_bridges(f"unix:{path}")
        except (OSError, openvswitch.SwitchError):
            return None


def read_bridges(remote: str) -> tuple[SwitchBridge, ...] | None:
    """The bridges in the database at *remote*; None when it refuses. SilentError."""
    selects = [{"op": "select", "table": table, "where": []} for table in openvswitch.TABLES]
    parameters = [openvswitch.DATABASE, *selects]
    error, reply = openvswitch.transact(remote, openvswitch.SERVER, "transact", parameters, _PATIENCE)
    if error or reply.error is not None:
        return None
    rows = zip(openvswitch.TABLES, reply.result, strict=False)
    return openvswitch.bridges({table: result.get("rows", []) for table, result in rows})


def shown(bridges: Iterable[SwitchBridge]) -> tuple[Bridge, ...]:
    """*bridges* as a snapshot has them."""
    return tuple(Bridge(one.name, tuple(each.name for each in _interfaces(one))) for one in bridges)


def bridge_of(bridges: Iterable[SwitchBridge]) -> dict[str, str]:
    """The bridge of each interface, by names."""
    return {each.name: one.name for one in bridges for each in _interfaces(one)}


def ports(node: str, bridges: Iterable[SwitchBridge], known: Iterable[str]) -> list[Port]:
    """The ports of *bridges* at *node*, but for the interfaces whose names are *known* from elsewhere."""
    names = set(known)
    found = []
    for bridge in bridges:
        for interface in _interfaces(bridge):
            if interface.name in names:
                continue
            peer = dict(interface.options).get("peer")
            twin = f"{node}/{peer}" if interface.type == "patch" and peer else None
            kind = _kind(interface)
            found.append(Port(f"{node}/{interface.name}", interface.name, kind, bridge=bridge.name, twin=twin))
    return found


def _kind(interface: Interface) -> PortKind:
    if interface.type in TUNNELS:
        return PortKind.TUNNEL
    return {"internal": PortKind.INTERNAL, "patch": PortKind.PATCH}.get(interface.type, PortKind.OTHER)


@dataclass(frozen=True, slots=True)
class DeviceOf:
    """The network device that carries a port's packets; ``alone`` if it carries no other port's."""

    name: str
    alone: bool


def devices(bridges: Iterable[SwitchBridge]) -> dict[str, DeviceOf]:
    """The network device of each interface, by the interface's name. All tunnels of a type share a device."""
    named: dict[str, str] = {}
    for bridge in bridges:
        for interface in _interfaces(bridge):
            port = dict(interface.options).get("dst_port", _UDP_PORTS.get(interface.type, ""))
            pattern = _DEVICES.get(interface.type, interface.name)
            named[interface.name] = pattern.format(port)
    every = list(named.values())
    return {name: DeviceOf(device, every.count(device) == 1) for name, device in named.items()}


def tunnels(node: str, bridges: Iterable[SwitchBridge], nodes: Mapping[str, str]) -> list[Tunnel]:
    """The ends of tunnels at *node*; *nodes* names the node that has an address."""
    found = []
    for bridge in bridges:
        for interface in _interfaces(bridge):
            if interface.type in TUNNELS:
                options = dict(interface.options)
                remote = options.get("remote_ip")
                local, key = options.get("local_ip"), options.get("key")
                peer = nodes.get(remote or "")
                found.append(Tunnel(f"{node}/{interface.name}", interface.type, local, remote, key, peer))
    return found


def _interfaces(bridge: SwitchBridge) -> Iterable[Interface]:
    return (each for port in bridge.ports for each in port.interfaces)
