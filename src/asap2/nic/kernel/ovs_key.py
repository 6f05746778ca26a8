# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch flow keys: netlink attributes to rule matches, and a packet to the key that an upcall carries.

Attribute numbers and layouts: include/uapi/linux/openvswitch.h; meanings: net/openvswitch/{flow,flow_netlink}.c.
All addresses and ports are big-endian on the wire, attribute headers in host order.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from asap2.netlink.wire import NLA_TYPE_MASK, NetlinkError, attribute, attributes
from asap2.nic.rules import OVS_TABLE, VLAN_PRESENT, Frag, Masked, Match
from asap2.nic.rules import TUN_CSUM as TUN_CSUM_BIT
from asap2.nic.rules import TUN_DONT_FRAGMENT as TUN_DF_BIT
from asap2.nic.rules import TUN_OAM as TUN_OAM_BIT

ENCAP: Final = 1
PRIORITY: Final = 2
IN_PORT: Final = 3
ETHERNET: Final = 4
VLAN: Final = 5
ETHERTYPE: Final = 6
IPV4: Final = 7
IPV6: Final = 8
TCP: Final = 9
UDP: Final = 10
ICMP: Final = 11
ICMPV6: Final = 12
ARP: Final = 13
ND: Final = 14
SKB_MARK: Final = 15
TUNNEL: Final = 16
SCTP: Final = 17
TCP_FLAGS: Final = 18
DP_HASH: Final = 19
RECIRC_ID: Final = 20
MPLS: Final = 21
CT_STATE: Final = 22
CT_ZONE: Final = 23
CT_MARK: Final = 24
CT_LABELS: Final = 25
CT_ORIG_TUPLE_IPV4: Final = 26
CT_ORIG_TUPLE_IPV6: Final = 27
NSH: Final = 28
IPV6_EXTHDRS: Final = 32

_LENGTHS: Final[dict[int, int]] = {
    PRIORITY: 4,
    IN_PORT: 4,
    ETHERNET: 12,
    VLAN: 2,
    ETHERTYPE: 2,
    IPV4: 12,
    IPV6: 40,
    TCP: 4,
    UDP: 4,
    SCTP: 4,
    ICMP: 2,
    ICMPV6: 2,
    ARP: 24,
    ND: 28,
    SKB_MARK: 4,
    TCP_FLAGS: 2,
    DP_HASH: 4,
    RECIRC_ID: 4,
    CT_STATE: 4,
    CT_ZONE: 2,
    CT_MARK: 4,
    CT_LABELS: 16,
    CT_ORIG_TUPLE_IPV4: 16,
    CT_ORIG_TUPLE_IPV6: 40,
}
"""Length in bytes of each attribute of fixed size; another length is EINVAL, as in the kernel."""

TUN_ID: Final = 0
TUN_IPV4_SRC: Final = 1
TUN_IPV4_DST: Final = 2
TUN_TOS: Final = 3
TUN_TTL: Final = 4
TUN_DONT_FRAGMENT: Final = 5
TUN_CSUM: Final = 6
TUN_OAM: Final = 7
TUN_TP_SRC: Final = 9
TUN_TP_DST: Final = 10
TUN_IPV6_SRC: Final = 12
TUN_IPV6_DST: Final = 13
TUNNEL_LENGTHS: Final[dict[int, int]] = {
    TUN_ID: 8,
    TUN_IPV4_SRC: 4,
    TUN_IPV4_DST: 4,
    TUN_TOS: 1,
    TUN_TTL: 1,
    TUN_DONT_FRAGMENT: 0,
    TUN_CSUM: 0,
    TUN_OAM: 0,
    TUN_TP_SRC: 2,
    TUN_TP_DST: 2,
    TUN_IPV6_SRC: 16,
    TUN_IPV6_DST: 16,
}
"""OVS_TUNNEL_KEY_ATTR_* and their lengths in bytes; flags have none."""
_TUNNEL_FIELDS: Final = {
    TUN_ID: "tun_id",
    TUN_IPV4_SRC: "tun_src",
    TUN_IPV4_DST: "tun_dst",
    TUN_IPV6_SRC: "tun_src",
    TUN_IPV6_DST: "tun_dst",
    TUN_TOS: "tun_tos",
    TUN_TTL: "tun_ttl",
    TUN_TP_DST: "tun_tp_dst",
}

TUNNEL_FLAGS: Final = {TUN_DONT_FRAGMENT: TUN_DF_BIT, TUN_CSUM: TUN_CSUM_BIT, TUN_OAM: TUN_OAM_BIT}
"""Attributes that are flags, and their bits in ``tun_flags``."""

_VLAN_TYPES = (0x8100, 0x88A8)
_FRAGS = {0: Frag.NONE, 1: Frag.IS_FRAGMENT | Frag.FIRST, 2: Frag.IS_FRAGMENT}
"""OVS_FRAG_TYPE_{NONE,FIRST,LATER} in the rule vocabulary."""

_ZERO_OR_REFUSE = (PRIORITY, SKB_MARK, DP_HASH, CT_STATE, CT_ZONE, CT_MARK, CT_LABELS)
"""Packet metadata that is always 0 here: a match on 0 holds, one on anything else is refused."""
_UNSUPPORTED = (MPLS, CT_ORIG_TUPLE_IPV4, CT_ORIG_TUPLE_IPV6, NSH)

_U16 = struct.Struct("!H")


@dataclass(slots=True)
class Level:
    """The attributes of a key or mask, those behind its VLAN tags in ``inner``."""

    attrs: dict[int, bytes]
    inner: Level | None = None


def _invalid(text: str) -> NetlinkError:
    return NetlinkError(errno.EINVAL, text)


def parse(payload: bytes, depth: int = 0) -> Level:
    """The attributes of a nested key or mask; EINVAL for a wrong length, a repeat, an unknown type or deep nesting."""
    level = Level({})
    for kind, value in attributes(payload):
        kind &= NLA_TYPE_MASK
        if kind in level.attrs or (kind == ENCAP and level.inner):
            raise _invalid(f"Duplicate key (type {kind}).")
        if kind == ENCAP:
            if depth > 1:
                raise _invalid("Too many VLAN tags.")
            level.inner = parse(value, depth + 1)
            continue
        expected = _LENGTHS.get(kind)
        if expected is not None and len(value) != expected:
            raise _invalid(f"Key {kind} has unexpected len {len(value)} expected {expected}")
        if kind > IPV6_EXTHDRS or kind == 0:
            raise _invalid(f"Key type {kind} is out of range")
        level.attrs[kind] = bytes(value)
    return level


def in_port_of(level: Level) -> int | None:
    """IN_PORT of a key, None when it has none."""
    value = level.attrs.get(IN_PORT)
    return None if value is None else int.from_bytes(value, "little")


def table_of(level: Level) -> int:
    """The table of the key's recirculation id."""
    value = level.attrs.get(RECIRC_ID)
    return OVS_TABLE | (int.from_bytes(value, "little") if value else 0)


class _Builder:
    """Collects match fields from a key and a mask, level by level."""

    def __init__(self) -> None:
        self.fields: dict[str, Masked] = {}

    def put(self, name: str, value: int, mask: int) -> None:
        if mask:
            self.fields[name] = Masked(value & mask, mask)

    def put_bytes(self, name: str, key: bytes, mask: bytes) -> None:
        self.put(name, int.from_bytes(key, "big"), int.from_bytes(mask, "big"))


def tunnel_attributes(payload: bytes) -> dict[int, bytes]:
    """The attributes of a tunnel key by number; EINVAL for a wrong length, EOPNOTSUPP for tunnel options."""
    found = {}
    for kind, value in attributes(payload):
        kind &= NLA_TYPE_MASK
        if kind not in TUNNEL_LENGTHS:
            raise NetlinkError(errno.EOPNOTSUPP, f"Tunnel attribute {kind} is not supported by this datapath.")
        if len(value) != TUNNEL_LENGTHS[kind]:
            raise _invalid(f"Tunnel attr {kind} has unexpected len {len(value)} expected {TUNNEL_LENGTHS[kind]}")
        found[kind] = bytes(value)
    return found


def _flags(found: Iterable[int]) -> int:
    """The bits of the flags that are among these attributes."""
    return sum(TUNNEL_FLAGS.get(kind, 0) for kind in found)


def _tunnel(out: _Builder, key: bytes, mask: bytes | None) -> None:
    values = tunnel_attributes(key)
    masks = None if mask is None else tunnel_attributes(mask)
    out.put("tun_flags", _flags(values), _flags(TUNNEL_FLAGS if masks is None else masks))
    for kind, name in _TUNNEL_FIELDS.items():
        value = values.get(kind)
        if kind == TUN_ID and value is not None:
            if any(value[:4]):
                raise _invalid("A tunnel's id has 32 bits here.")
            out.put_bytes(name, value[4:], b"\xff" * 4 if masks is None else masks.get(kind, bytes(8))[4:])
        elif value is not None:
            out.put_bytes(name, value, b"\xff" * len(value) if masks is None else masks.get(kind, bytes(len(value))))


def _mask_of(mask: Level | None, kind: int, length: int) -> bytes:
    if mask is None:
        return b"\xff" * length
    return mask.attrs.get(kind, bytes(length))


def to_match(key: Level, mask: Level | None) -> Match:
    """The match of a flow's key and mask (no mask: exact on all that the key names).

    EINVAL where the key asks for what the datapath does not have (connection tracking, MPLS, NSH).
    """
    out = _Builder()
    for kind in _ZERO_OR_REFUSE:
        value = key.attrs.get(kind)
        if value and any(a & b for a, b in zip(value, _mask_of(mask, kind, len(value)), strict=False)):
            raise _invalid(f"Key type {kind} is not supported by this datapath.")
    if TUNNEL in key.attrs:
        _tunnel(out, key.attrs[TUNNEL], mask.attrs.get(TUNNEL, b"") if mask is not None else None)
    if ethernet := key.attrs.get(ETHERNET):
        masked = _mask_of(mask, ETHERNET, 12)
        out.put_bytes("eth_src", ethernet[:6], masked[:6])
        out.put_bytes("eth_dst", ethernet[6:], masked[6:])
    inner, inner_mask = _vlans(out, key, mask)
    for kind in _UNSUPPORTED:
        if kind in key.attrs or kind in inner.attrs:
            raise _invalid(f"Key type {kind} is not supported by this datapath.")
    _network(out, inner, inner_mask)
    return Match(**out.fields)


def _vlans(out: _Builder, key: Level, mask: Level | None) -> tuple[Level, Level | None]:
    """Match the tags; the level of the payload. Both TCIs are always matched (ovs_nla_get_match)."""
    for depth, name in enumerate(("vlan_tci", "cvlan_tci")):
        ethertype = key.attrs.get(ETHERTYPE)
        tagged = ethertype is not None and _U16.unpack(ethertype)[0] in _VLAN_TYPES and VLAN in key.attrs
        if not tagged:
            out.put(name, 0, 0xFFFF)
            if depth == 0:
                out.put("cvlan_tci", 0, 0xFFFF)
            return key, mask
        tci = _U16.unpack(key.attrs[VLAN])[0]
        tci_mask = _U16.unpack(_mask_of(mask, VLAN, 2))[0]
        if not tci & VLAN_PRESENT:
            raise _invalid("VLAN TCI does not have VLAN_CFI_MASK bit set.")
        out.put(name, tci, tci_mask)
        if depth == 0:
            out.put("vlan_tpid", _U16.unpack(key.attrs[ETHERTYPE])[0], _U16.unpack(_mask_of(mask, ETHERTYPE, 2))[0])
        else:
            tpid = _U16.unpack(key.attrs[ETHERTYPE])[0], _U16.unpack(_mask_of(mask, ETHERTYPE, 2))[0]
            out.put("cvlan_tpid", tpid[0] >> 8, tpid[1] >> 8)
        key = key.inner or Level({})
        mask = None if mask is None else (mask.inner or Level({}))
    return key, mask


def _network(out: _Builder, key: Level, mask: Level | None) -> None:
    if ethertype := key.attrs.get(ETHERTYPE):
        out.put_bytes("eth_type", ethertype, _mask_of(mask, ETHERTYPE, 2))
    if ipv4 := key.attrs.get(IPV4):
        m = _mask_of(mask, IPV4, 12)
        out.put_bytes("ip_src", ipv4[:4], m[:4])
        out.put_bytes("ip_dst", ipv4[4:8], m[4:8])
        _ip(out, ipv4[8:12], m[8:12])
    elif ipv6 := key.attrs.get(IPV6):
        m = _mask_of(mask, IPV6, 40)
        out.put_bytes("ip_src", ipv6[:16], m[:16])
        out.put_bytes("ip_dst", ipv6[16:32], m[16:32])
        out.put("ipv6_label", int.from_bytes(ipv6[32:36], "big"), int.from_bytes(m[32:36], "big") & 0xFFFFF)
        _ip(out, ipv6[36:40], m[36:40])
    elif arp := key.attrs.get(ARP):
        m = _mask_of(mask, ARP, 24)
        out.put_bytes("ip_src", arp[:4], m[:4])
        out.put_bytes("ip_dst", arp[4:8], m[4:8])
        out.put_bytes("ip_proto", arp[9:10], m[9:10])
        out.put_bytes("arp_sha", arp[10:16], m[10:16])
        out.put_bytes("arp_tha", arp[16:22], m[16:22])
    _transport(out, key, mask)


def _ip(out: _Builder, tail: bytes, mask: bytes) -> None:
    """proto, tos, ttl, frag: the same four octets in both IP keys."""
    for index, name in enumerate(("ip_proto", "ip_tos", "ip_ttl")):
        out.put(name, tail[index], mask[index])
    if mask[3]:
        frag = _FRAGS.get(tail[3])
        if frag is None:
            raise _invalid(f"IP fragment type {tail[3]} is out of range.")
        out.put("ip_frag", int(frag), 3)


def _transport(out: _Builder, key: Level, mask: Level | None) -> None:
    for kind in (TCP, UDP, SCTP):
        if ports := key.attrs.get(kind):
            m = _mask_of(mask, kind, 4)
            out.put_bytes("l4_src", ports[:2], m[:2])
            out.put_bytes("l4_dst", ports[2:], m[2:])
    for kind in (ICMP, ICMPV6):
        if icmp := key.attrs.get(kind):
            m = _mask_of(mask, kind, 2)
            out.put("l4_src", icmp[0], m[0])
            out.put("l4_dst", icmp[1], m[1])
    if flags := key.attrs.get(TCP_FLAGS):
        m = _mask_of(mask, TCP_FLAGS, 2)
        out.put("tcp_flags", int.from_bytes(flags, "big") & 0xFFF, int.from_bytes(m, "big") & 0xFFF)
    if nd := key.attrs.get(ND):
        m = _mask_of(mask, ND, 28)
        out.put_bytes("nd_target", nd[:16], m[:16])
        out.put_bytes("arp_sha", nd[16:22], m[16:22])
        out.put_bytes("arp_tha", nd[22:28], m[22:28])


def normalized(key: Level, mask: Level | None) -> tuple[bytes, bytes]:
    """Key and mask as the kernel gives them back: every metadata attribute there, in its order (__ovs_nla_put_key)."""
    return _emit(key, key, is_mask=False), _emit(key, mask, is_mask=True)


def _emit(key: Level, values: Level | None, *, is_mask: bool) -> bytes:
    out = bytearray()
    for kind, length in (
        (RECIRC_ID, 4),
        (DP_HASH, 4),
        (PRIORITY, 4),
        (TUNNEL, 0),
        (IN_PORT, 4),
        (SKB_MARK, 4),
        (CT_STATE, 4),
        (CT_ZONE, 2),
        (CT_MARK, 4),
        (CT_LABELS, 16),
    ):
        if kind == TUNNEL:
            if TUNNEL in key.attrs:
                out += attribute(TUNNEL, (values if values is not None else key).attrs.get(TUNNEL, b""))
            continue
        if values is None:
            value = b"\xff" * length if kind in key.attrs else bytes(length)
        else:
            value = values.attrs.get(kind, bytes(length))
        if kind == IN_PORT and kind not in key.attrs:
            continue
        out += attribute(kind, value)
    out += _emit_headers(key, values, is_mask=is_mask)
    return bytes(out)


def _emit_headers(key: Level, values: Level | None, *, is_mask: bool) -> bytes:
    out = bytearray()
    for kind in (ETHERNET, ETHERTYPE, VLAN):
        if kind in key.attrs:
            out += attribute(kind, _value(values, kind))
    if key.inner is not None:
        inner = values.inner if values is not None else None
        out += attribute(
            ENCAP, _emit_headers(key.inner, None if values is None else inner or Level({}), is_mask=is_mask)
        )
    for kind in (IPV4, IPV6, ARP, TCP, TCP_FLAGS, UDP, SCTP, ICMP, ICMPV6, ND):
        if kind in key.attrs:
            out += attribute(kind, _value(values, kind))
    return bytes(out)


def _value(values: Level | None, kind: int) -> bytes:
    length = _LENGTHS[kind]
    return b"\xff" * length if values is None else values.attrs.get(kind, bytes(length))
