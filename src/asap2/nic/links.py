# SPDX-License-Identifier: Apache-2.0
"""Asking the kernel for links, quickly: only what the NIC follows of each (rtnetlink(7), RTM_GETLINK).

Link changes come often (a capture that starts is one), and each is followed by a look at every link; this reads the few
attributes it wants and skips the statistics.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from asap2.netlink.client import Connection
from asap2.netlink.wire import NLA_TYPE_MASK, NLM_F_DUMP, NetlinkError, attribute, attributes
from asap2.nic.tunnels import LinkKind, link_kind

RTM_NEWLINK, RTM_GETLINK, RTM_NEWNSID, RTM_GETNSID = 16, 18, 88, 90
NETNSA_NSID, NETNSA_FD, NETNSA_TARGET_NSID = 1, 3, 4
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_LINKINFO = 1, 3, 4, 5, 18
IFLA_PROMISCUITY = 30
IFLA_MASTER = 10
IFLA_STATS64, IFLA_EXT_MASK, IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID = 23, 29, 37, 46
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BOND_MODE = 1
IFLA_BOND_SLAVE_STATE, IFLA_BOND_SLAVE_MII_STATUS = 1, 2
IFLA_VLAN_ID, IFLA_VLAN_PROTOCOL = 1, 5
RTEXT_FILTER_SKIP_STATS = 8
ARPHRD_ETHER, ARPHRD_NONE = 1, 0xFFFE
MOST_IFINDEX = 0x7FFF_FFFF
IFF_UP, IFF_PROMISC, IFF_LOWER_UP = 1, 1 << 8, 1 << 16
_IFINFO = struct.Struct("=BxHiII")
_S32 = struct.Struct("=i")
_U32 = struct.Struct("=I")
_U16 = struct.Struct("=H")
_WITHOUT_STATS = attribute(IFLA_EXT_MASK, struct.pack("=I", RTEXT_FILTER_SKIP_STATS))


@dataclass(frozen=True, slots=True)
class Link:
    """A link: ``peer`` is the ifindex of a veth's other end (0: none), ``nsid`` the id of that end's network namespace
    (None: the same)."""

    ifindex: int
    name: str
    up: bool
    mac: bytes
    peer: int
    nsid: int | None
    kind: str = ""
    """IFLA_INFO_KIND, as ``veth`` or ``vxlan``."""
    tunnel_port: int = 0
    """The UDP destination port of a tunnel device."""
    carrier: bool = True
    """Whether the link is up and has a carrier."""
    promiscuous: bool = False
    vlan: tuple[int, int] | None = None
    """TPID and VLAN id of a VLAN device."""
    tunnel_lower: int = 0
    """The ifindex that a tunnel device's packets must leave by; 0: any."""
    bare: bool = False
    """Its packets begin with their network header."""
    veiled: bool = False
    """It is a veth that stands for such a device: a meaningless Ethernet header is in front of each packet."""
    mtu: int = 0
    ethernet: bool = True
    master: int = 0
    """The ifindex of the device that it is a port of; 0: there is none."""
    bond_mode: int = 0
    """BOND_MODE_* of a bond."""
    bond_sends: bool = False
    """Whether it is a port of a bond of the kernel's own that sends by it: active, and its link is up."""


class LinkReader:
    """Reads the links of the network namespace that it was made in."""

    def __init__(self) -> None:
        self._kernel = Connection()

    def close(self) -> None:
        """Close the socket."""
        self._kernel.close()

    def all(self, nsid: int | None = None) -> list[Link]:
        """Every link, of the namespace with id *nsid* when given."""
        return self._ask(0, NLM_F_DUMP, _target(nsid))

    def one(self, ifindex: int, nsid: int | None = None) -> Link | None:
        """The link *ifindex*, of the namespace with id *nsid* when given; None when there is none."""
        if not 0 < ifindex <= MOST_IFINDEX:
            return None
        try:
            return next(iter(self._ask(ifindex, 0, _target(nsid))), None)
        except NetlinkError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
                return None
            raise

    def counters(self, ifindex: int, nsid: int | None = None) -> tuple[int, ...]:
        """The first nine counters of struct rtnl_link_stats64: packets and bytes received and sent (in that order,
        packets first), errors, drops, multicast; all zero where there is no such link."""
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0) + _target(nsid)
        try:
            (answer,) = self._kernel.request(RTM_GETLINK, 0, payload)
        except NetlinkError:
            return (0,) * 9
        return struct.unpack_from("=9Q", _nested(answer.payload, _IFINFO.size).get(IFLA_STATS64, bytes(72)))

    def nsid(self, namespace: int) -> int | None:
        """The id that the network namespace open at *namespace* has in this one; None when it has none."""
        request = bytes(4) + attribute(NETNSA_FD, struct.pack("=I", namespace))
        (answer,) = self._kernel.request(RTM_GETNSID, 0, request)
        (found,) = _S32.unpack(_nested(answer.payload, 4)[NETNSA_NSID])
        return found if found >= 0 else None

    def give_nsid(self, namespace: int) -> None:
        """Give the network namespace open at *namespace* an id in this one."""
        request = bytes(4) + attribute(NETNSA_NSID, _S32.pack(-1)) + attribute(NETNSA_FD, struct.pack("=I", namespace))
        try:
            self._kernel.request(RTM_NEWNSID, 0, request)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise

    def nsid_as_seen_from(self, target: int, nsid: int) -> int:
        """The id that the namespace with id *nsid* here has in the one with id *target*; -1 when it has none there."""
        request = bytes(4) + attribute(NETNSA_NSID, _S32.pack(nsid)) + attribute(NETNSA_TARGET_NSID, _S32.pack(target))
        try:
            (answer,) = self._kernel.request(RTM_GETNSID, 0, request)
        except NetlinkError:
            return -1
        (found,) = _S32.unpack(_nested(answer.payload, 4)[NETNSA_NSID])
        return int(found)

    def _ask(self, ifindex: int, flags: int, more: bytes) -> list[Link]:
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0) + _WITHOUT_STATS + more
        answer = self._kernel.request(RTM_GETLINK, flags, payload)
        return [_link(message.payload) for message in answer if message.type == RTM_NEWLINK]


def _target(nsid: int | None) -> bytes:
    """What asks for links of the namespace with id *nsid* (None: of this one)."""
    return b"" if nsid is None else attribute(IFLA_TARGET_NETNSID, _S32.pack(nsid))


def _link(payload: bytes) -> Link:
    _family, hardware, ifindex, flags, _change = _IFINFO.unpack_from(payload)
    found = _nested(payload, _IFINFO.size)
    info = _nested(found.get(IFLA_LINKINFO, b""))
    kind = info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    data = _nested(info.get(IFLA_INFO_DATA, b""))
    tunnel_port, tunnel_lower = _tunnel(link_kind(kind), data)
    vlan = None
    if kind == "vlan":
        vlan = int.from_bytes(data.get(IFLA_VLAN_PROTOCOL, b"\x81\0"), "big"), _U16.unpack(data[IFLA_VLAN_ID])[0]
    nsid = found.get(IFLA_LINK_NETNSID)
    peer = found.get(IFLA_LINK)
    return Link(
        ifindex,
        found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="surrogateescape"),
        bool(flags & IFF_UP),
        found.get(IFLA_ADDRESS, b""),
        _S32.unpack(peer)[0] if peer else 0,
        _S32.unpack(nsid)[0] if nsid else None,
        kind,
        tunnel_port,
        flags & (IFF_UP | IFF_LOWER_UP) == IFF_UP | IFF_LOWER_UP,
        any(found.get(IFLA_PROMISCUITY, b"")),
        vlan,
        tunnel_lower,
        hardware == ARPHRD_NONE,
        False,
        _U32.unpack(found[IFLA_MTU])[0] if IFLA_MTU in found else 0,
        hardware == ARPHRD_ETHER,
        _U32.unpack(found[IFLA_MASTER])[0] if IFLA_MASTER in found else 0,
        data[IFLA_BOND_MODE][0] if kind == "bond" and IFLA_BOND_MODE in data else 0,
        _bond_sends(info),
    )


def _bond_sends(info: dict[int, bytes]) -> bool:
    if info.get(IFLA_INFO_SLAVE_KIND, b"").rstrip(b"\0") != b"bond":
        return False
    port = _nested(info.get(IFLA_INFO_SLAVE_DATA, b""))
    return not any(port.get(IFLA_BOND_SLAVE_STATE, b"\1")) and not any(port.get(IFLA_BOND_SLAVE_MII_STATUS, b"\1"))


def _tunnel(kind: LinkKind | None, data: dict[int, bytes]) -> tuple[int, int]:
    """The UDP port of a tunnel device, and what its packets must leave by."""
    if kind is None:
        return 0, 0
    port = data.get(kind.port, b"") if kind.port is not None else b""
    lower = data.get(kind.lower) if kind.lower is not None else None
    return int.from_bytes(port, "big"), _S32.unpack(lower)[0] if lower else 0


def _nested(data: bytes, start: int = 0) -> dict[int, bytes]:
    return {kind & NLA_TYPE_MASK: value for kind, value in attributes(data, start)}
