# SPDX-License-Identifier: Apache-2.0
"""The NIC's netdevs as veth pairs: one end in the node, the far end in the silicon's network namespace.

=====================  ==================  =========================
netdev in the node     far end             port of the pipeline
=====================  ==================  =========================
PF ``enp3s0f0``        ``pf0``             :func:`pf_port`
VF ``enp3s0f0v3``      ``pf0vf3``          :func:`vf_port`
representor ``eth3``   ``pf0rep3``         :func:`representor_port`
wire (the cable)       ``p0``              :func:`wire_port`
internal port ``br0``  ``int<ifindex>``    none: a sink
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
from pathlib import Path

from pyroute2 import NetNS
from pyroute2.netlink.exceptions import NetlinkError as RouteError

from asap2.nic.device import EswitchMode, LinkState, Nic, Pf, Vf
from asap2.nic.links import Link, LinkReader
from asap2.nic.netdevs import NetDev, Role
from asap2.nic.netns import in_netns
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.silicon.ports import Deliver, Miss, Port, PortKind

log = logging.getLogger(__name__)

PF_PORTS = 0x1000
"""Port ids a physical function has for itself."""
MAX_MTU = 9978
"""The largest MTU of a ConnectX (mlx5e's max_mtu)."""

_INTERNAL = re.compile(r"int\d+")
SOL_NETLINK = 270
NETLINK_LISTEN_ALL_NSID = 8
RTMGRP_LINK = 1
SO_NETNS_COOKIE = 71


def pf_port(pf: int) -> int:
    """Port id of the PF's netdev (the uplink representor)."""
    return pf * PF_PORTS + 1


def vf_port(pf: int, vf: int) -> int:
    """Port id of a VF."""
    return pf * PF_PORTS + 0x100 + vf


def representor_port(pf: int, vf: int) -> int:
    """Port id of a VF's representor."""
    return pf * PF_PORTS + 0x800 + vf


def wire_port(pf: int) -> int:
    """Port id of the wire, the uplink."""
    return pf * PF_PORTS + 0xFFF


class Silicon:
    """One NIC's namespace: its links, its pipeline, and a socket that tells when links change."""

    def __init__(self, nic: Nic, pipeline: Pipeline) -> None:
        self.nic = nic
        self.pipeline = pipeline
        self.fd = os.open(nic.netns, os.O_RDONLY | os.O_CLOEXEC)
        self.links = NetNS(nic.netns)
        self.reader = in_netns(self.fd, LinkReader)
        self.far: dict[str, Link] = {}
        self.attached: dict[str, int] = {}
        self.monitor = in_netns(self.fd, _link_monitor)

    def refresh(self) -> None:
        """Read every link of the silicon anew."""
        self.far = {link.name: link for link in self.reader.all()}
        self.attached = {name: index for name, index in self.attached.items() if name in self.far}


class VethNetDevs:
    """The node's NICs as veth pairs: what the driver does (:class:`asap2.nic.device.Hands`) and what the faces ask
    (:class:`asap2.nic.netdevs.NetDevs`)."""

    def __init__(self, nics: list[Nic], open_pipeline: Callable[[Nic], Pipeline]) -> None:
        self.node_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.node = LinkReader()
        self.silicon = {nic.name: Silicon(nic, open_pipeline(nic)) for nic in nics}
        self.internal: dict[int, str] = {}
        """Internal ports of the datapath: ifindex to far end."""
        self.rules_offloaded: Callable[[Nic, Pf], int] = lambda _nic, _pf: 0
        self.on_lost: Callable[[Nic, Pf, Vf], None] = lambda _nic, _pf, _vf: None
        self.unsettled = False
        """Whether links have changed since :meth:`settle`."""
        self.wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable while they have, whichever thread noticed."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            (self.node_cookie,) = struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))
        self._devices: list[NetDev] | None = None
        self._lock = threading.RLock()

    def restore(self) -> None:
        """Find the internal ports of an earlier run: far ends ``int<ifindex>``."""
        for silicon in self.silicon.values():
            silicon.refresh()
            self.internal.update({far.peer: name for name, far in silicon.far.items() if _INTERNAL.fullmatch(name)})

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
                    silicon.monitor.recv(1 << 16)
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
        """After a change: bring back VFs whose namespace went, follow MACs and link states."""
        self.unsettled = False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wakeup)
        for silicon in self.silicon.values():
            silicon.refresh()
            for pf in silicon.nic.pfs:
                for vf in pf.vfs:
                    if vf.bound and f"pf{pf.index}vf{vf.index}" not in silicon.far:
                        log.info("VF %s lost its network namespace; it comes back to the node", vf.bdf)
                        self.on_lost(silicon.nic, pf, vf)
                if pf.bound:
                    self._program(silicon, pf)
                    self._carrier(silicon, pf)

    def up(self) -> set[int]:
        """The devices of the node that are administratively up."""
        return {link.ifindex for link in self.node.all() if link.up}

    def vf_counters(self, nic: Nic, pf: Pf, vf: Vf) -> dict[str, int]:
        """A VF's traffic as it counts it itself (struct ifla_vf_stats), wherever it is."""
        silicon = self.silicon[nic.name]
        far = silicon.far.get(f"pf{pf.index}vf{vf.index}")
        if far is None:
            return {}
        rx, tx, rx_bytes, tx_bytes, _, _, rx_dropped, tx_dropped, multicast = silicon.reader.counters(
            far.peer, far.nsid
        )
        return {
            "rx_packets": rx,
            "tx_packets": tx,
            "rx_bytes": rx_bytes,
            "tx_bytes": tx_bytes,
            "multicast": multicast,
            "rx_dropped": rx_dropped,
            "tx_dropped": tx_dropped,
        }

    # ---- NetDevs

    def all(self) -> list[NetDev]:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        with self._lock:
            self.drain()
            if self._devices is None:
                self._devices = self._read()
            return self._devices

    def by_ifindex(self, ifindex: int, netns_cookie: int | None = None) -> NetDev | None:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        if netns_cookie not in (None, self.node_cookie):
            return self._elsewhere(ifindex)
        return next((d for d in self.all() if d.ifindex == ifindex), None)

    def by_name(self, name: str, netns_cookie: int | None = None) -> NetDev | None:
        """See :class:`asap2.nic.netdevs.NetDevs`."""
        if netns_cookie not in (None, self.node_cookie):
            return None
        return next((d for d in self.all() if d.name == name), None)

    def _elsewhere(self, ifindex: int) -> NetDev | None:
        self.all()
        for silicon in self.silicon.values():
            node = self._node_nsid(silicon)
            for pf in silicon.nic.pfs:
                for vf in pf.vfs:
                    far = silicon.far.get(f"pf{pf.index}vf{vf.index}")
                    if far and far.peer == ifindex and far.nsid != node:
                        return NetDev(ifindex, "", Role.VF, silicon.nic, pf, vf)
        return None

    def _node_nsid(self, silicon: Silicon) -> int | None:
        for pf in silicon.nic.pfs:
            if far := silicon.far.get(f"pf{pf.index}"):
                return far.nsid
        return None

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
        for ifindex in self.internal:
            with contextlib.suppress(OSError):
                found.append(NetDev(ifindex, socket.if_indextoname(ifindex), Role.INTERNAL))
        return found

    # ---- Hands

    def create_pf(self, nic: Nic, pf: Pf) -> None:
        """See :class:`asap2.nic.device.Hands`."""
        silicon = self.silicon[nic.name]
        self._pair(silicon, f"pf{pf.index}", pf.netdev, pf.mac)
        silicon.refresh()
        self._carrier(silicon, pf)

    def destroy_pf(self, nic: Nic, pf: Pf) -> None:
        """See :class:`asap2.nic.device.Hands`."""
        self._remove(self.silicon[nic.name], f"pf{pf.index}", pf_port(pf.index))

    def create_vf(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """See :class:`asap2.nic.device.Hands`."""
        self._pair(self.silicon[nic.name], f"pf{pf.index}vf{vf.index}", f"{pf.netdev}v{vf.index}", vf.mac)

    def destroy_vf(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """See :class:`asap2.nic.device.Hands`."""
        self._remove(self.silicon[nic.name], f"pf{pf.index}vf{vf.index}", vf_port(pf.index, vf.index))

    def create_representor(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """See :class:`asap2.nic.device.Hands`."""
        self._pair(self.silicon[nic.name], f"pf{pf.index}rep{vf.index}", "eth%d", bytes(6))

    def destroy_representor(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """See :class:`asap2.nic.device.Hands`."""
        name, port = f"pf{pf.index}rep{vf.index}", representor_port(pf.index, vf.index)
        self._remove(self.silicon[nic.name], name, port)

    def set_mode(self, nic: Nic, pf: Pf) -> None:
        """See :class:`asap2.nic.device.Hands`."""
        silicon = self.silicon[nic.name]
        silicon.refresh()
        self._program(silicon, pf)

    def offloaded_rules(self, nic: Nic, pf: Pf) -> int:
        """See :class:`asap2.nic.device.Hands`."""
        return self.rules_offloaded(nic, pf)

    # ---- internal ports of the datapath

    def create_internal(self, name: str) -> int:
        """Make an internal port; its ifindex. OSError as the kernel gives it (EEXIST, EINVAL for a bad name)."""
        silicon = next(iter(self.silicon.values()))
        part = f"int-{os.urandom(4).hex()}"
        ifindex = self._pair(silicon, part, name, bytes(6))
        far = f"int{ifindex}"
        index = silicon.links.link_lookup(ifname=part)[0]
        silicon.links.link("set", index=index, state="down")
        silicon.links.link("set", index=index, ifname=far)
        silicon.links.link("set", index=index, state="up")
        self.internal[ifindex] = far
        self._devices = None
        return ifindex

    def destroy_internal(self, ifindex: int) -> None:
        """Remove an internal port."""
        silicon = next(iter(self.silicon.values()))
        far = self.internal.pop(ifindex, None)
        self._devices = None
        if far:
            with contextlib.suppress(RouteError, IndexError):
                silicon.links.link("del", index=silicon.links.link_lookup(ifname=far)[0])

    # ---- plumbing

    def _pair(self, silicon: Silicon, far: str, near: str, mac: bytes) -> int:
        """Make a pair; the near end's ifindex. A zero *mac* lets the kernel choose one."""
        peer: dict[str, object] = {"ifname": near, "net_ns_fd": self.node_fd}
        if any(mac):
            peer["address"] = mac.hex(":")
        try:
            silicon.links.link("add", ifname=far, kind="veth", peer=peer, mtu=MAX_MTU)
        except RouteError as error:
            raise OSError(error.code, os.strerror(error.code)) from None
        silicon.refresh()
        link = silicon.far[far]
        silicon.links.link("set", index=link.ifindex, state="up")
        self._devices = None
        return link.peer

    def _remove(self, silicon: Silicon, far: str, port: int) -> None:
        silicon.pipeline.remove_port(port)
        self._devices = None
        for index in silicon.links.link_lookup(ifname=far):
            with contextlib.suppress(RouteError):
                silicon.links.link("del", index=index)
        silicon.attached.pop(far, None)

    def _carrier(self, silicon: Silicon, pf: Pf) -> None:
        """The PF has carrier while its cable has: its far end is up when the wire's other end is."""
        near, wire = silicon.far.get(f"pf{pf.index}"), silicon.far.get(f"p{pf.index}")
        up = wire is not None and wire.up
        if near is not None and near.up != up:
            silicon.links.link("set", index=near.ifindex, state="up" if up else "down")

    def _port(self, silicon: Silicon, far_name: str, port: Port) -> None:
        pipeline = silicon.pipeline
        if silicon.attached.get(far_name) != port.ifindex:
            pipeline.attach(port.ifindex, silicon.fd, "ingress")
            silicon.attached[far_name] = port.ifindex
        pipeline.set_port(port)

    def _program(self, silicon: Silicon, pf: Pf) -> None:
        """Tell the pipeline what its ports are in the eSwitch's present mode."""
        uplink, wire = silicon.far.get(f"pf{pf.index}"), silicon.far.get(f"p{pf.index}")
        switchdev = pf.mode is EswitchMode.SWITCHDEV
        tables = (0,)
        if uplink:
            self._port(
                silicon,
                f"pf{pf.index}",
                Port(
                    pf_port(pf.index),
                    uplink.ifindex,
                    PortKind.UPLINK_REP if switchdev else PortKind.PF,
                    mac=self._mac(silicon, uplink) or pf.mac,
                    deliver=Deliver.PEER,
                    tables=() if switchdev else tables,
                    miss=Miss.REDIRECT if wire else Miss.DROP,
                    miss_port=wire_port(pf.index),
                ),
            )
        if wire:
            self._port(
                silicon,
                f"p{pf.index}",
                Port(
                    wire_port(pf.index),
                    wire.ifindex,
                    PortKind.UPLINK,
                    deliver=Deliver.PEER,
                    peer_any=True,
                    tables=tables,
                    miss=Miss.REDIRECT if uplink else Miss.DROP,
                    miss_port=pf_port(pf.index),
                ),
            )
        for vf in pf.vfs:
            self._program_vf(silicon, pf, vf, switchdev)

    def _program_vf(self, silicon: Silicon, pf: Pf, vf: Vf, switchdev: bool) -> None:
        far_vf = silicon.far.get(f"pf{pf.index}vf{vf.index}")
        far_rep = silicon.far.get(f"pf{pf.index}rep{vf.index}")
        if far_vf:
            self._port(
                silicon,
                f"pf{pf.index}vf{vf.index}",
                Port(
                    vf_port(pf.index, vf.index),
                    far_vf.ifindex,
                    PortKind.VF,
                    mac=self._mac(silicon, far_vf) or vf.mac,
                    deliver=Deliver.PEER,
                    tables=(0,),
                    miss=Miss.REDIRECT if far_rep or not switchdev else Miss.DROP,
                    miss_port=representor_port(pf.index, vf.index) if switchdev else wire_port(pf.index),
                    enabled=vf.link_state is not LinkState.DISABLE or switchdev,
                ),
            )
        if far_rep:
            self._port(
                silicon,
                f"pf{pf.index}rep{vf.index}",
                Port(
                    representor_port(pf.index, vf.index),
                    far_rep.ifindex,
                    PortKind.REP,
                    deliver=Deliver.PEER,
                    tables=(),
                    miss=Miss.REDIRECT if far_vf else Miss.DROP,
                    miss_port=vf_port(pf.index, vf.index),
                ),
            )

    def _mac(self, silicon: Silicon, far: Link) -> bytes:
        """The MAC of the near end, in whatever namespace it is; empty when it cannot be asked."""
        if far.nsid is None:
            return b""
        at_home = far.nsid == self._node_nsid(silicon)
        near = self.node.one(far.peer) if at_home else silicon.reader.one(far.peer, far.nsid)
        return near.mac if near else b""


def _link_monitor() -> socket.socket:
    monitor = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    monitor.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
    monitor.bind((0, RTMGRP_LINK))
    return monitor


def open_pipeline(run_dir: Path) -> Callable[[Nic], Pipeline]:
    """Opens each NIC's pipeline pinned below *run_dir*'s bpf file system."""
    return lambda nic: Pipeline.open(run_dir / "bpf" / nic.name, max_rules=nic.model.max_rules)
