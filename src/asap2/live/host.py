# SPDX-License-Identifier: Apache-2.0
"""A real host, sampled many times a second, and a host in a capture file.

The counters of a host's ports are the kernel's. Where a driver tells what the CPU saw (IFLA_OFFLOAD_XSTATS_CPU_HIT,
as mlx5 does for representors), the rest was in hardware. Where it does not, a representor has only what the CPU saw,
and an uplink everything, which then counts as software.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from asap2.errors import Asap2Error
from asap2.host import openvswitch
from asap2.host.inventory import Host, Netdev
from asap2.host.inventory import Pf as HostPf
from asap2.host.observe import observe
from asap2.host.status import NicStatus, VfStatus, status
from asap2.live import switch
from asap2.live.counted import NOTHING, Read, Stats, StatsReader
from asap2.live.counters import split, turned
from asap2.live.detail import DetailReader, detail_of
from asap2.live.snapshot import Counters, Detail, Guest, Nic, Node, Port, PortKind, Snapshot, Tunnel
from asap2.live.tunnels import TunnelCounters

_NONE: Final[Mapping[str, Counters]] = MappingProxyType({})
LOOK_AGAIN = 5.0
"""Seconds until NICs, VFs and bridges are read again though no device has come or gone."""


class HostCollector:
    """Samples this host. Not for use by two threads at once. Asap2Error when it cannot be read."""

    def __init__(
        self,
        *,
        flows_every: float,
        see: Callable[[], Host] | None = None,
        stats: StatsReader | None = None,
    ) -> None:
        """Flows are read every so many seconds, when they are wanted. *see* and *stats* read the host, unless they are
        given."""
        self._flows_every = flows_every
        self._see = see or (lambda: observe(filters=False, openflow=False))
        self._stats = stats or StatsReader(cpu=True)
        self._tunnels = TunnelCounters(lambda name: str(openvswitch.run_directory() / name))
        self._details: DetailReader | None = None
        self._detail: Detail | None = None
        self._detail_due = 0.0
        self._due = 0.0
        self._seen: frozenset[int] = frozenset()
        self._shape: Snapshot | None = None
        self._host: Host | None = None
        self.generation = 0
        """Grows whenever anything but counters has changed."""

    def close(self) -> None:
        """Close the socket."""
        self._stats.close()

    def __enter__(self) -> HostCollector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def nodes(self) -> tuple[str, ...]:
        """The host's name, once it was sampled."""
        return tuple(node.name for node in self._shape.nodes) if self._shape is not None else ()

    def want_flows(self, nodes: Iterable[str]) -> None:
        """Read flows, connections and reasons from now on if *nodes* names the host, or else no longer; LookupError."""
        wanted = set(nodes)
        if unknown := wanted - set(self.nodes):
            raise LookupError(f"there is no host {min(unknown)!r} here; this is {', '.join(self.nodes)}")
        self._details = (self._details or DetailReader()) if wanted else None
        self._detail = self._detail if wanted else None

    def want_connections(self, wanted: Mapping[str, frozenset[str]]) -> None:
        """While flows are wanted, list those connections that have all words of one of the texts."""
        if self._details is not None:
            self._details.listed = frozenset().union(*wanted.values())
            self._detail_due = 0.0

    def sample(self) -> Snapshot:
        """The host now."""
        taken = time.time()
        try:
            counted = self._stats.all()
            host = self._host
            if host is None or frozenset(counted) != self._seen or time.monotonic() >= self._due:
                host = self._see()
                self._seen, self._due = frozenset(counted), time.monotonic() + LOOK_AGAIN
        except OSError as error:
            raise Asap2Error(f"the host's network devices cannot be read: {error.strerror or error}") from None
        if self._details is not None and time.monotonic() >= self._detail_due:
            self._detail = self._details.read()
            self._detail_due = time.monotonic() + self._flows_every
        tunnels = self._tunnels.read(host.openvswitch.bridges, lambda device: _seen(host, counted, device))
        made = snapshot_of(host, counted, taken=taken, source="host", detail=self._detail, of_tunnels=tunnels)
        if host is not self._host:  # counters alone leave the shape as it was
            self._host = host
            bare = without_counters(made)
            self.generation += bare != self._shape
            self._shape = bare
        return made


def _seen(host: Host, counted: Mapping[int, Read], device: str) -> Stats:
    """The counters of a network device, by name."""
    netdev = host.netdev(device)
    return counted.get(netdev.index, Read(NOTHING, None)).all if netdev is not None else NOTHING


def captured(host: Host) -> Snapshot:
    """The host in a capture, as it was then. A capture has the packets that the CPU saw as one number for both
    directions, which is divided as all packets are; the same holds for bytes."""
    taken = datetime.fromisoformat(host.taken).timestamp()
    counted = {netdev.index: _as_captured(netdev) for netdev in host.netdevs}
    return snapshot_of(host, counted, taken=taken, source="capture", detail=detail_of(host, taken))


def _as_captured(netdev: Netdev) -> Read:
    whole = Stats(netdev.rx_packets, netdev.tx_packets, netdev.rx_bytes, netdev.tx_bytes)
    packets = whole.rx_packets + whole.tx_packets
    if netdev.cpu_packets is None:
        return Read(whole, None)
    share = min(1.0, netdev.cpu_packets / packets) if packets else 0.0
    return Read(whole, Stats(*(round(one * share) for one in whole[:4])))


def without_counters(snapshot: Snapshot) -> Snapshot:
    """*snapshot* with counters that are 0, no details, and no time: two of the same shape are equal."""
    nodes = tuple(
        replace(
            node,
            ports=tuple(replace(port, counters=Counters()) for port in node.ports),
            nics=tuple(replace(nic, drops=()) for nic in node.nics),
            detail=None,
        )
        for node in snapshot.nodes
    )
    return replace(snapshot, taken=0.0, nodes=nodes)


def snapshot_of(
    host: Host,
    counted: Mapping[int, Read],
    *,
    taken: float,
    source: str,
    detail: Detail | None = None,
    of_tunnels: Mapping[str, Counters] = _NONE,
) -> Snapshot:
    """*host* as a snapshot of one node; *counted* has counters by interface index, *of_tunnels* those of tunnels by the
    name of the interface, as far as they are known."""
    name = host.hostname
    bridges = host.openvswitch.bridges
    page = status(host, host.pfs)
    ports: list[Port] = []
    guests: list[Guest] = []
    nics = []
    for nic, pf in zip(page.nics, host.pfs, strict=True):
        nics.append(Nic(nic.name, nic.model, nic.address, nic.mode, (nic.name,)))
        ports += _pf_ports(host, pf, nic, counted)
        for vf in nic.vfs:
            if vf.guest is not None:
                guests.append(Guest(vf.guest, name, _vf_id(name, nic, pf, vf), vf.netdev))
    devices = switch.devices(bridges)
    known = {port.name for port in ports if port.kind is not PortKind.VF}
    for port in switch.ports(name, bridges, known):
        device = devices[port.name]
        netdev = host.netdev(device.name)
        read = counted.get(netdev.index) if netdev is not None and device.alone else None
        whole = read.all if read is not None else NOTHING
        whole = turned(whole) if port.kind is PortKind.INTERNAL else whole
        counters = of_tunnels.get(port.name) or split(whole, whole, whole.rx_dropped + whole.tx_dropped)
        ports.append(replace(port, up=netdev.up if netdev else None, counters=counters))
    own = {address.partition("/")[0]: name for one in host.netdevs for address in one.addresses}
    tunnels: tuple[Tunnel, ...] = tuple(switch.tunnels(name, bridges, own))
    state = "up" if host.openvswitch.running else host.openvswitch.trouble or "up"
    node = Node(name, state, tuple(nics), tuple(ports), switch.shown(bridges), detail)
    return Snapshot(taken, source, name, (node,), tuple(guests), (), tunnels)


def _vf_id(host: str, nic: NicStatus, pf: HostPf, vf: VfStatus) -> str:
    return f"{host}/{nic.name}/pf{pf.number}vf{vf.index}"


def _pf_ports(host: Host, pf: HostPf, nic: NicStatus, counted: Mapping[int, Read]) -> Iterable[Port]:
    kind = PortKind.UPLINK if nic.mode == "switchdev" else PortKind.PF
    uplink, here = host.uplink(pf), host.hostname
    if uplink is not None:
        read = counted.get(uplink.index, Read(NOTHING, None))
        seen = read.cpu if read.cpu is not None else read.all
        counters = split(read.all, seen, read.all.rx_dropped + read.all.tx_dropped)
        place = nic.name, pf.number
        identity = f"{here}/{uplink.name}"
        yield Port(identity, uplink.name, kind, *place, None, None, nic.bridge, None, nic.up, nic.mac, counters)
    for vf in nic.vfs:
        representor = host.netdev(vf.representor)
        identity = _vf_id(here, nic, pf, vf)
        twin = f"{here}/{representor.name}" if representor is not None else None
        counters = _vf_counters(vf, counted.get(representor.index) if representor is not None else None)
        place = nic.name, pf.number
        named = vf.netdev or vf.address
        yield Port(identity, named, PortKind.VF, *place, vf.index, vf.guest, None, twin, vf.up, vf.mac, counters)
        if representor is not None and twin is not None:
            port = Port(twin, representor.name, PortKind.REPRESENTOR, *place, vf.index, None, vf.bridge, identity)
            yield replace(port, up=representor.up, mac=representor.mac, counters=counters)


def _vf_counters(vf: VfStatus, representor: Read | None) -> Counters:
    """What the representor tells where its driver tells the CPU's part apart; or else what the VF itself tells, of
    which the representor has seen so much."""
    if representor is not None and representor.cpu is not None:
        whole = representor.all
        return split(whole, representor.cpu, whole.rx_dropped + whole.tx_dropped)
    own = Stats(vf.tx_packets, vf.rx_packets, vf.tx_bytes, vf.rx_bytes)
    seen = representor.all if representor is not None else NOTHING
    whole = Stats._make(map(max, own, seen))
    return split(whole, seen, seen.rx_dropped + seen.tx_dropped)
