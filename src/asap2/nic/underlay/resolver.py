# SPDX-License-Identifier: Apache-2.0
"""Tunnels as the driver offloads them: what goes around a packet, from the node's routes and neighbours.

mlx5 resolves the route and the neighbour of a tunnel's other end when a rule comes, and follows them
(drivers/net/ethernet/mellanox/mlx5/core/en/tc_tun.c, tc_tun_encap.c).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from asap2.netlink.wire import NetlinkError
from asap2.nic.function import Function, Pf, Role
from asap2.nic.links import Link
from asap2.nic.netdevs import NetDev
from asap2.nic.rules import Action, Encap, PushVlan, SetTunnel
from asap2.nic.tunnels import Ip, TunnelProtocol, Udp, link_kind, of_link
from asap2.nic.underlay.routes import Hop, Routes
from asap2.nic.underlay.udp_ports import UdpPorts

DEFAULT_TTL = 64


class _End(NamedTuple):
    """What a route depends on: the tunnel's far and near address, and the device it is bound to (0: none)."""

    dst: bytes
    src: bytes
    lower: int


class Outer(NamedTuple):
    """What a packet gets around it; then it is for the wire, or comes in by the port of ifindex ``internal``, or is
    as if ``vf`` had sent it."""

    actions: tuple[Action, ...]
    internal: int = 0
    vf: Function | None = None


class _Way(NamedTuple):
    """How packets get to a tunnel's end: the next hop, and what of its device goes into their headers; or why not."""

    hop: Hop | None
    mac: bytes = b""
    vlan: tuple[int, int] | None = None
    error: int = 0


def _check_headers(protocol: TunnelProtocol, encap: Encap, tunnel: SetTunnel) -> None:
    """EOPNOTSUPP for headers that the NIC cannot put on: the hardware computes no GRE checksum
    (mlx5e_gen_ip_tunnel_header_gretap), and they may be only so long (mlx5e_tc_tun_create_header_ipv4)."""
    room = protocol.options.octets if protocol.options is not None else 0
    if len(encap.options) > room or (isinstance(protocol.over, Ip) and tunnel.csum):
        raise NetlinkError(errno.EOPNOTSUPP)


class Tunnels:
    """Turns tunnel metadata into outer headers."""

    def __init__(
        self,
        routes: Routes,
        link: Callable[[int], Link | None],
        device: Callable[[int], NetDev | None],
        ports: UdpPorts,
    ) -> None:
        self.ports = ports
        self._routes = routes
        self.link = link
        self._device = device
        self._ways: dict[_End, _Way] = {}

    def protocol_of(self, ifindex: int) -> TunnelProtocol | None:
        """The protocol of the tunnel device *ifindex*; None when it is no such device."""
        link = self.link(ifindex)
        return of_link(link.kind) if link is not None else None

    def port_of(self, ifindex: int) -> int | None:
        """The UDP port of the tunnel device *ifindex*, 0 when its tunnel has none; None when it is no such device."""
        link = self.link(ifindex)
        if link is None or link_kind(link.kind) is None:
            return None
        protocol = of_link(link.kind)
        return link.tunnel_port or (protocol.port if protocol is not None else 0)

    def encap(self, pf: Pf, ifindex: int, tunnel: SetTunnel) -> Outer | None:
        """What puts a packet of *pf*'s eSwitch in *tunnel* through the tunnel device *ifindex*; None while the
        neighbour is not known.

        A route by a VLAN device adds its tag. One by an internal port of Open vSwitch makes the packet come in by that
        (mlx5e_set_int_port_tunnel), one by a VF of the NIC makes it the VF's (mlx5e_tc_is_vf_tunnel). By whatever other
        device the route is that is none of the eSwitch's (a bridge, say), the packets leave by the uplink, with that
        device's address (get_route_and_out_devs).

        Raises:
            NetlinkError: EOPNOTSUPP, the NICs do not know such a tunnel to that UDP port, or the route is by a port of
                an eSwitch that is not *pf*'s uplink; ENETUNREACH and the like, there is no route.
        """
        device = self.link(ifindex)
        protocol = of_link(device.kind) if device is not None else None
        if device is None or protocol is None:
            raise NetlinkError(errno.EOPNOTSUPP, "mlx5_core: Unsupported tunnel")
        unknown = protocol.over.unknown_port if isinstance(protocol.over, Udp) else None
        if unknown is not None and not self.ports.knows(protocol, tunnel.tp_dst):
            raise NetlinkError(errno.EOPNOTSUPP, f"mlx5_core: {unknown}")
        end = _End(tunnel.dst, tunnel.src, device.tunnel_lower)
        new = end not in self._ways
        way, hop, out = self._route(pf, end)
        if hop.mac is None or not way.mac:
            if new:
                self._routes.use(hop, way.mac)
            return None
        encap = Encap(
            protocol.name,
            tunnel.tun_id,
            hop.source,
            tunnel.dst,
            tunnel.tos,
            tunnel.ttl or DEFAULT_TTL,
            tunnel.tp_dst,
            way.mac,
            hop.mac,
            tunnel.options,
            tunnel.keyed,
        )
        _check_headers(protocol, encap, tunnel)
        if way.vlan is not None:
            return Outer((encap, PushVlan(way.vlan[1], 0, way.vlan[0])))
        if out is not None and out.role is Role.VF:
            return Outer((encap,), vf=out.function)
        return Outer((encap,), hop.ifindex if out is not None and out.role is Role.INTERNAL else 0)

    def egress(self, ifindex: int, tunnel: SetTunnel) -> tuple[bytes, int] | None:
        """The own address and the UDP port with which packets in *tunnel* leave the host by the tunnel device
        *ifindex*; None where there is no way, or that is another device (dev_fill_metadata_dst)."""
        device = self.link(ifindex)
        if device is None or link_kind(device.kind) is None:
            return None
        try:
            hop = self._routes.resolve(tunnel.dst, tunnel.src, device.tunnel_lower)
        except NetlinkError:
            return None
        return hop.source, tunnel.tp_dst or device.tunnel_port

    def decap(self, pf: Pf, ifindex: int, near: bytes, far: bytes) -> None:
        """Check that what comes out of a tunnel from *far* to *near*, of the tunnel device *ifindex*, comes in by
        *pf*'s uplink: that the route back leads there (mlx5e_tc_tun_route_lookup).

        Raises:
            NetlinkError: the kernel's, ENETUNREACH where there is no route or it ends at this host; EOPNOTSUPP, it is
                by a port of an eSwitch that is neither *pf*'s uplink nor a VF of a NIC that has tunnels of VFs.
        """
        device = self.link(ifindex)
        self._route(pf, _End(far, near, device.tunnel_lower if device is not None else 0))

    def _route(self, pf: Pf, end: _End) -> tuple[_Way, Hop, NetDev | None]:
        """The way to a tunnel's end. It must lead over *pf*'s uplink or a device above it, or a VF of *pf*'s."""
        way = self._ways.get(end)
        if way is None:
            way = self._ways[end] = self._ask(end)
        if way.hop is None:
            raise NetlinkError(way.error or errno.ENETUNREACH)
        out = self._device(way.hop.ifindex)
        if out is not None and out.pf is not None:
            vf = out.role is Role.VF and pf.nic.model.vf_tunnels
            if out.pf is not pf or not (vf or out.role is Role.PF):
                raise NetlinkError(errno.EOPNOTSUPP)
        return way, way.hop, out

    def used(self, ifindex: int, tunnel: SetTunnel) -> None:
        """Hardware has sent packets in *tunnel* through the tunnel device *ifindex*: so their neighbour, of which the
        kernel sees nothing, is in use (mlx5e_tc_update_neigh_used_value)."""
        device = self.link(ifindex)
        way = self._ways.get(_End(tunnel.dst, tunnel.src, device.tunnel_lower)) if device is not None else None
        if way is not None and way.hop is not None and way.hop.mac is not None:
            self._routes.use(way.hop, way.mac)

    @property
    def any(self) -> bool:
        """Whether a way was asked for."""
        return bool(self._ways)

    def changed(self) -> bool:
        """Whether a way that was asked for is another by now, after routes, neighbours or links have changed; if so,
        every way is looked up again when it is next needed."""
        if all(self._ask(end) == way for end, way in self._ways.items()):
            return False
        self._ways.clear()
        return True

    def _ask(self, end: _End) -> _Way:
        try:
            hop = self._routes.resolve(end.dst, end.src, end.lower)
        except NetlinkError as error:
            return _Way(None, error=error.errno or errno.ENETUNREACH)
        link = self.link(hop.ifindex)
        return _Way(hop) if link is None else _Way(hop, link.mac, link.vlan)
