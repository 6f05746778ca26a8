# SPDX-License-Identifier: Apache-2.0
"""ERSPAN devices: frames in GRE with what a mirror says of them (net/ipv4/ip_gre.c, net/ipv6/ip6_gre.c)."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asap2.netlink.wire import NetlinkError
from asap2.nic.kinds import tunnel_programs
from asap2.nic.kinds.kind import KindLink, Made, Wanted
from asap2.nic.kinds.tunnel import GRE_KEY, Gretap, Ip6gretap
from asap2.nic.kinds.tunnel_programs import Device

if TYPE_CHECKING:
    from asap2.nic.kinds.links import KindLinks

_GRE_SEQUENCE = 0x1000
_SESSION, _INDEX, _HARDWARE, _DIRECTION = 0x3FF, 0xFFFFF, 0x3F, 1
"""What fits (ID_MASK, INDEX_MASK, HWID_MASK, DIR_MASK)."""
_GRE, _BASE = 8, 4
_METADATA = {1: 4, 2: 8}
_LIMITS = {1: {"erspan_index": _INDEX}, 2: {"erspan_dir": _DIRECTION, "erspan_hwid": _HARDWARE}}


def headers(version: int) -> int:
    """Octets of GRE's header and ERSPAN's."""
    return _GRE + _BASE + _METADATA[version] if version else _GRE // 2


def metadata(data: Mapping[str, Any]) -> tuple[int, bytes]:
    """The version of a device, and what its metadata says, as :attr:`Device.erspan` has it."""
    version = data["erspan_ver"]
    if version != 2:
        return version, data.get("erspan_index", 0).to_bytes(4, "big")
    hardware, direction = data.get("erspan_hwid", 0), data.get("erspan_dir", 0)
    return version, bytes(6) + bytes((hardware >> 4, (hardware & 0xF) << 4 | direction << 3))


def _check(data: Mapping[str, Any]) -> None:
    """erspan_validate(), erspan_netlink_parms(). EINVAL."""
    version = data.get("erspan_ver", 1)
    flags = data.get("oflags", 0) | data.get("iflags", 0)
    wrong = version > 2 or (version and "collect_metadata" not in data and flags != _GRE_SEQUENCE | GRE_KEY)
    wrong = wrong or any(data.get(key, 0) & ~_SESSION for key in ("ikey", "okey"))
    if wrong or any(data.get(name, 0) & ~most for name, most in _LIMITS.get(version, {}).items()):
        raise NetlinkError(errno.EINVAL)


def _version(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a device of its version has. Attributes of the other are not looked at."""
    version = data.get("erspan_ver", 1)
    return {"erspan_ver": version} | {name: data.get(name, 0) for name in _LIMITS.get(version, ())}


def _shown(data: Mapping[str, Any], gre: dict[str, Any]) -> dict[str, Any]:
    """IFLA_INFO_DATA: ERSPAN's attributes, and then GRE's. A device that does not collect shows that it sends a key."""
    if data["erspan_ver"] and not data["collect_metadata"]:
        gre |= {"oflags": gre["oflags"] | GRE_KEY}
    return _version(data) | gre


class Erspan(Gretap):
    """ERSPAN between IPv4 addresses."""

    name = "erspan"
    number = tunnel_programs.ERSPAN
    room = 1500 - 14 - 20

    def check(self, wanted: Wanted) -> None:
        """See :class:`LinkKind`."""
        super().check(wanted)
        _check(wanted.data or {})

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. erspan_newlink(), erspan_tunnel_init()."""
        kept = _version(wanted.data or {})
        made = super().make(links, namespace, replace(wanted, data=dict(wanted.data or {}) | kept))
        return replace(made, defaults={"mtu": self.room - headers(kept["erspan_ver"])})

    def device(self, data: Mapping[str, Any], far: int = 0) -> Device:
        """See :class:`TunnelKind`. Type I has no session."""
        found = super().device(data, far)
        tun_id = found.tun_id if data["erspan_ver"] else None
        return replace(found, tun_id=tun_id, erspan=metadata(data))

    def shown(self, links: KindLinks, link: KindLink) -> dict[str, Any]:
        """See :class:`LinkKind`. erspan_fill_info()."""
        return _shown(link.data, super().shown(links, link))


class Ip6erspan(Ip6gretap, Erspan):
    """ERSPAN between IPv6 addresses. (Room is left for an encapsulation limit, as ip6erspan_tap_init() does.)"""

    name = "ip6erspan"
    number = tunnel_programs.IP6ERSPAN
    room = 1500 - 14 - 40 - 8


KINDS = (Erspan(), Ip6erspan())
