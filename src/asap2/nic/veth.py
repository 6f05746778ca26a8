# SPDX-License-Identifier: Apache-2.0
"""The NIC's netdevs as veth pairs: one end in the node, the far end in the silicon's network namespace.

=====================  ==================  =========================
netdev in the node     far end             port of the pipeline
=====================  ==================  =========================
PF ``enp3s0f0``        ``pf0``             ``pf_port``
VF ``enp3s0f0v3``      ``pf0vf3``          ``vf_port``
representor ``eth3``   ``pf0rep3``         ``representor_port``
wire (the cable)       ``p0``              ``wire_port``
internal port ``br0``  ``int<ifindex>``    none: a sink; ``elsewhere_port`` when it is not in the node
=====================  ==================  =========================

Links are watched from the silicon's namespace with NETLINK_LISTEN_ALL_NSID (netlink(7)): its far ends make the kernel
give every namespace that holds a netdev of ours an id there, so a VF is followed wherever it is moved.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from asap2.namespaces import in_netns
from asap2.nic import eswitch
from asap2.nic.device import EswitchMode, Nic, Pf, Vf
from asap2.nic.fdb import Fdb
from asap2.nic.internal_ports import Place
from asap2.nic.link_changes import LinkChanges
from asap2.nic.links import Link, LinkReader
from asap2.nic.model import MAX_MTU
from asap2.nic.netdevs import Counters, NetDev, Role, Where
from asap2.nic.port_ids import pf_port, representor_port, vf_port
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.silicon.ports import Port

log = logging.getLogger(__name__)

_INTERNAL = re.compile(r"int\d+")
_SEEN = 4096
"""Netdevs that are remembered after they have gone or moved."""
SOL_NETLINK = 270
NETLINK_LISTEN_ALL_NSID = 8
RTMGRP_LINK = 1
SO_NETNS_COOKIE = 71


class Silicon:
    """One NIC's namespace: its links, its pipeline, and a socket that tells when links change."""

    def __init__(self, nic: Nic, pipeline: Pipeline) -> None:
        self.nic = nic
        self.pipeline = pipeline
        self.fd = os.open(nic.netns, os.O_RDONLY | os.O_CLOEXEC)
        self.changes = in_netns(self.fd, LinkChanges)
        self.reader = in_netns(self.fd, LinkReader)
        self.far: dict[str, Link] = {}
        self.attached: dict[str, int] = {}
        self.monitor = in_netns(self.fd, _link_monitor)
        self._fdbs: dict[int, Fdb] = {}
        self.seen: dict[tuple[int | None, int], str] = {}
        """Far ends by where their near ends are or were: network namespace's id and ifindex there."""

    def refresh(self) -> None:
        """Read every link of the silicon anew."""
        self.far = {link.name: link for link in self.reader.all()}
        self.attached = {name: index for name, index in self.attached.items() if name in self.far}
        for far in self.far.values():
            if far.peer:
                self.seen.pop((far.nsid, far.peer), None)
                self.seen[far.nsid, far.peer] = far.name
        for oldest in list(self.seen)[:-_SEEN]:
            del self.seen[oldest]

    def fdb(self, pf: Pf) -> Fdb:
        """The legacy eSwitch of *pf*."""
        if pf.index not in self._fdbs:
            self._fdbs[pf.index] = Fdb(self.pipeline, pf.index)
        return self._fdbs[pf.index]


class VethNetDevs:
    """The node's NICs as veth pairs: what the driver does (:class:`asap2.nic.backend.Backend`) and what the faces ask
    (:class:`asap2.nic.netdevs.NetDevs`)."""

    def __init__(self, nics: list[Nic], open_pipeline: Callable[[Nic], Pipeline]) -> None:
        self.node_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.node = LinkReader()
        self.silicon = {nic.name: Silicon(nic, open_pipeline(nic)) for nic in nics}
        self.rules_offloaded: Callable[[Nic, Pf], int] = lambda _nic, _pf: 0
        self.on_return: Callable[[], None] = lambda: None
        """Called when a netdev has come back whose network namespace went."""
        self.namespace: Callable[[int], int | None] = lambda _cookie: None
        """Gives a descriptor of the network namespace with this cookie, while a request from it is served."""
        self.unsettled = False
        """Whether links have changed since :meth:`settle`."""
        self.wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable while they have, whichever thread noticed."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            (self.node_cookie,) = struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))
        self._devices: list[NetDev] | None = None
        self._places: dict[str, Place] = {}
        self._by_ifindex: dict[int, NetDev] = {}
        self._inside: dict[int, tuple[int, list[NetDev]]] = {}
        self._epoch = 0
        self._lock = threading.RLock()

    # ---- watching

    def monitors(self) -> list[socket.socket]:
        """Sockets that become readable when a link changes; call :meth:`drain` then."""
        return [silicon.monitor for silicon in self.silicon.values()]

    def drain(self) -> bool:
        """Take in what changed since the last call; True when anything did."""
        changed = False
        for silicon in self.silicon.values():
            while True:
                try:
                    silicon.monitor.recv(1)
                    changed = True
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    changed = True
        if changed:
            self._devices = None
            if not self.unsettled:
                self.unsettled = True
                os.eventfd_write(self.wakeup, 1)
        return changed

    def settle(self) -> None:
        """After a change: bring back functions whose namespace went, follow MACs and link states."""
        self.unsettled = False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wakeup)
        for silicon in self.silicon.values():
            silicon.refresh()
            for pf in silicon.nic.pfs:
                self._bring_back(silicon, pf)
                if pf.bound:
                    self._program(silicon, pf)

    def _bring_back(self, silicon: Silicon, pf: Pf) -> None:
        """A function whose network namespace went comes back to the node (default_device_exit_net)."""
        lost = [vf for vf in pf.vfs if vf.bound and eswitch.vf_name(pf, vf) not in silicon.far]
        for vf in lost:
            log.info("VF %s lost its network namespace; it comes back to the node", vf.bdf)
            self.create_vf(silicon.nic, pf, vf)
        if gone := pf.bound and eswitch.pf_name(pf) not in silicon.far:
            log.info("PF %s lost its network namespace; it comes back to the node", pf.bdf)
            self.create_pf(silicon.nic, pf)
        if lost or gone:
            self.on_return()

    def eswitch_ports(self) -> dict[int, bytes]:
        """The devices of the node that stand for ports of an eSwitch in switchdev mode, and their MACs."""
        macs = {link.ifindex: link.mac for link in self.node.all()}
        return {
            device.ifindex: macs[device.ifindex]
            for device in self.all()
            if device.role in (Role.PF, Role.REPRESENTOR)
            and device.pf is not None
            and device.pf.mode is EswitchMode.SWITCHDEV
            and device.ifindex in macs
        }

    def up(self) -> set[int]:
        """The devices of the node that are administratively up."""
        return {link.ifindex for link in self.node.all() if link.up}

    def vf_counters(self, nic: Nic, pf: Pf, vf: Vf) -> dict[str, int]:
        """A VF's traffic as it counts it itself (struct ifla_vf_stats), wherever it is, and what legacy mode's rules
        have counted of it."""
        silicon = self.silicon[nic.name]
        far = silicon.far.get(eswitch.vf_name(pf, vf))
        if far is None:
            return {}
        rx, tx, rx_bytes, tx_bytes, _, _, rx_dropped, tx_dropped, _ = silicon.reader.counters(far.peer, far.nsid)
        counted = silicon.fdb(pf).counted(vf.index)
        return {
            "rx_packets": rx,
            "tx_packets": tx,
            "rx_bytes": rx_bytes,
            "tx_bytes": tx_bytes,
            "broadcast": counted.get("broadcast", 0),
            "multicast": counted.get("multicast", 0),
            "rx_dropped": rx_dropped + counted.get("rx_dropped", 0),
            "tx_dropped": tx_dropped + counted.get("tx_dropped", 0),
        }

    # ---- NetDevs

    def counted(self, device: NetDev, where: Where) -> Counters:
        """See :class:`asap2.nic.netdevs.NetDevs`. What the wire sends is what the cable's other end receives: packets
        that are handed over to it directly are counted there alone."""
        nic, pf, vf = device.nic, device.pf, device.vf
        if nic is None or pf is None:
            return Counters()
        silicon = self.silicon[nic.name]

        def near(name: str) -> Counters:
            far = silicon.far.get(name)
            return (
                Counters(*silicon.reader.counters(far.peer, far.nsid)) if far is not None and far.peer else Counters()
            )

        if where is Where.WIRE:
            wire, cable = silicon.far.get(eswitch.wire_name(pf)), near(eswitch.wire_name(pf))
            came = Counters(*silicon.reader.counters(wire.ifindex)) if wire is not None else Counters()
            return Counters(came.rx_packets, cable.rx_packets, came.rx_bytes, cable.rx_bytes)
        if vf is None:
            return near(eswitch.pf_name(pf))
        stands_for = device.role is Role.REPRESENTOR and where is Where.NETDEV
        return near(eswitch.representor_name(pf, vf) if stands_for else eswitch.vf_name(pf, vf))

    def all(self) -> list[NetDev]:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        with self._lock:
            self.drain()
            if self._devices is None:
                self._devices = self._read()
                self._epoch += 1
                self._by_ifindex = {device.ifindex: device for device in self._devices}
            return self._devices

    def epoch(self) -> int:
        """See :class:`asap2.nic.netdevs.CountedNetDevs`."""
        with self._lock:
            self.all()
            return self._epoch

    def by_ifindex(self, ifindex: int, netns_cookie: int | None = None) -> NetDev | None:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        if netns_cookie is not None and netns_cookie != self.node_cookie:
            return self._elsewhere(ifindex, netns_cookie)
        with self._lock:
            self.all()
            return self._by_ifindex.get(ifindex)

    def by_name(self, name: str, netns_cookie: int | None = None) -> NetDev | None:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        if netns_cookie not in (None, self.node_cookie):
            return None
        return next((d for d in self.all() if d.name == name), None)

    def inside(self, namespace: int) -> list[NetDev]:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        with self._lock:
            epoch = self.epoch()
            known = self._inside.get(namespace)
            if known is None or known[0] != epoch:
                known = self._inside[namespace] = epoch, self._read_inside(namespace)
            return known[1]

    def _read_inside(self, namespace: int) -> list[NetDev]:
        found = []
        for silicon in self.silicon.values():
            nsid = silicon.reader.nsid(namespace)
            if nsid is None:
                continue
            for pf in silicon.nic.pfs:
                for vf in pf.vfs:
                    far = silicon.far.get(eswitch.vf_name(pf, vf))
                    near = silicon.reader.one(far.peer, nsid) if far is not None and far.nsid == nsid else None
                    if near is not None:
                        found.append(NetDev(near.ifindex, near.name, Role.VF, silicon.nic, pf, vf))
        return found

    def last_known(self, ifindex: int, netns_cookie: int | None = None) -> NetDev | None:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        found = self.by_ifindex(ifindex, netns_cookie)
        home = netns_cookie in (None, self.node_cookie)
        namespace = self.node_fd if home else self.namespace(netns_cookie or 0)
        if found is not None or namespace is None:
            return found
        for silicon in self.silicon.values():
            name = silicon.seen.get((silicon.reader.nsid(namespace), ifindex), "")
            if _INTERNAL.fullmatch(name):
                return NetDev(ifindex, "", Role.INTERNAL)
            if (far := eswitch.netdev_of(silicon.nic, name)) is not None:
                role, pf, vf = far
                return NetDev(ifindex, "", role, silicon.nic, pf, vf)
        return None

    def _elsewhere(self, ifindex: int, netns_cookie: int) -> NetDev | None:
        """The VF or internal port with *ifindex* in another namespace than the node's."""
        namespace = self.namespace(netns_cookie)
        if namespace is None:
            return None
        return self._at(ifindex, lambda silicon: silicon.reader.nsid(namespace))

    def by_nsid(self, ifindex: int, id_in: Callable[[int], int | None]) -> NetDev | None:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        for silicon in self.silicon.values():
            if (nsid := id_in(silicon.fd)) is not None and nsid == self._node_nsid(silicon):
                return self.by_ifindex(ifindex)
        return self._at(ifindex, lambda silicon: id_in(silicon.fd))

    def hidden(self) -> list[int]:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        return [silicon.fd for silicon in self.silicon.values()]

    def _at(self, ifindex: int, nsid_of: Callable[[Silicon], int | None]) -> NetDev | None:
        self.all()
        for silicon in self.silicon.values():
            nsid = nsid_of(silicon)
            if nsid is None:
                continue
            if silicon is self._sink and any(
                _INTERNAL.fullmatch(far.name) and (far.peer, far.nsid) == (ifindex, nsid)
                for far in silicon.far.values()
            ):
                return NetDev(ifindex, "", Role.INTERNAL)
            for pf in silicon.nic.pfs:
                for vf in pf.vfs:
                    far = silicon.far.get(eswitch.vf_name(pf, vf))
                    if far and (far.peer, far.nsid) == (ifindex, nsid):
                        return NetDev(ifindex, "", Role.VF, silicon.nic, pf, vf)
        return None

    def _node_nsid(self, silicon: Silicon) -> int | None:
        """The id that the node's network namespace has in the silicon's."""
        return silicon.reader.nsid(self.node_fd)

    def _read(self) -> list[NetDev]:
        found = []
        for silicon in self.silicon.values():
            silicon.refresh()
            node = self._node_nsid(silicon)

            def here(
                far_name: str, role: Role, pf: Pf, vf: Vf | None, silicon: Silicon = silicon, node: int | None = node
            ) -> None:
                far = silicon.far.get(far_name)
                if far is None or far.nsid != node:
                    return
                with contextlib.suppress(OSError):
                    found.append(NetDev(far.peer, socket.if_indextoname(far.peer), role, silicon.nic, pf, vf))

            for pf in silicon.nic.pfs:
                here(f"pf{pf.index}", Role.PF, pf, None)
                for vf in pf.vfs:
                    here(f"pf{pf.index}vf{vf.index}", Role.VF, pf, vf)
                    here(f"pf{pf.index}rep{vf.index}", Role.REPRESENTOR, pf, vf)
        self._places = self._read_places()
        for place in self._places.values():
            if place.netnsid is None:
                found.append(NetDev(place.ifindex, place.name, Role.INTERNAL))
        return found

    def _read_places(self) -> dict[str, Place]:
        """The internal ports of the datapath."""
        silicon, places = self._sink, {}
        home, here = self._node_nsid(silicon), {link.ifindex: link for link in self.node.all()}
        for far in silicon.far.values():
            if not _INTERNAL.fullmatch(far.name) or far.nsid is None:
                continue
            near, netnsid = here.get(far.peer), None
            if far.nsid != home:
                near = silicon.reader.one(far.peer, far.nsid)
                netnsid = silicon.reader.nsid_as_seen_from(home, far.nsid) if home is not None else -1
            if near is not None:
                places[far.name] = Place(far.name, far.ifindex, near.ifindex, near.name, near.mac, netnsid)
        return places

    # ---- Backend

    def create_pf(self, nic: Nic, pf: Pf) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        silicon = self.silicon[nic.name]
        self._pair(silicon, f"pf{pf.index}", pf.netdev, pf.mac, up=False)

    def destroy_pf(self, nic: Nic, pf: Pf) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        self._remove(self.silicon[nic.name], f"pf{pf.index}", pf_port(pf.index))

    def create_vf(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        self._pair(self.silicon[nic.name], f"pf{pf.index}vf{vf.index}", f"{pf.netdev}v{vf.index}", vf.mac, up=False)

    def destroy_vf(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        self._remove(self.silicon[nic.name], f"pf{pf.index}vf{vf.index}", vf_port(pf.index, vf.index))

    def create_representor(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        self._pair(self.silicon[nic.name], f"pf{pf.index}rep{vf.index}", "eth%d", bytes(6))

    def destroy_representor(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        name, port = f"pf{pf.index}rep{vf.index}", representor_port(pf.index, vf.index)
        self._remove(self.silicon[nic.name], name, port)

    def set_mode(self, nic: Nic, pf: Pf) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        silicon = self.silicon[nic.name]
        silicon.refresh()
        self._program(silicon, pf)

    def offloaded_rules(self, nic: Nic, pf: Pf) -> int:
        """See :class:`asap2.nic.backend.Backend`."""
        return self.rules_offloaded(nic, pf)

    # ---- internal ports of the datapath

    @property
    def _sink(self) -> Silicon:
        """The silicon that holds the far ends of internal ports."""
        return next(iter(self.silicon.values()))

    @property
    def internal_pipeline(self) -> Pipeline:
        """See :class:`asap2.nic.internal_ports.FarEnds`."""
        return self._sink.pipeline

    def create_internal(self, name: str) -> str:
        """See :class:`asap2.nic.internal_ports.FarEnds`. EINVAL also for a name that is no UTF-8."""
        try:
            name.encode()
        except UnicodeEncodeError:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
        silicon = self._sink
        part = f"int-{os.urandom(4).hex()}"
        far = f"int{self._pair(silicon, part, name, bytes(6), up=False)}"
        index = silicon.far[part].ifindex
        silicon.changes.rename(index, far)
        silicon.changes.set_up(index, True)
        self._devices = None
        return far

    def destroy_internal(self, far: str) -> None:
        """See :class:`asap2.nic.internal_ports.FarEnds`."""
        silicon = self._sink
        self._devices = None
        with contextlib.suppress(OSError):
            silicon.changes.delete(far)

    def internal_places(self) -> dict[str, Place]:
        """See :class:`asap2.nic.internal_ports.FarEnds`."""
        with self._lock:
            self.all()
            return self._places

    def internal_counters(self, far: str) -> tuple[int, ...]:
        """See :class:`asap2.nic.internal_ports.FarEnds`."""
        link = self._sink.far.get(far)
        return self._sink.reader.counters(link.peer, link.nsid)[:8] if link else (0,) * 8

    def attach_internal(self, far: str) -> None:
        """See :class:`asap2.nic.internal_ports.FarEnds`."""
        silicon = self._sink
        link = silicon.far.get(far)
        if link is not None and silicon.attached.get(far) != link.ifindex:
            silicon.pipeline.attach(link.ifindex, silicon.fd, "ingress")
            silicon.attached[far] = link.ifindex

    def detach_internal(self, number: int) -> None:
        """See :class:`asap2.nic.internal_ports.FarEnds`."""
        silicon = self._sink
        silicon.pipeline.detach(number)
        silicon.attached = {far: index for far, index in silicon.attached.items() if index != number}

    def is_internal(self, ifindex: int) -> bool:
        """Whether the device is an internal port that is at home."""
        return any(place.netnsid is None and place.ifindex == ifindex for place in self.internal_places().values())

    # ---- plumbing

    def _pair(self, silicon: Silicon, far: str, near: str, mac: bytes, *, up: bool = True) -> int:
        """Make a pair, the far end *up*; the near end's ifindex. A zero *mac* lets the kernel choose one."""
        silicon.changes.add_veth(far, MAX_MTU, near, self.node_fd, mac if any(mac) else None)
        silicon.refresh()
        link = silicon.far[far]
        if up:
            silicon.changes.set_up(link.ifindex, True)
        self._devices = None
        return link.peer

    def _remove(self, silicon: Silicon, far: str, port: int) -> None:
        silicon.pipeline.remove_port(port)
        self._devices = None
        with contextlib.suppress(OSError):
            silicon.changes.delete(far)
        silicon.attached.pop(far, None)

    def _link(self, silicon: Silicon, name: str, up: bool) -> None:
        """Set a far end up or down: the near end has carrier, or not."""
        far = silicon.far.get(name)
        if far is not None and far.up != up:
            silicon.changes.set_up(far.ifindex, up)
            silicon.far[name] = replace(far, up=up)

    def _port(self, silicon: Silicon, far_name: str, port: Port) -> None:
        pipeline = silicon.pipeline
        if silicon.attached.get(far_name) != port.ifindex:
            pipeline.attach(port.ifindex, silicon.fd, "ingress")
            silicon.attached[far_name] = port.ifindex
        pipeline.set_port(port)

    def _program(self, silicon: Silicon, pf: Pf) -> None:
        """Make ports, rules and links what the eSwitch's present mode and functions want."""
        ends = self._ends(silicon, pf)
        switch = eswitch.legacy_switch(silicon.nic, pf, ends)
        fdb = silicon.fdb(pf)
        fdb.extend(switch)
        for name, port in eswitch.ports(pf, ends, switch).items():
            self._port(silicon, name, port)
        fdb.prune()
        for name, up in eswitch.links(pf, ends).items():
            self._link(silicon, name, up)

    def _ends(self, silicon: Silicon, pf: Pf) -> dict[str, eswitch.End]:
        """The pairs of *pf* that there are."""
        names = [eswitch.pf_name(pf), eswitch.wire_name(pf)]
        names += [name for vf in pf.vfs for name in (eswitch.vf_name(pf, vf), eswitch.representor_name(pf, vf))]
        home, here = self._node_nsid(silicon), {link.ifindex: link for link in self.node.all()}
        found = {}
        for name in names:
            if far := silicon.far.get(name):
                near = None
                if far.nsid is not None:
                    near = here.get(far.peer) if far.nsid == home else silicon.reader.one(far.peer, far.nsid)
                mac, promiscuous = (near.mac, near.promiscuous) if near else (b"", False)
                found[name] = eswitch.End(far.ifindex, mac, promiscuous, far.carrier)
        return found


def _link_monitor() -> socket.socket:
    monitor = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    monitor.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
    monitor.bind((0, RTMGRP_LINK))
    return monitor


def open_pipeline(run_dir: Path) -> Callable[[Nic], Pipeline]:
    """Opens each NIC's pipeline pinned below *run_dir*'s bpf file system."""
    return lambda nic: Pipeline.open(run_dir / "bpf" / nic.name, max_rules=nic.model.max_rules)
