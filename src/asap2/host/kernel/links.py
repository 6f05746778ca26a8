# SPDX-License-Identifier: Apache-2.0
"""Network devices, addresses and routes by rtnetlink (include/uapi/linux/{rtnetlink,if_link,if_addr}.h)."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from asap2.netlink.body import Body
from asap2.netlink.client import Connection
from asap2.netlink.codec import Table, binary, nested, numbers, u32
from asap2.netlink.tables.link import (
    IFLA_VF_LINK_STATE_AUTO,
    IFLA_VF_LINK_STATE_DISABLE,
    IFLA_VF_LINK_STATE_ENABLE,
    LINK,
    RTEXT_FILTER_VF,
    RTM_GETLINK,
    RTM_SETLINK,
    VFINFO_LIST,
    Ifinfomsg,
)
from asap2.netlink.wire import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NetlinkError

IFF_UP = 1
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_GETROUTE = 26
RTM_GETSTATS = 94
IFLA_STATS_LINK_OFFLOAD_XSTATS = 4
RT_TABLE_MAIN = 254
IFA_F_NODAD = 0x02

LINK_STATES = {
    IFLA_VF_LINK_STATE_AUTO: "auto",
    IFLA_VF_LINK_STATE_ENABLE: "enable",
    IFLA_VF_LINK_STATE_DISABLE: "disable",
}
STATS64 = {"rx_packets": 0, "tx_packets": 1, "rx_bytes": 2, "tx_bytes": 3}
"""Places in struct rtnl_link_stats64."""


class Ifaddrmsg(NamedTuple):
    """struct ifaddrmsg."""

    family: int = 0
    prefixlen: int = 0
    flags: int = 0
    scope: int = 0
    index: int = 0  # type: ignore[assignment]


class Rtmsg(NamedTuple):
    """struct rtmsg."""

    family: int = 0
    dst_len: int = 0
    src_len: int = 0
    tos: int = 0
    table: int = 0
    protocol: int = 0
    scope: int = 0
    type: int = 0
    flags: int = 0


ADDRESS: Body[Ifaddrmsg] = Body(
    Ifaddrmsg, "=BBBBI", Table("ifa", {1: ("address", binary), 2: ("local", binary), 8: ("flags", u32)})
)
ROUTE: Body[Rtmsg] = Body(
    Rtmsg,
    "=8BI",
    Table(
        "rta",
        {1: ("dst", binary), 4: ("oif", u32), 5: ("gateway", binary), 9: ("multipath", binary), 15: ("table", u32)},
    ),
)


class Ifstatsmsg(NamedTuple):
    """struct if_stats_msg: *filter* has a bit for each IFLA_STATS_* that is asked for."""

    family: int = 0
    index: int = 0  # type: ignore[assignment]
    filter: int = 0


OFFLOAD_XSTATS = Table("offload_xstats", {1: ("cpu_hit", numbers("=Q"))})
STATS: Body[Ifstatsmsg] = Body(
    Ifstatsmsg, "=B3xII", Table("stats", {IFLA_STATS_LINK_OFFLOAD_XSTATS: ("offload", nested(OFFLOAD_XSTATS))})
)


@dataclass(frozen=True, slots=True)
class Link:
    """One link as rtnetlink dumps it: flags and attributes (:data:`asap2.netlink.tables.link.LINK_ATTRS`)."""

    index: int
    flags: int
    attrs: dict[Any, Any]

    @property
    def name(self) -> str:
        """The device's name."""
        return str(self.attrs.get("ifname", ""))

    @property
    def up(self) -> bool:
        """IFF_UP."""
        return bool(self.flags & IFF_UP)

    @property
    def kind(self) -> str | None:
        """IFLA_INFO_KIND."""
        found = self.attrs.get("linkinfo", {}).get("kind")
        return None if found is None else str(found)

    def counter(self, name: str) -> int:
        """A counter of :data:`STATS64`."""
        values = self.attrs.get("stats64", ())
        return int(values[STATS64[name]]) if len(values) > 3 else 0

    @property
    def vfs(self) -> list[dict[Any, Any]]:
        """IFLA_VFINFO_LIST's entries (:data:`asap2.netlink.tables.link.VF_INFO`)."""
        return list(self.attrs.get("vfinfo_list", {}).get("vf_info", []))


def mac_text(address: bytes) -> str:
    """A MAC as people write it."""
    return address.hex(":")


def links(route: Connection, *, vfs: bool = False) -> list[Link]:
    """Every link of this network namespace, with the PFs' virtual functions when *vfs*."""
    attrs = {"ext_mask": RTEXT_FILTER_VF} if vfs else {}
    answer = route.request(RTM_GETLINK, NLM_F_DUMP, LINK.encode(Ifinfomsg(), attrs))
    found = []
    for message in answer:
        header, decoded = LINK.decode(message.payload)
        found.append(Link(header.index, header.flags, decoded))
    return found


def link_named(route: Connection, name: str) -> Link | None:
    """The link called *name*; None when there is none."""
    request = LINK.encode(Ifinfomsg(), {"ifname": name, "ext_mask": RTEXT_FILTER_VF})
    try:
        (answer,) = route.request(RTM_GETLINK, 0, request)
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    header, attrs = LINK.decode(answer.payload)
    return Link(header.index, header.flags, attrs)


def cpu_hits(route: Connection) -> dict[int, int]:
    """The packets, either way, of each interface index that came to the host's CPU, where the driver tells.

    A representor of mlx5 has as its own counters those of the VF, in hardware; these (IFLA_OFFLOAD_XSTATS_CPU_HIT) are
    what the host saw. A driver without the difference tells none.
    """
    request = STATS.encode(Ifstatsmsg(filter=1 << (IFLA_STATS_LINK_OFFLOAD_XSTATS - 1)), {})
    try:
        answer = route.request(RTM_GETSTATS, NLM_F_DUMP, request)
    except NetlinkError:
        return {}  # a kernel before 4.8
    found = {}
    for message in answer:
        header, attrs = STATS.decode(message.payload)
        values = attrs.get("offload", {}).get("cpu_hit", ())
        if len(values) >= 2:
            found[header.index] = int(values[STATS64["rx_packets"]] + values[STATS64["tx_packets"]])
    return found


def addresses(route: Connection) -> dict[int, list[str]]:
    """The addresses of each interface index, as ``10.0.0.1/24``; without IPv6 link-local ones."""
    found: dict[int, list[str]] = {}
    for message in route.request(RTM_GETADDR, NLM_F_DUMP, ADDRESS.encode(Ifaddrmsg(), {})):
        header, attrs = ADDRESS.decode(message.payload)
        address = ipaddress.ip_address(bytes(attrs.get("local") or attrs.get("address") or bytes(4)))
        if not (address.version == 6 and address.is_link_local):
            found.setdefault(header.index, []).append(f"{address}/{header.prefixlen}")
    return found


def set_address(route: Connection, index: int, address: str, there: bool) -> None:
    """Give a device *address* (``10.0.0.1/24``), or take it away; EEXIST, EADDRNOTAVAIL."""
    one = ipaddress.ip_interface(address)
    family = socket.AF_INET if one.version == 4 else socket.AF_INET6
    flags = IFA_F_NODAD if one.version == 6 else 0
    header = Ifaddrmsg(family, one.network.prefixlen, flags, index=index)
    request = ADDRESS.encode(header, {"local": one.ip.packed, "address": one.ip.packed})
    route.request(RTM_NEWADDR if there else RTM_DELADDR, NLM_F_CREATE | NLM_F_EXCL if there else 0, request)


def default_interfaces(route: Connection) -> set[int]:
    """Indices of the interfaces that default routes of the main table lead to."""
    found: set[int] = set()
    for message in route.request(RTM_GETROUTE, NLM_F_DUMP, ROUTE.encode(Rtmsg(), {})):
        header, attrs = ROUTE.decode(message.payload)
        if header.dst_len == 0 and attrs.get("table", header.table) == RT_TABLE_MAIN:
            found |= set(_hops(attrs))
    return found


def _hops(attrs: dict[Any, Any]) -> Iterable[int]:
    if "oif" in attrs:
        yield int(attrs["oif"])
    raw = bytes(attrs.get("multipath", b""))
    while len(raw) >= 8:  # struct rtnexthop: length, flags, hops, interface
        length, _flags, _hops, index = struct.unpack_from("=HBBi", raw)
        if length < 8:
            return
        yield index
        raw = raw[(length + 3) & ~3 :]


def interface_towards(route: Connection, address: str) -> int | None:
    """The index of the interface by which *address* is reached; None when it is not."""
    target = ipaddress.ip_address(address)
    if isinstance(target, ipaddress.IPv6Address) and target.ipv4_mapped:
        target = target.ipv4_mapped
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    request = ROUTE.encode(Rtmsg(family=family, dst_len=target.max_prefixlen), {"dst": target.packed})
    try:
        (answer,) = route.request(RTM_GETROUTE, 0, request)
    except (NetlinkError, ValueError):
        return None
    return next(iter(_hops(ROUTE.decode(answer.payload)[1])), None)


def set_up(route: Connection, index: int, up: bool) -> None:
    """Set a device up or down."""
    header = Ifinfomsg(index=index, flags=IFF_UP if up else 0, change=IFF_UP)
    route.request(RTM_SETLINK, 0, LINK.encode(header, {}))


def rename(route: Connection, index: int, name: str) -> None:
    """Rename a device."""
    route.request(RTM_SETLINK, 0, LINK.encode(Ifinfomsg(index=index), {"ifname": name}))


def set_mtu(route: Connection, index: int, mtu: int) -> None:
    """Set a device's MTU."""
    route.request(RTM_SETLINK, 0, LINK.encode(Ifinfomsg(index=index), {"mtu": mtu}))


def set_mac(route: Connection, index: int, mac: str) -> None:
    """Set a device's own MAC."""
    address = bytes.fromhex(mac.replace(":", ""))
    route.request(RTM_SETLINK, 0, LINK.encode(Ifinfomsg(index=index), {"address": address}))


def set_vf(route: Connection, index: int, vf: int, attribute: str, value: Any) -> None:
    """Set an attribute of virtual function *vf* of the PF with that interface index, as ``ip link set PF vf N`` does.

    *attribute* and *value*: "mac" a string, "vlan" (vlan, qos), "spoofchk" and "trust" a bool, "link_state" a word of
    :data:`LINK_STATES`, "rates" (minimum, maximum) in Mbit/s.
    """
    info: dict[str, Any]
    if attribute == "mac":
        info = {"mac": (vf, bytes.fromhex(value.replace(":", "")).ljust(32, b"\0"))}
    elif attribute == "vlan":
        info = {"vlan": (vf, *value)}
    elif attribute == "rates":
        info = {"rate": (vf, *value)}
    elif attribute == "link_state":
        info = {"link_state": (vf, next(number for number, word in LINK_STATES.items() if word == value))}
    else:
        info = {attribute: (vf, int(value))}
    listed = VFINFO_LIST.encode({"vf_info": [info]})
    route.request(RTM_SETLINK, 0, LINK.encode(Ifinfomsg(index=index), {"vfinfo_list": listed}))
