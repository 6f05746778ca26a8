# SPDX-License-Identifier: Apache-2.0
"""Tunnel devices without a frame inside: IPv4 and IPv6 in IPv4 (net/ipv4/ipip.c, net/ipv6/sit.c, ip_tunnel.c)."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asap2.namespaces import in_netns
from asap2.netlink.wire import NetlinkError
from asap2.nic.kinds import tunnel_programs
from asap2.nic.kinds.kind import IFF_BROADCAST, IFF_MULTICAST, IFF_NOARP, IFF_POINTOPOINT, KindLink, Made, Wanted
from asap2.nic.kinds.tunnel import UNDERLAY, TunnelKind, route_mtu
from asap2.nic.kinds.tunnel_programs import Device

if TYPE_CHECKING:
    from asap2.nic.kinds.links import KindLinks

_IPV4 = 20
_ETH_DATA_LEN = 1500
_ANY = "00000000"
_ARPHRD_TUNNEL, _ARPHRD_SIT = 768, 776


class Ipip(TunnelKind):
    """IPv4 in IPv4. Kept of each: its IFLA_INFO_DATA, addresses as hexadecimal digits."""

    name = "ipip"
    mtus = (0, 0)
    shows_lower = True
    without = IFF_BROADCAST | IFF_MULTICAST
    hardware = _ARPHRD_TUNNEL
    number = tunnel_programs.IPIP
    protocols: tuple[int, ...] = (0, 4)
    """IPPROTO_* that its ``mode`` may name: 0 is any."""

    def check(self, wanted: Wanted) -> None:
        """See :class:`LinkKind`. ipip_tunnel_validate(), ipip6_validate()."""
        if (wanted.data or {}).get("proto", 0) not in self.protocols:
            raise NetlinkError(errno.EINVAL)

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. ipip_netlink_parms(), ip_tunnel_newlink()."""
        data = dict(wanted.data or {})
        if "collect_metadata" in data or data.get("encap_type") or "6rd_prefix" in data:
            raise NetlinkError(errno.EOPNOTSUPP, "not a tunnel that packets choose, nor one in UDP, nor 6rd")
        kept = self._kept(data, namespace)
        self._check_place(links, kept)
        mtu = _ETH_DATA_LEN
        if kept.get("remote", _ANY) != _ANY:
            with links.opened(namespace) as netns:
                mtu = in_netns(netns, lambda: route_mtu(bytes.fromhex(kept["remote"]))) or mtu
        return Made({"mtu": max(mtu - _IPV4, 68)}, kept, flags=IFF_NOARP, without=IFF_MULTICAST)

    def change(self, links: KindLinks, link: KindLink, data: Mapping[Any, Any], netns: int) -> None:
        """See :class:`LinkKind`. ip_tunnel_changelink(): every parameter anew; the two ends may not become others'."""
        kept = self._kept(data, link.data[UNDERLAY])
        self._check_place(links, kept, but=link.data)
        if bool(int(kept.get("remote", _ANY), 16)) != bool(int(link.data.get("remote", _ANY), 16)):
            raise NetlinkError(errno.EINVAL)
        self._programs(links, link).forget_places(link.ifindex, self.device(link.data))
        link.data.clear()
        link.data.update(kept)
        self._set(links, link, self._programs(links, link))

    def _kept(self, data: Mapping[Any, Any], namespace: int) -> dict[str, Any]:
        """What is kept of a device with these parameters whose routes are those of *namespace*."""
        numbers = {name: value for name, value in data.items() if isinstance(value, int)}
        addresses = {name: data[name].hex() for name in ("local", "remote") if name in data}
        default = {"pmtudisc": 1, "ttl": 0, "proto": self.protocols[-1]}
        return {**default, **numbers, **addresses, UNDERLAY: namespace}

    def device(self, data: Mapping[str, Any], far: int = 0) -> Device:
        """See :class:`TunnelKind`."""
        local, remote = (bytes.fromhex(data.get(name, _ANY)) for name in ("local", "remote"))
        return Device(
            *(self.number, False, None, 0, local, remote),
            *(data["ttl"], data.get("tos", 0), bool(data["pmtudisc"]), far, data["proto"]),
        )

    def shown_flags(self, link: KindLink) -> tuple[int, int]:
        """See :class:`LinkKind`. ip_tunnel_bind_dev()."""
        return (IFF_POINTOPOINT if int(link.data.get("remote", _ANY), 16) else 0), self.without

    def shown_addresses(self, link: KindLink) -> tuple[bytes, bytes]:
        """See :class:`LinkKind`."""
        return bytes.fromhex(link.data.get("local", _ANY)), bytes.fromhex(link.data.get("remote", _ANY))

    def shown(self, links: KindLinks, link: KindLink) -> dict[str, Any]:
        """See :class:`LinkKind`. ipip_fill_info(), ipip6_fill_info()."""
        local, remote = self.shown_addresses(link)
        data = link.data
        shown: dict[str, Any] = {"link": data.get("link", 0), "local": local, "remote": remote}
        shown |= {"ttl": data["ttl"], "tos": data.get("tos", 0), "pmtudisc": data["pmtudisc"]}
        shown |= {"proto": data["proto"], "flags": 0, "fwmark": data.get("fwmark", 0)}
        return shown | {f"encap_{name}": 0 for name in ("type", "sport", "dport", "flags")}


class Sit(Ipip):
    """IPv6 in IPv4, and in mode ``any`` IPv4 too."""

    name = "sit"
    mtus = (1280, 0xFFFF + 40 - _IPV4)
    hardware = _ARPHRD_SIT
    number = tunnel_programs.SIT
    protocols = (0, 4, 41)


KINDS = (Ipip(), Sit())
