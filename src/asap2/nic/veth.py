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
from collections.abc import Callable, Iterator
from pathlib import Path

from asap2.netlink.monitor import drained
from asap2.nic import eswitch
from asap2.nic.function import ZERO_MAC, Function, Nic, Pf, Role, Vf
from asap2.nic.hardware import Silicon
from asap2.nic.internal_ports import Place
from asap2.nic.links import LinkReader
from asap2.nic.netdevs import Counters, NetDev, Where
from asap2.nic.silicon.pipeline import Pipeline

log = logging.getLogger(__name__)

_INTERNAL = re.compile(r"int\d+")
SO_NETNS_COOKIE = 71


class VethNetDevs:
    """The node's NICs as veth pairs: what the driver does (:class:`asap2.nic.backend.Backend`) and what the faces ask
    (:class:`asap2.nic.netdevs.NetDevs`)."""

    def __init__(
        self,
        nics: list[Nic],
        open_pipeline: Callable[[Nic], Pipeline],
        namespace: Callable[[int], int | None],
    ) -> None:
        """*namespace* gives a descriptor of the network namespace with a cookie, while a request from it is served."""
        self.node_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.node = LinkReader()
        self.silicon = {nic.name: Silicon(nic, open_pipeline(nic), self.node, self.node_fd) for nic in nics}
        self._namespace = namespace
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
        told = [drained(monitor) for monitor in self.monitors()]
        changed = any(told)
        if changed:
            self._devices = None
            if not self.unsettled:
                self.unsettled = True
                os.eventfd_write(self.wakeup, 1)
        return changed

    def settle(self) -> bool:
        """After a change: bring back functions whose namespace went, follow MACs and link states; True when any came
        back."""
        self.unsettled = False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wakeup)
        returned = False
        for silicon in self.silicon.values():
            silicon.refresh()
            for pf in silicon.nic.pfs:
                returned |= self._bring_back(silicon, pf)
                if pf.bound:
                    silicon.program(pf)
        return returned

    def _bring_back(self, silicon: Silicon, pf: Pf) -> bool:
        """A function whose network namespace went comes back to the node (default_device_exit_net)."""
        lost = [function for function in (*pf.vfs, pf) if silicon.lost(function)]
        for function in lost:
            log.info("%s at %s lost its network namespace; it comes back to the node", function.netdev, function.bdf)
            self.create(function)
        return bool(lost)

    def eswitch_ports(self) -> dict[int, bytes]:
        """The devices of the node that stand for ports of an eSwitch in switchdev mode, and their MACs."""
        macs = {link.ifindex: link.mac for link in self.node.all()}
        return {
            device.ifindex: macs[device.ifindex]
            for device in self.all()
            if device.eswitch is not None and device.ifindex in macs
        }

    def up(self) -> set[int]:
        """The devices of the node that are administratively up."""
        return {link.ifindex for link in self.node.all() if link.up}

    # ---- NetDevs

    def counted(self, device: NetDev, where: Where) -> Counters:
        """See :class:`asap2.nic.netdevs.NetDevs`. What the wire sends is what the cable's other end receives: packets
        that are handed over to it directly are counted there alone."""
        function = device.function
        if function is None:
            return Counters()
        silicon = self._of(function)

        def near(name: str) -> Counters:
            far = silicon.far.get(name)
            return (
                Counters(*silicon.reader.counters(far.peer, far.nsid)) if far is not None and far.peer else Counters()
            )

        if where is Where.WIRE:
            wire, cable = silicon.far.get(function.pf.wire), near(function.pf.wire)
            came = Counters(*silicon.reader.counters(wire.ifindex)) if wire is not None else Counters()
            return Counters(came.rx_packets, cable.rx_packets, came.rx_bytes, cable.rx_bytes)
        stands_for = device.role is Role.REPRESENTOR and where is Where.NETDEV
        return near(function.representor if stands_for else function.far)

    def limit(self, function: Function, mbit: int) -> bool:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        return self.silicon[function.nic.name].rates.police(function.port, mbit)

    def unlimit(self, function: Function) -> None:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        own = function.max_tx_rate if isinstance(function, Vf) else 0
        self.silicon[function.nic.name].rates.unpolice(function.port, own)

    def vf_counters(self, vf: Vf) -> dict[str, int]:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        silicon = self._of(vf)
        far = silicon.far.get(vf.far)
        if far is None:
            return {}
        rx, tx, rx_bytes, tx_bytes, _, _, rx_dropped, tx_dropped, _ = silicon.reader.counters(far.peer, far.nsid)
        counted = silicon.fdb(vf.pf).counted(vf.index)
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
            for function in _movable(silicon.nic):
                far = silicon.far.get(function.far)
                near = silicon.reader.one(far.peer, nsid) if far is not None and far.nsid == nsid else None
                if near is not None:
                    found.append(NetDev(near.ifindex, near.name, function.role, function))
        return found

    def last_known(self, ifindex: int, netns_cookie: int | None = None) -> NetDev | None:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        found = self.by_ifindex(ifindex, netns_cookie)
        home = netns_cookie in (None, self.node_cookie)
        namespace = self.node_fd if home else self._namespace(netns_cookie or 0)
        if found is not None or namespace is None:
            return found
        for silicon in self.silicon.values():
            name = silicon.seen.get((silicon.reader.nsid(namespace), ifindex), "")
            if _INTERNAL.fullmatch(name):
                return NetDev(ifindex, "", Role.INTERNAL)
            if (far := eswitch.netdev_of(silicon.nic, name)) is not None:
                return NetDev(ifindex, "", *far)
        return None

    def _elsewhere(self, ifindex: int, netns_cookie: int) -> NetDev | None:
        """The VF or internal port with *ifindex* in another namespace than the node's."""
        namespace = self._namespace(netns_cookie)
        if namespace is None:
            return None
        return self._at(ifindex, lambda silicon: silicon.reader.nsid(namespace))

    def by_nsid(self, ifindex: int, id_in: Callable[[int], int | None]) -> NetDev | None:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        for silicon in self.silicon.values():
            if (nsid := id_in(silicon.fd)) is not None and nsid == silicon.node_nsid():
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
            for function in _movable(silicon.nic):
                far = silicon.far.get(function.far)
                if far and (far.peer, far.nsid) == (ifindex, nsid):
                    return NetDev(ifindex, "", function.role, function)
        return None

    def _read(self) -> list[NetDev]:
        found = []
        for silicon in self.silicon.values():
            silicon.refresh()
            node = silicon.node_nsid()
            for function in silicon.nic.functions():
                for name, role in (function.far, function.role), (function.representor, Role.REPRESENTOR):
                    far = silicon.far.get(name)
                    if far is not None and far.nsid == node:
                        with contextlib.suppress(OSError):
                            found.append(NetDev(far.peer, socket.if_indextoname(far.peer), role, function))
        self._places = self._read_places()
        for place in self._places.values():
            if place.netnsid is None:
                found.append(NetDev(place.ifindex, place.name, Role.INTERNAL))
        return found

    def _read_places(self) -> dict[str, Place]:
        """The internal ports of the datapath."""
        silicon, places = self._sink, {}
        home, here = silicon.node_nsid(), {link.ifindex: link for link in self.node.all()}
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

    def create(self, function: Function) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        self._of(function).pair(function.far, function.netdev, function.mac, up=False)
        self._devices = None

    def destroy(self, function: Function) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        self._devices = None
        self._of(function).remove(function.far, function.port)

    def create_representor(self, function: Function) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        self._of(function).pair(function.representor, "eth%d", ZERO_MAC)
        self._devices = None

    def destroy_representor(self, function: Function) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        self._devices = None
        self._of(function).remove(function.representor, function.host_port)

    def program(self, pf: Pf) -> None:
        """See :class:`asap2.nic.backend.Backend`."""
        silicon = self._of(pf)
        silicon.refresh()
        silicon.program(pf)

    def _of(self, function: Function) -> Silicon:
        return self.silicon[function.nic.name]

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
        far = f"int{silicon.pair(part, name, ZERO_MAC, up=False)}"
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
        if link is not None:
            silicon.attach(far, link.ifindex)

    def detach_internal(self, number: int) -> None:
        """See :class:`asap2.nic.internal_ports.FarEnds`."""
        self._sink.detach(number)

    def is_internal(self, ifindex: int) -> bool:
        """Whether the device is an internal port that is at home."""
        return any(place.netnsid is None and place.ifindex == ifindex for place in self.internal_places().values())


def _movable(nic: Nic) -> Iterator[Function]:
    """The functions whose netdevs may be in other network namespaces than the node's."""
    return (function for function in nic.functions() if function.role is not Role.PF)


def open_pipeline(run_dir: Path) -> Callable[[Nic], Pipeline]:
    """Opens each NIC's pipeline pinned below *run_dir*'s bpf file system.

    Its connections are the node's, whose pipeline has to be there already.
    """
    pins = run_dir / "bpf"
    return lambda nic: Pipeline.open(pins / nic.name, max_rules=nic.model.max_rules, connections_of=pins / "node")
