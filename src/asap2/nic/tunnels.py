# SPDX-License-Identifier: Apache-2.0
"""Tunnels as the driver offloads them: what goes around a packet, from the node's routes and neighbours.

mlx5 resolves the route and the neighbour of a tunnel's other end when a rule comes, and follows them
(drivers/net/ethernet/mellanox/mlx5/core/en/tc_tun_encap.c).
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from asap2.netlink.wire import NetlinkError
from asap2.nic.device import Pf
from asap2.nic.links import Link
from asap2.nic.netdevs import NetDev, Role
from asap2.nic.routes import Hop, Routes
from asap2.nic.rules import Encap, SetTunnel

VXLAN_PORT = 4789
DEFAULT_TTL = 64


class Tunnels:
    """Turns tunnel metadata into outer headers."""

    def __init__(
        self,
        routes: Routes,
        link: Callable[[int], Link | None],
        device: Callable[[int], NetDev | None],
    ) -> None:
        self._routes = routes
        self.link = link
        self._device = device

    def port_of(self, ifindex: int) -> int | None:
        """The UDP port of the vxlan device *ifindex*; None when it is no vxlan device."""
        link = self.link(ifindex)
        return link.tunnel_port or VXLAN_PORT if link is not None and link.kind == "vxlan" else None

    def encap(self, pf: Pf, ifindex: int, tunnel: SetTunnel) -> Encap | None:
        """The outer headers of *tunnel* through the vxlan device *ifindex*; None while the neighbour is not known.

        Raises:
            NetlinkError: EOPNOTSUPP, the other end is not reached through *pf*'s uplink; or there is no route.
        """
        port = self.port_of(ifindex)
        if port is None:
            raise NetlinkError(errno.EOPNOTSUPP, "mlx5_core: Unknown tunnel device")
        try:
            hop = self._routes.resolve(tunnel.dst, tunnel.src)
        except NetlinkError as error:
            raise NetlinkError(errno.EOPNOTSUPP, f"mlx5_core: no route to the tunnel's end: {error.strerror}") from None
        uplink = self._device(hop.ifindex)
        if uplink is None or uplink.role is not Role.PF or uplink.pf is not pf:
            raise NetlinkError(
                errno.EOPNOTSUPP, "mlx5_core: devices are not on same switch HW, can't offload forwarding"
            )
        if hop.mac is None:
            self._routes.solicit(hop)
            return None
        return self._headers(uplink, hop, tunnel, port)

    def _headers(self, uplink: NetDev, hop: Hop, tunnel: SetTunnel, port: int) -> Encap | None:
        link = self.link(uplink.ifindex)
        if link is None or hop.mac is None:
            return None
        return Encap(
            "vxlan",
            tunnel.tun_id,
            hop.source,
            tunnel.dst,
            tunnel.tos,
            tunnel.ttl or DEFAULT_TTL,
            tunnel.tp_dst or port,
            link.mac,
            hop.mac,
        )
