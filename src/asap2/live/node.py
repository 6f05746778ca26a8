# SPDX-License-Identifier: Apache-2.0
"""One node of a running lab, watched from outside: its netdevs, its NICs and its bridges.

Counters are read each time. What there is, and what is joined to what, is read when a device has come or gone, and
every :data:`LOOK_AGAIN` seconds, because Open vSwitch's database can change without that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from asap2.host.inventory import Bridge as SwitchBridge
from asap2.host.kernel.links import addresses
from asap2.lab.description import PCI, eswitch_mode
from asap2.lab.layout import Layout
from asap2.lab.namespaces import call_in
from asap2.live import switch
from asap2.live.counted import NOTHING, Read, Stats, StatsReader
from asap2.live.counters import split, turned
from asap2.live.silicon import Pairs, Refusals, SiliconWatch
from asap2.live.snapshot import Counters, Nic, Node, Port, PortKind
from asap2.live.tunnels import TunnelCounters
from asap2.namespaces import in_netns
from asap2.netlink.client import Connection
from asap2.nic.links import Link, LinkReader

LOOK_AGAIN = 5.0
"""Seconds until the structure is read again though no device has come or gone."""
_NOTHING = Read(NOTHING, None)


@dataclass(frozen=True, slots=True)
class Structure:
    """A node, without counters. ``readers`` count the ports, in the order of ``ports``."""

    ports: tuple[Port, ...] = ()
    readers: tuple[Callable[[], Counters], ...] = ()
    nics: tuple[Nic, ...] = ()
    bridges: tuple[SwitchBridge, ...] = ()
    addresses: frozenset[str] = frozenset()


class NodeWatch:
    """The node that *record*, an entry of a lab's record, describes; *guests* are the network namespaces of the lab's
    guests, open, by the guests' names. OSError when the node is not there."""

    def __init__(self, layout: Layout, record: dict[str, Any], guests: dict[str, int]) -> None:
        self.name: str = record["name"]
        self._record = record
        self._guests = guests
        self._bundle = layout.bundle(self.name)
        directory = layout.node(self.name)
        self._netns = os.open(self._bundle / "net", os.O_RDONLY | os.O_CLOEXEC)
        self._mntns = os.open(self._bundle / "mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._stats = StatsReader(self._netns)
        self._links = in_netns(self._netns, LinkReader)
        self._route = in_netns(self._netns, Connection)
        self._switch = switch.SwitchDatabase(self._mntns)
        self._refusals = Refusals(directory / "bpf" / "node")
        self._silicon = {
            nic["name"]: SiliconWatch(layout.silicon(self.name, number), directory / "bpf" / nic["name"])
            for number, nic in enumerate(record["nics"])
        }
        self._tunnels = TunnelCounters(self._switch.path)
        self._tunnel_devices: dict[str, int] = {}
        """The interface index of each device that has tunnels, by name."""
        self._of_tunnels: Mapping[str, Counters] = {}
        self._now: dict[int, Read] = {}
        self._seen: tuple[frozenset[int], ...] = ()
        self._due = 0.0
        self.structure = Structure()
        self.generation = 0
        """Grows whenever :attr:`structure` has changed."""

    def close(self) -> None:
        """Close everything that is open."""
        self._stats.close()
        self._links.close()
        self._route.close()
        self._switch.close()
        self._refusals.close()
        for silicon in self._silicon.values():
            silicon.close()
        os.close(self._netns)
        os.close(self._mntns)

    def sample(self) -> Node:
        """The node now; OSError when it has gone. The CPU's counters are read first, so that what hardware has carried
        is never less than nothing."""
        self._read()
        seen = (frozenset(self._now), *(frozenset(silicon.now) for silicon in self._silicon.values()))
        if seen != self._seen or time.monotonic() >= self._due:
            self._follow(links_changed=seen != self._seen)
            self._seen = seen
        if self._tunnel_devices:
            self._of_tunnels = self._tunnels.read(
                self.structure.bridges, lambda device: self._stat(self._tunnel_devices.get(device, 0))
            )
        ports = tuple(
            replace(port, counters=read())
            for port, read in zip(self.structure.ports, self.structure.readers, strict=True)
        )
        nics = tuple(replace(nic, drops=self._silicon[nic.name].drops()) for nic in self.structure.nics)
        return Node(self.name, "up", nics, ports, switch.shown(self.structure.bridges))

    def _read(self) -> None:
        self._now = self._stats.all()
        for silicon in self._silicon.values():
            silicon.read()

    # ---- the structure

    def _follow(self, *, links_changed: bool) -> None:
        """Read the structure again."""
        self._due = time.monotonic() + LOOK_AGAIN
        bridges = self._switch.bridges()
        own = frozenset(one.partition("/")[0] for found in addresses(self._route).values() for one in found)
        old = self.structure
        if not links_changed and (bridges, own) == (old.bridges, old.addresses):
            return
        made = self._structure(bridges, own)
        if (made.ports, made.nics, made.bridges, made.addresses) != (old.ports, old.nics, old.bridges, old.addresses):
            self.generation += 1
        self.structure = made

    def _structure(self, bridges: tuple[SwitchBridge, ...], own: frozenset[str]) -> Structure:
        here = {link.ifindex: link for link in self._links.all()}
        bridge_of = switch.bridge_of(bridges)
        found: list[tuple[Port, Callable[[], Counters]]] = []
        nics = []
        for nic in self._record["nics"]:
            pairs = self._silicon[nic["name"]].far_ends()
            mode = self._mode(nic, pairs)
            for number, one in pairs.items():
                found += self._ports(nic, mode, number, one, here, bridge_of)
            pfs = tuple(port["netdev"] for port in nic["ports"])
            nics.append(Nic(nic["name"], nic["model"], nic["ports"][0]["pci"], mode, pfs))
        by_name = {link.name: link for link in here.values()}
        devices = switch.devices(bridges)
        tunnel_devices: dict[str, int] = {}
        for port in switch.ports(self.name, bridges, {port.name for port, _ in found if port.kind is not PortKind.VF}):
            device = devices[port.name]
            link = by_name.get(device.name)
            if port.kind is PortKind.TUNNEL:
                if link is not None:
                    tunnel_devices[device.name] = link.ifindex
                read = self._of_tunnel(port.name, self._of_device(link if device.alone else None, inwards=True))
                found.append((replace(port, up=link.up if link else None), read))
                continue
            mac = link.mac.hex(":") if link else None
            shown = replace(port, up=link.up if link else None, mac=mac)
            found.append((shown, self._of_device(link, inwards=port.kind is not PortKind.INTERNAL)))
        self._tunnel_devices = tunnel_devices
        return Structure(tuple(port for port, _ in found), tuple(read for _, read in found), tuple(nics), bridges, own)

    def _mode(self, nic: dict[str, Any], pairs: dict[int, Pairs]) -> str | None:
        """The eSwitch's mode. One with representors is in switchdev mode; without, the node's sysfs says."""
        if any(one.representors for one in pairs.values()):
            return "switchdev"
        if any(one.vfs for one in pairs.values()):
            return "legacy"
        device = PCI / nic["ports"][0]["pci"]
        try:
            return str(call_in(self._bundle, lambda: eswitch_mode(device)))
        except (OSError, RuntimeError):
            return None

    def _ports(
        self,
        nic: dict[str, Any],
        mode: str | None,
        number: int,
        pairs: Pairs,
        here: dict[int, Link],
        bridge_of: dict[str, str],
    ) -> Iterator[tuple[Port, Callable[[], Counters]]]:
        name, silicon = nic["name"], self._silicon[nic["name"]]
        home = silicon.nsid(self._netns)
        guests = {silicon.nsid(netns): guest for guest, netns in self._guests.items()}
        guests.pop(None, None)

        def near(far: Link | None) -> Link | None:
            if far is None:
                return None
            return here.get(far.peer) if far.nsid == home else silicon.near(far)

        uplink = near(pairs.pf)
        if uplink is not None and pairs.pf is not None and pairs.pf.nsid == home:
            kind = PortKind.UPLINK if mode == "switchdev" else PortKind.PF
            port = Port(
                f"{self.name}/{uplink.name}",
                uplink.name,
                kind,
                name,
                number,
                bridge=bridge_of.get(uplink.name),
                up=uplink.up,
                mac=uplink.mac.hex(":"),
            )
            yield port, self._of_wire(silicon, pairs.wire, uplink)
        for index, far in pairs.vfs.items():
            vf, representor = near(far), near(pairs.representors.get(index))
            identity = f"{self.name}/{name}/pf{number}vf{index}"
            twin = f"{self.name}/{representor.name}" if representor is not None else None
            read = self._of_vf(silicon, far, far.nsid == home, representor)
            if vf is not None:
                guest = None if far.nsid == home else guests.get(far.nsid)
                up, mac = vf.up, vf.mac.hex(":")
                yield Port(identity, vf.name, PortKind.VF, name, number, index, guest, None, twin, up, mac), read
            if representor is not None and twin is not None:
                port = Port(twin, representor.name, PortKind.REPRESENTOR, name, number, index)
                bridge, up, mac = bridge_of.get(representor.name), representor.up, representor.mac.hex(":")
                yield replace(port, bridge=bridge, twin=identity, up=up, mac=mac), read

    # ---- counters

    def _of_vf(
        self, silicon: SiliconWatch, far: Link, at_home: bool, representor: Link | None
    ) -> Callable[[], Counters]:
        """What the VF has sent and received; what of that its representor has seen was in software."""
        slot = self._refusals.slot(representor.ifindex) if representor is not None else 0
        kept: list[Any] = [None, Counters()]

        def read() -> Counters:
            if kept[0] is not self._now:  # the VF and its representor have the same counters: read once
                own = self._stat(far.peer) if at_home else silicon.counted_behind(far)
                seen = self._stat(representor.ifindex) if representor is not None else NOTHING
                dropped = own.rx_dropped + own.tx_dropped + self._refusals.of(slot)
                kept[:] = self._now, split(turned(own), seen, dropped)
            counted: Counters = kept[1]
            return counted

        return read

    def _of_wire(self, silicon: SiliconWatch, wire: Link | None, uplink: Link) -> Callable[[], Counters]:
        """What came by the cable, and what its other end has received: packets that are handed over directly are
        counted there alone."""
        slot = self._refusals.slot(uplink.ifindex)

        def read() -> Counters:
            came, went = silicon.counted(wire), silicon.counted_behind(wire)
            whole = Stats(came.rx_packets, went.rx_packets, came.rx_bytes, went.rx_bytes)
            seen = self._stat(uplink.ifindex)
            return split(whole, seen, came.rx_dropped + seen.rx_dropped + seen.tx_dropped + self._refusals.of(slot))

        return read

    def _of_device(self, link: Link | None, *, inwards: bool) -> Callable[[], Counters]:
        """A device that no hardware passes; *inwards*: what it receives comes into the switch."""
        if link is None:
            return Counters
        slot = self._refusals.slot(link.ifindex)

        def read() -> Counters:
            own = self._stat(link.ifindex)
            whole = own if inwards else turned(own)
            return split(whole, whole, own.rx_dropped + own.tx_dropped + self._refusals.of(slot))

        return read

    def _of_tunnel(self, name: str, otherwise: Callable[[], Counters]) -> Callable[[], Counters]:
        """What Open vSwitch counts of a tunnel; *otherwise*, while it tells nothing."""
        return lambda: self._of_tunnels.get(name) or otherwise()

    def _stat(self, ifindex: int) -> Stats:
        return self._now.get(ifindex, _NOTHING).all
