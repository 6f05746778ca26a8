# SPDX-License-Identifier: Apache-2.0
"""The tunnel protocols that the NICs know. A protocol is a module here, and an entry in :data:`PROTOCOLS`."""

from __future__ import annotations

from typing import Final

from asap2.nic.tunnels import erspan, plain
from asap2.nic.tunnels.geneve import GENEVE
from asap2.nic.tunnels.gre import GRE
from asap2.nic.tunnels.protocol import Header, Ip, LinkKind, Options, TunnelId, TunnelProtocol, Udp
from asap2.nic.tunnels.vxlan import VXLAN

__all__ = ["BY_NUMBER", "PROTOCOLS", "Header", "Ip", "LinkKind", "Options", "TunnelId", "TunnelProtocol", "Udp"]
__all__ += ["link_kind", "of_link"]

PROTOCOLS: Final = {protocol.name: protocol for protocol in (VXLAN, GENEVE, GRE)}
"""Every protocol, by name."""

BY_NUMBER: Final = {protocol.number: protocol for protocol in PROTOCOLS.values()}
"""Every protocol, by its number in the silicon's memory."""

_IN_SOFTWARE: Final = {link.name: link for link in (*erspan.LINKS, *plain.LINKS)}
"""Devices of tunnels that the software datapath has, and no NIC."""

_OF_LINKS: Final = {link.name: (protocol, link) for protocol in PROTOCOLS.values() for link in protocol.links}


def of_link(kind: str) -> TunnelProtocol | None:
    """The protocol of devices of a *kind* (IFLA_INFO_KIND); None where they are no tunnels that a NIC knows."""
    found = _OF_LINKS.get(kind)
    return found[0] if found else None


def link_kind(kind: str) -> LinkKind | None:
    """What a link of a *kind* (IFLA_INFO_KIND) says of its tunnel, and where; None where it is no tunnel."""
    found = _OF_LINKS.get(kind)
    return found[1] if found else _IN_SOFTWARE.get(kind)
