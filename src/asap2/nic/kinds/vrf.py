# SPDX-License-Identifier: Apache-2.0
"""VRF devices: routing tables of their own for some of a host's devices (drivers/net/vrf.c).

What comes in by a port for this host, or to be forwarded, comes in by the VRF's device; what a socket bound to the
VRF sends leaves by it, and its program sends it on by the VRF's table. Routes and rules are those of
:mod:`asap2.nic.kinds.vrf_tables`. Kept of each: ``table``, and ``ports``, each as ``[ifindex]``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from asap2.namespaces import in_netns
from asap2.netlink.tables.link import VRF_PORT
from asap2.netlink.wire import NetlinkError
from asap2.nic.kinds import vrf_tables
from asap2.nic.kinds.kind import (
    IFF_BROADCAST,
    IFF_MASTER,
    IFF_MULTICAST,
    IFF_NOARP,
    KindLink,
    Made,
    MasterKind,
    Wanted,
)

if TYPE_CHECKING:
    from asap2.nic.kinds.links import KindLinks
    from asap2.nic.links import Link

T = TypeVar("T")
log = logging.getLogger(__name__)

_MTU, _VETH_MTU, _LEAST_MTU = 0xFFFF + 40, 0xFFFF, 1280
"""The MTU of a VRF (IP6_MAX_MTU), the most that a veth has, and the least of a VRF."""
_LOOPBACK = 1
_PORT = struct.Struct("=I6s2x")
_U32 = struct.Struct("=I")
_SYSCTL = Path("/proc/sys/net")


class Vrf(MasterKind):
    """See the module."""

    name = "vrf"
    driver = ("vrf", "1.1", "")
    mtus = (_LEAST_MTU, _MTU)
    flags = IFF_MASTER
    without = IFF_BROADCAST | IFF_MULTICAST
    beside_itself = True
    movable = False
    port_table = VRF_PORT

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. vrf_newlink(), vrf_setup()."""
        table = (wanted.data or {}).get("table")
        if table is None:
            raise NetlinkError(errno.EINVAL, "VRF table id is missing")
        if table == 0:
            raise NetlinkError(errno.EINVAL, "Invalid VRF table id")
        defaults = {"mtu": _VETH_MTU}
        return Made(defaults, {"table": table, "ports": []}, flags=IFF_NOARP, without=IFF_MULTICAST)

    def shown_mtu(self, mtu: int) -> int:
        """See :class:`LinkKind`."""
        return _MTU if mtu == _VETH_MTU else mtu

    def install(self, links: KindLinks, link: KindLink, netns: int) -> None:
        """See :class:`LinkKind`."""
        near = links.read(link.namespace, link.ifindex)
        far = links.read(link.far_namespace, link.far)
        if near is None or far is None:
            raise NetlinkError(errno.ENODEV)
        in_netns(netns, lambda: _prepare(near.name, far.name))
        links.programs.run("vrf_out", link.id, link.far, netns)
        links.set_far_up(link, True)
        links.listen_to_routes()
        self._settle(links, link)

    def change(self, links: KindLinks, link: KindLink, data: Mapping[Any, Any], netns: int) -> None:
        """See :class:`LinkKind`. A VRF keeps its table."""
        raise NetlinkError(errno.EOPNOTSUPP)

    def enslave(self, links: KindLinks, link: KindLink, port: Link, netns: int) -> None:
        """See :class:`MasterKind`. vrf_add_slave(): the port goes down and up, so that its routes are made again."""
        if port.ifindex == _LOOPBACK:
            raise NetlinkError(errno.EOPNOTSUPP, "Can not enslave loopback device to a VRF")
        other = links.at(link.namespace, port.ifindex)
        if other is not None and other.kind == self.name:
            raise NetlinkError(errno.EINVAL, "Can not enslave an L3 master device to a VRF")
        link.data["ports"].append([port.ifindex])
        number = links.id_of(link.far_namespace, port.ifindex)
        self._program(links, link)
        links.programs.run("vrf_in", number, port.ifindex, netns)
        self._cycle(links, link, port.ifindex)
        self._settle(links, link)

    def release(self, links: KindLinks, link: KindLink, ifindex: int) -> None:
        """See :class:`MasterKind`. vrf_del_slave()."""
        link.data["ports"].remove([ifindex])
        self._leave(links, link, ifindex)
        self._settle(links, link)

    def port_shown(self, link: KindLink, ifindex: int) -> dict[str, Any]:
        """See :class:`MasterKind`. vrf_fill_slave_info()."""
        return {"table": link.data["table"]}

    def shown(self, links: KindLinks, link: KindLink) -> dict[str, Any]:
        """See :class:`LinkKind`. vrf_fillinfo()."""
        return {"table": link.data["table"]}

    def follow(self, links: KindLinks, link: KindLink) -> bool:
        """See :class:`LinkKind`. Routes follow once for all VRFs of a namespace (:meth:`follow_routes`)."""
        for port in list(link.data["ports"]):
            if links.read(link.far_namespace, port[0]) is None:
                link.data["ports"].remove(port)
                self._stop(links, link, port[0])
        self._program(links, link)
        return True

    def _settle(self, links: KindLinks, link: KindLink) -> None:
        self.follow(links, link)
        self.follow_routes(links, link.namespace)

    def forget(self, links: KindLinks, link: KindLink) -> None:
        """See :class:`LinkKind`."""
        for port in link.data["ports"]:
            self._leave(links, link, port[0])
        links.clear("vrf_ports", _U32.pack(link.id))
        self.follow_routes(links, link.namespace)

    def follow_routes(self, links: KindLinks, namespace: int | None) -> None:
        """Routes of a network namespace may have changed: those of its VRFs follow."""
        own = [link for link in links if link.kind == self.name and link.namespace == namespace]
        try:
            there = [vrf for vrf in (self._vrf(links, link) for link in own) if vrf is not None]
            with links.opened(namespace) as netns:
                errors = in_netns(netns, lambda: _with_tables(lambda tables: vrf_tables.settle(tables, there)))
        except OSError as error:  # it goes, with its routes
            log.debug("VRFs of network namespace %s: %s", namespace, error)
            return
        for text in errors:
            log.warning("VRFs of network namespace %s: %s", namespace, text)

    def _vrf(self, links: KindLinks, link: KindLink) -> vrf_tables.Vrf | None:
        near, far = links.read(link.namespace, link.ifindex), links.read(link.far_namespace, link.far)
        if near is None or far is None:
            return None
        found = [near, *(links.read(link.far_namespace, port[0]) for port in link.data["ports"])]
        there = {one.ifindex: one for one in found if one is not None}
        return vrf_tables.Vrf(
            *(link.data["table"], vrf_tables.MIRRORS + link.id, link.ifindex, far.name),
            {ifindex: one.name for ifindex, one in there.items()},
            {ifindex: one.mtu for ifindex, one in there.items()},
        )

    def _program(self, links: KindLinks, link: KindLink) -> None:
        near = links.read(link.namespace, link.ifindex)
        if near is None:
            return
        links.programs["vrf_ports"].update(_U32.pack(link.id), _PORT.pack(link.ifindex, near.mac))
        for port in link.data["ports"]:
            number = links.id_of(link.far_namespace, port[0])
            links.programs["vrf_ports"].update(_U32.pack(number), _PORT.pack(link.far, near.mac))

    def _stop(self, links: KindLinks, link: KindLink, ifindex: int) -> None:
        number = links.id_of(link.far_namespace, ifindex)
        links.programs.stop("vrf_in", number)
        links.clear("vrf_ports", _U32.pack(number))

    def _leave(self, links: KindLinks, link: KindLink, ifindex: int) -> None:
        self._stop(links, link, ifindex)
        with contextlib.suppress(OSError):
            with links.opened(link.namespace) as netns:
                in_netns(
                    netns, lambda: _with_tables(lambda tables: vrf_tables.leave(tables, link.data["table"], ifindex))
                )
            self._cycle(links, link, ifindex)

    def _cycle(self, links: KindLinks, link: KindLink, ifindex: int) -> None:
        """cycle_netdev()."""
        port = links.read(link.far_namespace, ifindex)
        if port is not None and port.up:
            links.set_link(link.far_namespace, ifindex, up=False)
            links.set_link(link.far_namespace, ifindex, up=True)

    def as_seen(self, link: KindLink, found: Link) -> Link:
        """See :class:`LinkKind`."""
        return replace(super().as_seen(link, found), mtu=self.shown_mtu(found.mtu))


def _with_tables(call: Callable[[vrf_tables.Tables], T]) -> T:
    tables = vrf_tables.Tables()
    try:
        return call(tables)
    finally:
        tables.close()


def _prepare(near: str, far: str) -> None:
    """Settings of a VRF's two ends in this thread's network namespace.

    Its program looks for routes as the far end, which forwards for that reason. Packets of a VRF to itself come in with
    an address of this host. A reverse path leads to a port, not to the VRF: only its being there can be asked for. The
    kernel gives a VRF no link-local address."""
    settings = {
        f"ipv4/conf/{far}/forwarding": "1",
        f"ipv6/conf/{far}/forwarding": "1",
        f"ipv4/conf/{near}/accept_local": "1",
        f"ipv6/conf/{near}/addr_gen_mode": "1",
    }
    with contextlib.suppress(OSError):
        if (_SYSCTL / "ipv4/conf/all/rp_filter").read_text().strip() == "1":
            settings[f"ipv4/conf/{near}/rp_filter"] = "2"
    for name, value in settings.items():
        with contextlib.suppress(OSError):
            (_SYSCTL / name).write_text(value)
