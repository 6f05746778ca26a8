# SPDX-License-Identifier: Apache-2.0
"""The UDP ports that the NICs know tunnels by, as the driver learns them from the node's tunnel devices.

The kernel tells a NIC's driver the port of each such device that is up; the driver has a table of them and adds those
that fit (net/ipv4/udp_tunnel_nic.c). mlx5's is for VXLAN alone: it has seven places (mlx5_vxlan_max_udp_ports() - 1),
and the protocol's own port besides, which is always there (UDP_TUNNEL_NIC_INFO_STATIC_IANA_VXLAN). Of another tunnel
over UDP, mlx5 knows its own port and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from asap2.nic.links import Link
from asap2.nic.tunnels import PROTOCOLS, TunnelProtocol, Udp

PLACES = 7

((TABLED, ETHTOOL_TYPE),) = (
    (one, one.over.ethtool_type)
    for one in PROTOCOLS.values()
    if isinstance(one.over, Udp) and one.over.ethtool_type is not None
)
"""The protocol whose ports are in the table, and its ETHTOOL_UDP_TUNNEL_TYPE_*."""
_KINDS = frozenset(kind.name for kind in TABLED.links)


class UdpPorts:
    """The table. *links* reads every link of the node, *program* gives the NICs the table, 0 for a free place;
    *known* is what they have from an earlier run."""

    def __init__(
        self,
        links: Callable[[], Iterable[Link]],
        program: Callable[[tuple[int, ...]], None],
        known: tuple[int, ...] = (),
    ) -> None:
        self._links = links
        self._program = program
        self._table = (*known, *(0,) * PLACES)[:PLACES]

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports in the table."""
        return tuple(port for port in self._table if port)

    def follow(self) -> None:
        """Links have changed. A port keeps its place while a device has it; others come in the order of the devices."""
        wanted = [link.tunnel_port for link in self._links() if link.kind in _KINDS and link.up]
        table = [port if port in wanted else 0 for port in self._table]
        for port in wanted:
            if port and port not in (TABLED.port, *table) and 0 in table:
                table[table.index(0)] = port
        if tuple(table) != self._table:
            self._table = tuple(table)
            self._program(self._table)

    def has(self, port: int) -> bool:
        """Whether the NICs know tunnels of :data:`TABLED` that come to *port* (mlx5_vxlan_lookup_port)."""
        if port == TABLED.port or (port and port in self._table):
            return True
        self.follow()  # the notice of a new device may still be on its way
        return port != 0 and port in self._table

    def knows(self, protocol: TunnelProtocol, port: int) -> bool:
        """Whether the NICs know *protocol* when it comes to *port*; what is not over UDP they know by itself."""
        if protocol is TABLED:
            return self.has(port)
        return not isinstance(protocol.over, Udp) or port == protocol.port
