# SPDX-License-Identifier: Apache-2.0
"""To which UDP ports VXLAN comes, as the driver learns it from the node's vxlan devices.

The kernel tells a NIC's driver the port of each vxlan device that is up; the driver has a table of them and adds those
that fit (net/ipv4/udp_tunnel_nic.c). mlx5's has seven places (mlx5_vxlan_max_udp_ports() - 1), and 4789 besides, which
is always there (UDP_TUNNEL_NIC_INFO_STATIC_IANA_VXLAN).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from asap2.nic.links import Link
from asap2.nic.rules import VXLAN_PORT

PLACES = 7


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
        wanted = [link.tunnel_port for link in self._links() if link.kind == "vxlan" and link.up]
        table = [port if port in wanted else 0 for port in self._table]
        for port in wanted:
            if port and port not in (VXLAN_PORT, *table) and 0 in table:
                table[table.index(0)] = port
        if tuple(table) != self._table:
            self._table = tuple(table)
            self._program(self._table)

    def has(self, port: int) -> bool:
        """Whether the NICs know VXLAN that comes to *port* (mlx5_vxlan_lookup_port)."""
        if port == VXLAN_PORT or (port and port in self._table):
            return True
        self.follow()  # the notice of a new device may still be on its way
        return port != 0 and port in self._table
