# SPDX-License-Identifier: Apache-2.0
"""Encode and decode tuples in messages (CTA_TUPLE_*), with the checks and errors of ctnetlink_parse_tuple()."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from socket import htons
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.tables.ctnetlink import IP, PROTO, TUPLE, TUPLE_PARTS
from asap2.netlink.wire import NLA_F_NESTED, NetlinkError
from asap2.nic.conntrack.view import PROTOCOLS_WITH_PORTS, Tuple
from asap2.nic.faces.conntrack import nests

# CTA_FILTER_FLAG(): which parts of a tuple are given (net/netfilter/nf_internals.h)
SRC: Final = 1 << 0
DST: Final = 1 << 1
ZONE: Final = 1 << 2
NUM: Final = 1 << 3
SRC_PORT: Final = 1 << 4
DST_PORT: Final = 1 << 5
ICMP_TYPE: Final = 1 << 6
ICMP_CODE: Final = 1 << 7
ICMP_ID: Final = 1 << 8
ICMPV6_TYPE: Final = 1 << 9
ICMPV6_CODE: Final = 1 << 10
ICMPV6_ID: Final = 1 << 11
ALL: Final = (1 << 12) - 1
_PROTO = ALL & ~(SRC | DST | ZONE | NUM)

_ADDRESSES = {socket.AF_INET: ("v4_src", "v4_dst"), socket.AF_INET6: ("v6_src", "v6_dst")}
_ICMP = {
    socket.IPPROTO_ICMP: ("icmp", ICMP_TYPE, ICMP_CODE, ICMP_ID, frozenset((0, 8, 13, 14, 15, 16, 17, 18))),
    socket.IPPROTO_ICMPV6: ("icmpv6", ICMPV6_TYPE, ICMPV6_CODE, ICMPV6_ID, frozenset((128, 129, 139, 140))),
}
"""Prefix of the attribute names, flags for type, code and identifier, and the types that may begin a connection."""


def shown(tuple_: Tuple) -> dict[str, Any]:
    """The attributes of a tuple."""
    family, protocol, src, dst, src_port, dst_port = tuple_
    source, destination = _ADDRESSES[socket.AddressFamily(family)]
    proto: dict[str, int] = {"num": protocol}
    icmp = _ICMP.get(protocol)
    if protocol in PROTOCOLS_WITH_PORTS:
        proto["src_port"], proto["dst_port"] = src_port, dst_port
    elif icmp is not None:
        name = icmp[0]
        proto[f"{name}_id"], proto[f"{name}_type"], proto[f"{name}_code"] = src_port, dst_port >> 8, dst_port & 0xFF
    return {"ip": {source: src, destination: dst}, "proto": proto}


def packed(tuple_: Tuple) -> bytes:
    """The encoded attributes of a tuple: those of :func:`shown`, but faster, because tables are long."""
    family, protocol, src, dst, src_port, dst_port = tuple_
    if protocol in PROTOCOLS_WITH_PORTS:
        return _PACKED[family](src, dst, protocol, htons(src_port), htons(dst_port))
    return TUPLE.encode(shown(tuple_))


def _packer(size: int, src: int, dst: int) -> Callable[[bytes, bytes, int, int, int], bytes]:
    """A function that packs a tuple with ports and addresses of *size* octets; *src* and *dst* are attribute types."""
    address, number, port = size + _HEAD, 1 + _HEAD, 2 + _HEAD
    pack = struct.Struct(f"=HHHH{size}sHH{size}sHHHHB3xHHH2xHHH2x").pack
    ip = (2 * address + _HEAD, 1 | NLA_F_NESTED, address, src)
    proto = (3 * 8 + _HEAD, 2 | NLA_F_NESTED, number, 1)

    def packed(source: bytes, destination: bytes, protocol: int, src_port: int, dst_port: int) -> bytes:
        return pack(*ip, source, address, dst, destination, *proto, protocol, port, 2, src_port, port, 3, dst_port)

    return packed


_HEAD: Final = 4
"""Length of an attribute's header, in octets."""
_PACKED: Final = {int(socket.AF_INET): _packer(4, 1, 2), int(socket.AF_INET6): _packer(16, 3, 4)}


def parsed(raw: bytes, family: int, flags: int = ALL) -> tuple[Tuple, int | None]:
    """The tuple in the nested attributes *raw*, and its zone, if given; parts that *flags* do not name are 0.

    Raises:
        NetlinkError: EOPNOTSUPP if the family is not IPv4 or IPv6; EINVAL if a part that *flags* name is missing, or no
            connection can have the tuple; ERANGE if an attribute is too short.
    """
    attrs = nests.decoded(TUPLE_PARTS, raw)
    names = _ADDRESSES.get(family)  # type: ignore[call-overload]
    if names is None:
        raise NetlinkError(errno.EOPNOTSUPP)
    src, dst = b"", b""
    if flags & (SRC | DST):
        addresses = nests.decoded(IP, nests.needed(attrs, "ip"))
        src = nests.needed(addresses, names[0]) if flags & SRC else b""
        dst = nests.needed(addresses, names[1]) if flags & DST else b""
    protocol, ports = 0, (0, 0)
    if flags & NUM:
        proto = nests.decoded(PROTO, nests.needed(attrs, "proto"))
        protocol = nests.needed(proto, "num")
        ports = _ports(proto, protocol, flags)
    elif flags & _PROTO:
        raise NetlinkError(errno.EINVAL)
    zone = attrs.get("zone") if flags & ZONE else None
    return Tuple(family, protocol, src, dst, *ports), zone


def matches(wanted: Tuple, found: Tuple, family: int, flags: int) -> bool:
    """Whether the parts that *flags* name are equal (ctnetlink_filter_match_tuple(), without its mistake for IPv6)."""
    if family and ((flags & SRC and wanted.src != found.src) or (flags & DST and wanted.dst != found.dst)):
        return False
    if flags & NUM and wanted.protocol != found.protocol:
        return False
    icmp = _ICMP.get(found.protocol)
    if found.protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return not (
            (flags & SRC_PORT and wanted.src_port != found.src_port)
            or (flags & DST_PORT and wanted.dst_port != found.dst_port)
        )
    if icmp is not None:
        _name, type_, code, id_, _types = icmp
        other = wanted.dst_port ^ found.dst_port
        return not (
            (flags & type_ and other >> 8)
            or (flags & code and other & 0xFF)
            or (flags & id_ and wanted.src_port != found.src_port)
        )
    return True


def _ports(proto: Attrs, protocol: int, flags: int) -> tuple[int, int]:
    icmp = _ICMP.get(protocol)
    if protocol in PROTOCOLS_WITH_PORTS:
        return (
            nests.needed(proto, "src_port") if flags & SRC_PORT else 0,
            nests.needed(proto, "dst_port") if flags & DST_PORT else 0,
        )
    if icmp is None:
        return 0, 0
    name, type_flag, code_flag, id_flag, types = icmp
    type_ = nests.needed(proto, f"{name}_type") if flags & type_flag else 0
    if flags & type_flag and type_ not in types:
        raise NetlinkError(errno.EINVAL)
    code = nests.needed(proto, f"{name}_code") if flags & code_flag else 0
    return (nests.needed(proto, f"{name}_id") if flags & id_flag else 0, type_ << 8 | code)
