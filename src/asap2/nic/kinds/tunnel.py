# SPDX-License-Identifier: Apache-2.0
"""Tunnel devices: Geneve, and GRE with a frame inside (drivers/net/geneve.c, net/ipv4/ip_gre.c, net/ipv6/ip6_gre.c)."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asap2.namespaces import in_netns
from asap2.netlink.wire import NetlinkError
from asap2.nic.kinds import tunnel_programs
from asap2.nic.kinds.kind import KindLink, LinkKind, Made, Wanted
from asap2.nic.kinds.tunnel_programs import Device, TunnelPrograms
from asap2.nic.tunnels import geneve

if TYPE_CHECKING:
    from asap2.nic.kinds.links import KindLinks
    from asap2.nic.links import Link

GRE_KEY = 0x2000
_ETHERNET, _UDP_AND_GENEVE = 14, 16
_ETH_DATA_LEN = 1500
_IP_MTU, _IPV6_MTU = 14, 24
_INHERIT = 1
"""As a TOS: that of the packet inside, which these devices do not look for."""
_SYSCTL = Path("/proc/sys/net")
_ADDRESSES = ("remote", "local")


def route_mtu(remote: bytes) -> int:
    """The MTU of the way to *remote*; 0: there is none."""
    version6 = len(remote) == 16
    family, level, name = (
        (socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_MTU) if version6 else (socket.AF_INET, socket.IPPROTO_IP, _IP_MTU)
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect((socket.inet_ntop(family, remote), geneve.PORT))
        return probe.getsockopt(level, name)
    return 0


def _forward(ifindex: int) -> None:
    """Have the device *ifindex* of this thread's network namespace forward packets of both IP versions."""
    for version in ("ipv4", "ipv6"):
        with contextlib.suppress(OSError):
            (_SYSCTL / version / "conf" / socket.if_indextoname(ifindex) / "forwarding").write_text("1")


def _listen(links: KindLinks, namespace: int, programs: TunnelPrograms) -> None:
    """Have the programs take packets out of tunnels at every device of a network namespace."""
    there = {one.ifindex for one in links.reader.all(namespace)}
    if programs.listening != there:
        with links.opened(namespace) as netns:
            programs.listen(there, netns)


def _tos(data: Mapping[str, Any]) -> int:
    return 0 if data.get("tos", 0) == _INHERIT else int(data.get("tos", 0))


def _check_mtu(wanted: Wanted, most: int) -> None:
    """EINVAL for an MTU above *most* (dev_validate_mtu)."""
    if wanted.attrs.get("mtu", 0) > most:
        raise NetlinkError(errno.EINVAL, "mtu greater than device maximum")


UNDERLAY = "underlay"
"""What is kept of a device: the id of the network namespace by whose routes its packets go."""


class TunnelKind(LinkKind):
    """What Geneve and GRE have in common. Kept of each device: its IFLA_INFO_DATA, addresses as hexadecimal digits."""

    has_carrier = False
    beside_itself = True
    number: int
    """enum tunnel_kind of the programs."""

    def device(self, data: Mapping[str, Any], far: int = 0) -> Device:
        """What the programs are told of a device with this *data*."""
        raise NotImplementedError

    def install(self, links: KindLinks, link: KindLink, netns: int) -> None:
        """See :class:`LinkKind`. The programs look up routes as the device's, which forwards for that reason."""
        if link.namespace != link.data[UNDERLAY]:
            text = "a tunnel device is in the network namespace whose routes its packets take"
            raise NetlinkError(errno.EOPNOTSUPP, text)
        links.programs.run("discard", link.id, link.far, netns)
        links.set_far_up(link, True)
        in_netns(netns, lambda: _forward(link.ifindex))
        programs = self._programs(links, link)
        self._set(links, link, programs)
        programs.run(link.ifindex, netns)
        _listen(links, link.namespace, programs)

    def follow(self, links: KindLinks, link: KindLink) -> bool:
        """See :class:`LinkKind`. In another network namespace a device does nothing."""
        if link.namespace == self._underlay(links, link):
            programs = self._programs(links, link)
            self._set(links, link, programs)
            _listen(links, link.namespace, programs)
        return True

    def forget(self, links: KindLinks, link: KindLink) -> None:
        """See :class:`LinkKind`."""
        programs, underlay = self._programs(links, link), self._underlay(links, link)
        programs.forget(link.ifindex, self.device(link.data))
        if any(UNDERLAY in one.data and self._underlay(links, one) == underlay for one in links):
            return
        if underlay == links.home_of_node:
            programs.deafen()
        else:
            programs.unload()
            del links.tunnel_programs[underlay]

    def as_seen(self, link: KindLink, found: Link) -> Link:
        """See :class:`LinkKind`."""
        port, lower = link.data.get("port", 0), link.data.get("link", 0)
        return replace(super().as_seen(link, found), tunnel_port=port, tunnel_lower=lower)

    def _set(self, links: KindLinks, link: KindLink, programs: TunnelPrograms) -> None:
        near = links.read(link.namespace, link.ifindex)
        if near is not None:
            programs.set(link.ifindex, self.device(link.data, link.far))

    def _programs(self, links: KindLinks, link: KindLink) -> TunnelPrograms:
        """Those of the network namespace of a device's routes."""
        underlay = self._underlay(links, link)
        if underlay not in links.tunnel_programs:
            name = "tunnels" if underlay == links.home_of_node else f"tunnels-{underlay}"
            links.tunnel_programs[underlay] = TunnelPrograms(links.programs.directory.with_name(name))
        return links.tunnel_programs[underlay]

    @staticmethod
    def _underlay(links: KindLinks, link: KindLink) -> int | None:
        return link.data.get(UNDERLAY, links.home_of_node)

    def _others(self, links: KindLinks, namespace: int) -> list[Mapping[str, Any]]:
        return [one.data for one in links if one.kind == self.name and self._underlay(links, one) == namespace]

    def _check_place(self, links: KindLinks, data: Mapping[str, Any], but: Mapping[str, Any] | None = None) -> None:
        """EEXIST if the packets of a device with this *data* are for another one in its network namespace, the one that
        has the data *but* apart (ip_tunnel_find)."""
        place = self.device(data).place()
        others = (other for other in self._others(links, data[UNDERLAY]) if other is not but)
        if any(self.device(other).place() == place for other in others):
            raise NetlinkError(errno.EEXIST)


class Geneve(TunnelKind):
    """Geneve."""

    name = "geneve"
    mtus = (68, 65535 - _UDP_AND_GENEVE - _ETHERNET)
    number = tunnel_programs.GENEVE

    def limits(self, link: KindLink) -> tuple[int, int]:
        """See :class:`LinkKind`."""
        return self.mtus[0], self._most(link.data)

    def _most(self, data: Mapping[str, Any]) -> int:
        return self.mtus[1] - (40 if data["collect_metadata"] or "remote6" in data else 20)

    def _mtu(self, data: Mapping[str, Any], netns: int) -> int:
        """The MTU of a device whose request names none: what the route leaves (geneve_link_config)."""
        ip = 40 if "remote6" in data else 20
        remote = bytes.fromhex(data.get("remote") or data.get("remote6") or "00000000")
        route = in_netns(netns, lambda: route_mtu(remote))
        left = route - ip - _UDP_AND_GENEVE - _ETHERNET
        return min(left, self._most(data)) if left > 0 else _ETH_DATA_LEN

    def check(self, wanted: Wanted) -> None:
        """See :class:`LinkKind`. geneve_validate()."""
        super().check(wanted)
        if wanted.data is None:
            raise NetlinkError(errno.EINVAL, "Not enough attributes provided to perform the operation")
        if wanted.data.get("id", 0) >= 1 << 24:
            raise NetlinkError(errno.ERANGE, "VNI must be lower than 16777216")
        if wanted.data.get("df", 0) > 2:
            raise NetlinkError(errno.EINVAL, "Invalid DF attribute")

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. geneve_nl2info(), geneve_configure()."""
        _check_mtu(wanted, self.mtus[1])
        data = dict(wanted.data or {})
        if "remote" in data and "remote6" in data:
            raise NetlinkError(errno.EINVAL, "Cannot specify both IPv4 and IPv6 Remote addresses")
        if "remote" in data and data["remote"][0] >> 4 == 0xE:
            raise NetlinkError(errno.EINVAL, "Remote IPv4 address cannot be Multicast")
        if "remote6" in data and data["remote6"][0] == 0xFF:
            raise NetlinkError(errno.EINVAL, "Remote IPv6 address cannot be Multicast")
        collects = "collect_metadata" in data
        kept: dict[str, Any] = {name: value for name, value in data.items() if isinstance(value, int)}
        kept |= {name: data[name].hex() for name in ("remote", "remote6") if name in data}
        kept |= {"port": data.get("port", geneve.PORT), "collect_metadata": collects, UNDERLAY: namespace}
        if collects and (data.get("id") or data.get("tos") or data.get("ttl") or "remote" in data or "remote6" in data):
            text = "Device is externally controlled, so attributes (VNI, Port, and so on) must not be specified"
            raise NetlinkError(errno.EINVAL, text)
        same = [other for other in self._others(links, namespace) if other["port"] == kept["port"]]
        if any(self.device(other).place() == self.device(kept).place() for other in same):
            raise NetlinkError(errno.EBUSY)
        if collects and same:
            text = "There can be only one externally controlled device on a destination port"
            raise NetlinkError(errno.EPERM, text)
        if any(other["collect_metadata"] for other in same):
            text = "There already exists an externally controlled device on this destination port"
            raise NetlinkError(errno.EPERM, text)
        with links.opened(namespace) as netns:
            return Made({"mtu": self._mtu(kept, netns)}, kept)

    def device(self, data: Mapping[str, Any], far: int = 0) -> Device:
        """See :class:`TunnelKind`."""
        remote = bytes.fromhex(data.get("remote") or data.get("remote6") or "00000000")
        return Device(
            *(self.number, data["collect_metadata"], data.get("id", 0), data["port"], b"", remote),
            *(data.get("ttl", 0), _tos(data), data.get("df", 0) == 1, far),
        )

    def shown(self, links: KindLinks, link: KindLink) -> dict[str, Any]:
        """See :class:`LinkKind`. geneve_fill_info()."""
        data = link.data
        shown: dict[str, Any] = {"id": data.get("id", 0)}
        if not data["collect_metadata"]:
            if "remote6" in data:
                shown["remote6"] = bytes.fromhex(data["remote6"])
                shown["udp_zero_csum6_tx"] = data.get("udp_zero_csum6_tx", 0)
            else:
                shown |= {"remote": bytes.fromhex(data.get("remote", "00000000")), "udp_csum": data.get("udp_csum", 0)}
        shown |= {name: data.get(name, 0) for name in ("ttl", "tos", "label", "df")}
        shown["port"] = data["port"]
        if data["collect_metadata"]:
            shown["collect_metadata"] = True
        lenient = data.get("udp_zero_csum6_rx", "remote6" not in data)
        return shown | {"udp_zero_csum6_rx": int(lenient), "ttl_inherit": data.get("ttl_inherit", 0)}


class Gretap(TunnelKind):
    """GRE between IPv4 addresses."""

    name = "gretap"
    mtus = (68, 0)
    shows_lower = True
    number = tunnel_programs.GRETAP
    octets = 4
    mtu = 1462

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. ipgre_netlink_parms(), ip_tunnel_newlink()."""
        data = dict(wanted.data or {})
        for flags in ("iflags", "oflags"):
            if data.get(flags, 0) & 0x4007:  # routing, version
                raise NetlinkError(errno.EINVAL)
        kept: dict[str, Any] = {name: value for name, value in data.items() if isinstance(value, int)}
        kept |= {name: data[name].hex() for name in _ADDRESSES if name in data}
        kept |= {"collect_metadata": "collect_metadata" in data, "pmtudisc": data.get("pmtudisc", 1)}
        kept[UNDERLAY] = namespace
        self._check_place(links, kept)
        return Made({"mtu": self.mtu - (4 if kept.get("oflags", 0) & GRE_KEY else 0)}, kept)

    def device(self, data: Mapping[str, Any], far: int = 0) -> Device:
        """See :class:`TunnelKind`."""
        local, remote = (bytes.fromhex(data.get(name, "00" * self.octets)) for name in ("local", "remote"))
        keyed = data.get("oflags", 0) & GRE_KEY
        tun_id = data.get("okey", 0) if keyed else None
        return Device(
            *(self.number, data["collect_metadata"], tun_id, 0, local, remote),
            *(data.get("ttl", 0), _tos(data), bool(data["pmtudisc"]), far),
        )

    def shown(self, links: KindLinks, link: KindLink) -> dict[str, Any]:
        """See :class:`LinkKind`. ipgre_fill_info(), ip6gre_fill_info()."""
        data = link.data
        shown: dict[str, Any] = {name: data.get(name, 0) for name in ("link", "iflags", "oflags", "ikey", "okey")}
        shown |= {name: bytes.fromhex(data.get(name, "00" * self.octets)) for name in ("local", "remote")}
        shown |= {name: data.get(name, 0) for name in self._numbers}
        shown |= {name: data.get(name, 0) for name in ("encap_type", "encap_sport", "encap_dport", "encap_flags")}
        if data["collect_metadata"]:
            shown["collect_metadata"] = True
        return shown

    _numbers: tuple[str, ...] = ("ttl", "tos", "pmtudisc", "fwmark")


class Ip6gretap(Gretap):
    """GRE between IPv6 addresses."""

    name = "ip6gretap"
    number = tunnel_programs.IP6GRETAP
    octets = 16
    mtu = 1434
    _numbers = ("ttl", "encap_limit", "flowinfo", "flags", "fwmark")


KINDS = (Geneve(), Gretap(), Ip6gretap())
