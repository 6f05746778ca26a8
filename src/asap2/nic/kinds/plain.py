# SPDX-License-Identifier: Apache-2.0
"""Tunnel devices with a packet and no frame inside: GRE (net/ipv4/ip_gre.c), bare UDP (drivers/net/bareudp.c).

Open vSwitch has them as ports of packet type ``legacy_l3``.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asap2.netlink.wire import NetlinkError
from asap2.nic.ethertypes import ETH_P_IP, ETH_P_IPV6, ETH_P_MPLS
from asap2.nic.kinds import tunnel_programs
from asap2.nic.kinds.kind import IFF_BROADCAST, IFF_MULTICAST, IFF_NOARP, IFF_POINTOPOINT, KindLink, Made, Wanted
from asap2.nic.kinds.tunnel import UNDERLAY, Gretap, TunnelKind
from asap2.nic.kinds.tunnel_programs import Device

if TYPE_CHECKING:
    from asap2.nic.kinds.links import KindLinks
    from asap2.nic.links import Link

_ARPHRD_IPGRE, _ARPHRD_NONE = 778, 0xFFFE
_ANY = "00000000"
_UDP = 8
_ETH_DATA_LEN = 1500
_IPPROTOS = {ETH_P_IP: 4, ETH_P_IPV6: 41, ETH_P_MPLS[0]: 137}
_MULTICAST_TOO = (ETH_P_IP, ETH_P_MPLS[0])
"""What has a second ethertype, so that a device may carry both (``multiproto``)."""


def _seen(found: Link) -> Link:
    """A veth as a device without Ethernet."""
    return replace(found, bare=True, veiled=True, ethernet=False)


class Gre(Gretap):
    """GRE between IPv4 addresses, with a packet inside."""

    name = "gre"
    mtus = (0, 0)
    number = tunnel_programs.GRE
    hardware = _ARPHRD_IPGRE
    without = IFF_BROADCAST | IFF_MULTICAST
    mtu = 1476

    def check(self, wanted: Wanted) -> None:
        """See :class:`LinkKind`. It has no Ethernet address to look at."""

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. ipgre_newlink()."""
        return replace(super().make(links, namespace, wanted), flags=IFF_NOARP, without=IFF_MULTICAST)

    def as_seen(self, link: KindLink, found: Link) -> Link:
        """See :class:`LinkKind`."""
        return _seen(super().as_seen(link, found))

    def shown_flags(self, link: KindLink) -> tuple[int, int]:
        """See :class:`LinkKind`. ip_tunnel_bind_dev()."""
        return (IFF_POINTOPOINT if int(link.data.get("remote", _ANY), 16) else 0), self.without

    def shown_addresses(self, link: KindLink) -> tuple[bytes, bytes]:
        """See :class:`LinkKind`."""
        return bytes.fromhex(link.data.get("local", _ANY)), bytes.fromhex(link.data.get("remote", _ANY))


class BareUdp(TunnelKind):
    """IP or MPLS in UDP. Each packet says what its tunnel is."""

    name = "bareudp"
    mtus = (68, 0xFFFF - _UDP)
    number = tunnel_programs.BAREUDP
    hardware = _ARPHRD_NONE
    flags, without = IFF_POINTOPOINT, IFF_BROADCAST

    def check(self, wanted: Wanted) -> None:
        """See :class:`LinkKind`. bareudp_validate()."""
        if wanted.data is None:
            raise NetlinkError(errno.EINVAL, "Not enough attributes provided to perform the operation")

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. bareudp2info(), bareudp_configure()."""
        data = dict(wanted.data or {})
        for name in ("port", "ethertype"):
            if name not in data:
                raise NetlinkError(errno.EINVAL, f"{name} not specified")
        kept: dict[str, Any] = {name: data[name] for name in ("port", "ethertype")}
        kept |= {"srcport_min": data.get("srcport_min", 0), "multiproto": "multiproto" in data, UNDERLAY: namespace}
        if any(other["port"] == kept["port"] for other in self._others(links, namespace)):
            raise NetlinkError(errno.EBUSY)
        if kept["multiproto"] and kept["ethertype"] not in _MULTICAST_TOO:
            raise NetlinkError(errno.EINVAL)
        return Made({"mtu": _ETH_DATA_LEN}, kept, flags=IFF_NOARP)

    def device(self, data: Mapping[str, Any], far: int = 0) -> Device:
        """See :class:`TunnelKind`."""
        inside = 0 if data["multiproto"] and data["ethertype"] == ETH_P_IP else _IPPROTOS.get(data["ethertype"], 255)
        return Device(self.number, collects=True, port=data["port"], far=far, protocol=inside)

    def as_seen(self, link: KindLink, found: Link) -> Link:
        """See :class:`LinkKind`."""
        return _seen(super().as_seen(link, found))

    def shown_addresses(self, link: KindLink) -> tuple[bytes, bytes]:
        """See :class:`LinkKind`. It has none."""
        return b"", b""

    def shown(self, links: KindLinks, link: KindLink) -> dict[str, Any]:
        """See :class:`LinkKind`. bareudp_fill_info()."""
        shown = {name: link.data[name] for name in ("port", "ethertype", "srcport_min")}
        return shown | ({"multiproto": True} if link.data["multiproto"] else {})


KINDS = (Gre(), BareUdp())
