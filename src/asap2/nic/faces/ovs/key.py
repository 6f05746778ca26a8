# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch flow keys: netlink attributes to fields, checked as Linux checks them, and back.

A key, or a mask, is a dictionary of fields by name; a field that is not there is 0. The names are those of
:data:`asap2.nic.rules.FIELD_BITS`, with the kernel's values where they differ (fragments, TPIDs), and metadata that the
kernel's ``struct sw_flow_key`` has besides. Numbers are host integers. Attribute numbers and layouts:
include/uapi/linux/openvswitch.h; meanings and checks: net/openvswitch/flow_netlink.c.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from asap2.netlink.wire import NLA_TYPE_MASK, NetlinkError, attribute, attributes
from asap2.nic.rules import (
    BARE,
    OVS_TABLE,
    TUN_CSUM,
    TUN_DONT_FRAGMENT,
    TUN_OAM,
    VLAN_PRESENT,
    Frag,
    Masked,
    Match,
)

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
PACKET_TYPE: Final = 29
ND_EXTENSIONS: Final = 30
TUNNEL_INFO: Final = 31
IPV6_EXTHDRS: Final = 32

VARIABLE: Final = -1
LENGTHS: Final[dict[int, int]] = {
    0: 0,
    ENCAP: VARIABLE,
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
    TUNNEL: VARIABLE,
    TCP_FLAGS: 2,
    DP_HASH: 4,
    RECIRC_ID: 4,
    MPLS: VARIABLE,
    CT_STATE: 4,
    CT_ZONE: 2,
    CT_MARK: 4,
    CT_LABELS: 16,
    CT_ORIG_TUPLE_IPV4: 16,
    CT_ORIG_TUPLE_IPV6: 40,
    NSH: VARIABLE,
    IPV6_EXTHDRS: 2,
}
"""Length in bytes of each attribute; another length is EINVAL."""

TUN_ID: Final = 0
TUN_IPV4_SRC: Final = 1
TUN_IPV4_DST: Final = 2
TUN_TOS: Final = 3
TUN_TTL: Final = 4
TUN_ATTR_DONT_FRAGMENT: Final = 5
TUN_ATTR_CSUM: Final = 6
TUN_ATTR_OAM: Final = 7
TUN_TP_SRC: Final = 9
TUN_TP_DST: Final = 10
TUN_IPV6_SRC: Final = 12
TUN_IPV6_DST: Final = 13
TUN_PAD: Final = 14
_TUNNEL_LENGTHS: Final[dict[int, int]] = {
    TUN_ID: 8,
    TUN_IPV4_SRC: 4,
    TUN_IPV4_DST: 4,
    TUN_TOS: 1,
    TUN_TTL: 1,
    TUN_ATTR_DONT_FRAGMENT: 0,
    TUN_ATTR_CSUM: 0,
    TUN_ATTR_OAM: 0,
    TUN_TP_SRC: 2,
    TUN_TP_DST: 2,
    TUN_IPV6_SRC: 16,
    TUN_IPV6_DST: 16,
    TUN_PAD: 0,
}
"""OVS_TUNNEL_KEY_ATTR_* and their lengths in bytes; flags have none. Options of tunnels are not among them."""
_TUNNEL_FIELDS: Final = {
    TUN_ID: "tun_id",
    TUN_IPV4_SRC: "tun_src",
    TUN_IPV4_DST: "tun_dst",
    TUN_IPV6_SRC: "tun_src",
    TUN_IPV6_DST: "tun_dst",
    TUN_TOS: "tun_tos",
    TUN_TTL: "tun_ttl",
    TUN_TP_SRC: "tun_tp_src",
    TUN_TP_DST: "tun_tp_dst",
}
TUN_KEY: Final = 0x0004
"""Bit of ``tun_flags``: the tunnel has an id (TUNNEL_KEY, include/net/ip_tunnels.h)."""
_TUNNEL_FLAGS: Final = {
    TUN_ID: TUN_KEY,
    TUN_ATTR_DONT_FRAGMENT: TUN_DONT_FRAGMENT,
    TUN_ATTR_CSUM: TUN_CSUM,
    TUN_ATTR_OAM: TUN_OAM,
}
_ALL_TUNNEL_FLAGS: Final = TUN_KEY | TUN_DONT_FRAGMENT | TUN_CSUM | TUN_OAM
INET, INET6 = 2, 10
"""``tun_proto``: AF_INET, AF_INET6."""

NSH_BASE: Final = 1
NSH_MD1: Final = 2
NSH_MD2: Final = 3

MAX_PORTS: Final = 65535
"""DP_MAX_PORTS (net/openvswitch/datapath.h); as ``in_port``: none."""
ETH_P_802_2: Final = 0x0004
_802_3_MIN: Final = 0x600
VLAN_TYPES: Final = (0x8100, 0x88A8)
_IPV4, _IPV6, _ARP, _NSH = 0x0800, 0x86DD, (0x0806, 0x8035), 0x894F
MPLS_TYPES: Final = (0x8847, 0x8848)
_LABELS: Final = 3
_TCP, _UDP, _ICMP, _ICMPV6, _SCTP = 6, 17, 1, 58, 132
_NEIGHBOUR: Final = (135, 136)
FRAG_NONE, FRAG_FIRST, FRAG_LATER = 0, 1, 2
_LABEL_BITS: Final = 0xFFFFF

Fields = dict[str, int]
_Attrs = dict[int, bytes]


@dataclass(frozen=True, slots=True)
class FlowMatch:
    """The *key* of a flow, unmasked, and the *mask* that says which bits of it count."""

    key: Fields
    mask: Fields

    def masked(self) -> Fields:
        """The key's bits that count."""
        return {name: value & self.mask.get(name, 0) for name, value in self.key.items()}


_WIDTHS: Final = (
    *(
        (name, 8)
        for name in ("mac_proto", "tun_proto", "tun_tos", "tun_ttl", "ip_proto", "ip_tos", "ip_ttl", "ip_frag")
    ),
    *((name, 8) for name in ("nsh_flags", "nsh_ttl", "nsh_mdtype", "nsh_np", "mpls_labels")),
    *((name, 16) for name in ("in_port", "ct_zone", "eth_type", "vlan_tpid", "vlan_tci", "cvlan_tpid", "cvlan_tci")),
    *(
        (name, 16)
        for name in ("l4_src", "l4_dst", "tcp_flags", "tun_flags", "tun_tp_src", "tun_tp_dst", "ipv6_exthdrs")
    ),
    *((name, 32) for name in ("recirc_id", "dp_hash", "skb_priority", "skb_mark", "ct_state", "ct_mark", "ipv6_label")),
    *((name, 32) for name in ("mpls_lse1", "mpls_lse2", "mpls_lse3", "nsh_path")),
    *((name, 48) for name in ("eth_src", "eth_dst", "arp_sha", "arp_tha")),
    *((name, 128) for name in ("ip_src", "ip_dst", "tun_src", "tun_dst", "nd_target", "nsh_context", "ct_labels")),
    *(("tun_id", 64), ("ct_orig_ipv4", 128), ("ct_orig_ipv6", 320)),
)
"""Fields of a key and their bits."""


def _shifts() -> dict[str, int]:
    shifts, at = {}, 0
    for name, bits in _WIDTHS:
        shifts[name] = at
        at += bits
    return shifts


_SHIFTS: Final = _shifts()


def number(fields: Fields) -> int:
    """All fields of a key, or of a mask, as one number."""
    whole = 0
    for name, value in fields.items():
        whole |= value << _SHIFTS[name]
    return whole


def invalid() -> NetlinkError:
    """EINVAL; what is wrong, the kernel tells its own log alone."""
    return NetlinkError(errno.EINVAL)


def walk(payload: bytes, *, padded: bool = True) -> list[tuple[int, bytes]]:
    """The attributes of *payload* by number; EINVAL when they do not fill it. The last may lack its padding only where
    it need not be *padded*: most of the kernel's parsers refuse that (rem, which is negative then)."""
    found, end = [], 0
    for kind, value in attributes(payload):
        found.append((kind & NLA_TYPE_MASK, bytes(value)))
        end += 4 + len(value) + 3 & ~3
    if end < len(payload) or (padded and end > len(payload)):
        raise invalid()
    return found


def _parse(payload: bytes, into: _Attrs, last: _Attrs, *, is_mask: bool) -> None:
    """Add attributes to *into* and *last*; of a mask, those that are not all zeros (__parse_flow_nlattrs)."""
    for kind, value in walk(payload):
        length = LENGTHS.get(kind)
        if length is None or kind in into or length not in (VARIABLE, len(value)):
            raise invalid()
        if not is_mask or any(value):
            into[kind] = last[kind] = value


def packet_metadata(payload: bytes) -> Fields:
    """What the key that comes with a packet says of it that it does not show itself, and whether it has an Ethernet
    header. EINVAL (ovs_flow_key_extract_userspace)."""
    attrs: _Attrs = {}
    _parse(payload, attrs, {}, is_mask=False)
    metadata: Fields = {}
    metadata_of(attrs, metadata, is_mask=False)
    return metadata


def match_of(key: bytes, mask: bytes | None) -> FlowMatch:
    """A flow's key and mask (``None``: exact on all that the key names), checked. EINVAL (ovs_nla_get_match)."""
    attrs: _Attrs = {}
    last: _Attrs = {}
    _parse(key, attrs, last, is_mask=False)
    fields: Fields = {}
    masks: Fields = {}
    _vlans(attrs, last, fields, fields, is_mask=False)
    named = attrs.keys() | set()
    _fields_of(attrs, fields, fields, is_mask=False)
    if mask is None:
        mask = _exact(key)
        if fields.get("tun_proto"):
            masks |= dict.fromkeys(("tun_src", "tun_dst"), (1 << 128) - 1)
            masks |= {
                "tun_id": (1 << 64) - 1,
                "tun_tos": 0xFF,
                "tun_ttl": 0xFF,
                "tun_tp_src": 0xFFFF,
                "tun_tp_dst": 0xFFFF,
            }
    attrs = {}
    _parse(mask, attrs, last, is_mask=True)
    masks |= {"vlan_tci": 0xFFFF, "cvlan_tci": 0xFFFF}
    _vlans(attrs, last, masks, fields, is_mask=True)
    masking = attrs.keys() | set()
    _fields_of(attrs, masks, fields, is_mask=True)
    _validate(fields, masks, named, masking)
    return FlowMatch(fields, masks)


def _exact(payload: bytes, *, key: bool = True) -> bytes:
    """The mask of a key that is to match exactly: all bits of the attributes that it has (nlattr_set)."""
    out = bytearray()
    for kind, value in attributes(payload):
        number = kind & NLA_TYPE_MASK
        if key and number == ENCAP:
            value = _exact(value)
        elif key and number in (TUNNEL, NSH):
            value = _exact(value, key=False)
        elif number == CT_STATE:
            value = _CT_SUPPORTED.to_bytes(4, "little")
        else:
            value = b"\xff" * len(value)
        out += attribute(kind, value)
    return bytes(out)


def _vlans(attrs: _Attrs, last: _Attrs, into: Fields, key: Fields, *, is_mask: bool) -> None:
    """Take the tags out of *attrs*, whose payload's attributes then stand there (parse_vlan_from_nlattrs).

    Where a mask has no attribute of the tag, the kernel takes the *last* of that kind: of the tag before, or the key's.
    """
    for name in ("vlan", "cvlan"):
        if _has_tag(attrs, last, key, name, is_mask=is_mask):
            into[f"{name}_tpid"] = int.from_bytes(last[ETHERTYPE], "big")
            into[f"{name}_tci"] = int.from_bytes(last[VLAN], "big")
            for kind in (ETHERTYPE, VLAN):
                attrs.pop(kind, None)
            _parse(attrs.pop(ENCAP), attrs, last, is_mask=is_mask)
        if not key.get(f"{name}_tci", 0) & VLAN_PRESENT:
            return


def _has_tag(attrs: _Attrs, last: _Attrs, key: Fields, name: str, *, is_mask: bool) -> bool:
    found = last if is_mask else attrs
    tci, ethertype = (int.from_bytes(found.get(kind, b""), "big") for kind in (VLAN, ETHERTYPE))
    if is_mask:
        if ENCAP not in attrs:
            return False
        if not key.get(f"{name}_tci", 0) & VLAN_PRESENT or ethertype != 0xFFFF or not tci & VLAN_PRESENT:
            raise invalid()
        return True
    if ETHERNET not in attrs or ethertype not in VLAN_TYPES:
        return False
    if VLAN not in attrs or ENCAP not in attrs or (not tci & VLAN_PRESENT and (tci or attrs[ENCAP])):
        raise invalid()
    return True


def _fields_of(attrs: _Attrs, into: Fields, key: Fields, *, is_mask: bool) -> None:
    """The fields of *attrs*, which must all be known; a mask looks in the *key* (ovs_key_from_nlattrs)."""
    rest = metadata_of(attrs, into, is_mask=is_mask)
    if ETHERNET in rest:
        ethernet = rest.pop(ETHERNET)
        into["eth_src"], into["eth_dst"] = int.from_bytes(ethernet[:6], "big"), int.from_bytes(ethernet[6:], "big")
        if VLAN in rest:
            raise invalid()
        if ETHERTYPE in rest:
            _ethertype(rest, into, is_mask=is_mask)
        elif not is_mask:
            into["eth_type"] = ETH_P_802_2
    elif not key.get("eth_type"):
        raise invalid()
    for kind, read in _READERS.items():
        if kind in rest:
            read(rest.pop(kind), into, is_mask)
    if rest:
        raise invalid()


def _ethertype(attrs: _Attrs, into: Fields, *, is_mask: bool) -> None:
    ethertype = int.from_bytes(attrs.pop(ETHERTYPE), "big")
    if not is_mask and ethertype < _802_3_MIN:
        raise invalid()
    into["eth_type"] = 0xFFFF if is_mask else ethertype


_CT_SUPPORTED: Final = 0xFF
"""CT_SUPPORTED_MASK: the bits of ``ct_state`` that there are."""
_METADATA: Final = {DP_HASH: "dp_hash", RECIRC_ID: "recirc_id", PRIORITY: "skb_priority", SKB_MARK: "skb_mark"}
_METADATA_CT: Final = {CT_STATE: "ct_state", CT_ZONE: "ct_zone", CT_MARK: "ct_mark", CT_LABELS: "ct_labels"}
_TUPLES: Final = {CT_ORIG_TUPLE_IPV4: "ct_orig_ipv4", CT_ORIG_TUPLE_IPV6: "ct_orig_ipv6"}


def metadata_of(attrs: _Attrs, into: Fields, *, is_mask: bool) -> _Attrs:
    """Read what a packet does not show itself; the attributes that are left (metadata_from_nlattrs)."""
    rest = dict(attrs)
    for kind, name in (_METADATA | _METADATA_CT | _TUPLES).items():
        if kind in rest:
            into[name] = int.from_bytes(rest.pop(kind), "little")
    if into.get("ct_state", 0) & ~_CT_SUPPORTED:
        raise invalid()
    if IN_PORT in rest:
        number = int.from_bytes(rest.pop(IN_PORT), "little")
        if not is_mask and number >= MAX_PORTS:
            raise invalid()
        into["in_port"] = 0xFFFF if is_mask else number
    elif not is_mask:
        into["in_port"] = MAX_PORTS
    if TUNNEL in rest:
        read_tunnel(rest.pop(TUNNEL), into, is_mask=is_mask)
    ethernet = ETHERNET in rest or ETHERTYPE not in rest
    into["mac_proto"] = 0xFF if is_mask else int(ethernet)
    if not ethernet:
        _ethertype(rest, into, is_mask=is_mask)
    return rest


def read_tunnel(payload: bytes, into: Fields, *, is_mask: bool = False) -> None:
    """The tunnel's fields of a key's attribute. EINVAL, also for options of tunnels (ip_tun_from_nlattr)."""
    families, flags, kinds = set(), 0, set()
    for kind, value in walk(payload, padded=False):
        if _TUNNEL_LENGTHS.get(kind) != len(value):
            raise invalid()
        kinds.add(kind)
        flags |= _TUNNEL_FLAGS.get(kind, 0)
        if kind in _TUNNEL_FIELDS:
            into[_TUNNEL_FIELDS[kind]] = int.from_bytes(value, "big")
        if kind in (TUN_IPV4_SRC, TUN_IPV4_DST):
            families.add(INET)
        elif kind in (TUN_IPV6_SRC, TUN_IPV6_DST):
            families.add(INET6)
    into["tun_flags"] = flags
    into["tun_proto"] = 0xFF if is_mask else INET6 if INET6 in families else INET
    if len(families) > 1 or (not is_mask and (not families or not into.get("tun_dst") or TUN_TTL not in kinds)):
        raise invalid()


def _ip(tail: bytes, into: Fields, is_mask: bool) -> None:
    """proto, tos, ttl, frag: the same four octets in both IP keys."""
    if not is_mask and tail[3] > FRAG_LATER:
        raise invalid()
    into["ip_proto"], into["ip_tos"], into["ip_ttl"], into["ip_frag"] = tail


def _read_ipv4(value: bytes, into: Fields, is_mask: bool) -> None:
    into["ip_src"], into["ip_dst"] = struct.unpack_from("!II", value)
    _ip(value[8:12], into, is_mask)


def _read_ipv6(value: bytes, into: Fields, is_mask: bool) -> None:
    label = int.from_bytes(value[32:36], "big")
    if not is_mask and label > _LABEL_BITS:
        raise invalid()
    into["ip_src"], into["ip_dst"] = int.from_bytes(value[:16], "big"), int.from_bytes(value[16:32], "big")
    into["ipv6_label"] = label
    _ip(value[36:40], into, is_mask)


def _read_exthdrs(value: bytes, into: Fields, _is_mask: bool) -> None:
    into["ipv6_exthdrs"] = int.from_bytes(value, "little")


def _read_arp(value: bytes, into: Fields, is_mask: bool) -> None:
    operation = int.from_bytes(value[8:10], "big")
    if not is_mask and operation > 0xFF:
        raise invalid()
    into["ip_src"], into["ip_dst"] = struct.unpack_from("!II", value)
    into["ip_proto"] = operation & 0xFF
    into["arp_sha"], into["arp_tha"] = int.from_bytes(value[10:16], "big"), int.from_bytes(value[16:22], "big")


def _read_nsh(value: bytes, into: Fields, is_mask: bool) -> None:
    into |= nsh_fields(value, is_mask=is_mask)


def nsh_fields(payload: bytes, *, is_mask: bool) -> Fields:
    """The fields of a network service header's attributes. EINVAL (nsh_key_put_from_nlattr)."""
    fields: Fields = {}
    kinds = set()
    for kind, value in walk(payload, padded=False):
        if kind not in (NSH_BASE, NSH_MD1) or len(value) != (8 if kind == NSH_BASE else 16):
            raise invalid()
        kinds.add(kind)
        if kind == NSH_BASE:
            names = ("nsh_flags", "nsh_ttl", "nsh_mdtype", "nsh_np", "nsh_path")
            fields |= zip(names, struct.unpack("!BBBBI", value), strict=True)
        else:
            fields["nsh_context"] = int.from_bytes(value, "big")
    if not is_mask and NSH_MD1 in kinds and fields.get("nsh_mdtype", 0) != 1:
        raise invalid()
    return fields


def _read_mpls(value: bytes, into: Fields, _is_mask: bool) -> None:
    count = len(value) // 4
    if len(value) % 4 or not 0 < count <= _LABELS:
        raise invalid()
    for label in range(count):
        into[f"mpls_lse{label + 1}"] = int.from_bytes(value[4 * label : 4 * label + 4], "big")
    into["mpls_labels"] = (1 << count) - 1


def _read_ports(value: bytes, into: Fields, _is_mask: bool) -> None:
    into["l4_src"], into["l4_dst"] = struct.unpack("!HH", value)


def _read_icmp(value: bytes, into: Fields, _is_mask: bool) -> None:
    into["l4_src"], into["l4_dst"] = value


def _read_tcp_flags(value: bytes, into: Fields, _is_mask: bool) -> None:
    into["tcp_flags"] = int.from_bytes(value, "big")


def _read_nd(value: bytes, into: Fields, _is_mask: bool) -> None:
    into["nd_target"] = int.from_bytes(value[:16], "big")
    into["arp_sha"], into["arp_tha"] = int.from_bytes(value[16:22], "big"), int.from_bytes(value[22:28], "big")


_READERS: Final[dict[int, Callable[[bytes, Fields, bool], None]]] = {
    IPV4: _read_ipv4,
    IPV6: _read_ipv6,
    IPV6_EXTHDRS: _read_exthdrs,
    ARP: _read_arp,
    NSH: _read_nsh,
    MPLS: _read_mpls,
    TCP: _read_ports,
    TCP_FLAGS: _read_tcp_flags,
    UDP: _read_ports,
    SCTP: _read_ports,
    ICMP: _read_icmp,
    ICMPV6: _read_icmp,
    ND: _read_nd,
}

_CONDITIONAL: Final = {IPV4, IPV6, TCP, TCP_FLAGS, UDP, SCTP, ICMP, ICMPV6, ARP, ND, MPLS, NSH}
"""Attributes that a mask may have only where all that they depend on is matched exactly."""


def _validate(key: Fields, mask: Fields, named: set[int], masking: set[int]) -> None:
    """Whether a key has the attributes that its protocols take, and its mask no others (match_validate)."""
    expected, allowed = set(), (named - _CONDITIONAL) | {TUNNEL, IN_PORT, ETHERTYPE}
    exact_type = mask.get("eth_type") == 0xFFFF
    for kind, because in _protocols(key):
        expected.add(kind)
        if exact_type and (because is None or mask.get(because[0], 0) == because[1]):
            allowed.add(kind)
    if not expected <= named or not masking <= allowed:
        raise invalid()


def _protocols(key: Fields) -> list[tuple[int, tuple[str, int] | None]]:
    """The attributes that the protocols of *key* have, outer first, and which field of the mask has to be what for a
    mask on them."""
    ethertype, protocol = key.get("eth_type", 0), key.get("ip_proto", 0)
    found: list[tuple[int, tuple[str, int] | None]] = []
    if ethertype in _ARP:
        found.append((ARP, None))
    elif ethertype in MPLS_TYPES:
        found.append((MPLS, None))
    elif ethertype == _NSH:
        found.append((NSH, None))
    elif ethertype in (_IPV4, _IPV6):
        found.append((IPV4 if ethertype == _IPV4 else IPV6, None))
        if key.get("ip_frag") == FRAG_LATER:
            return found
        by_protocol = ("ip_proto", 0xFF)
        found += [(kind, by_protocol) for kind in _TRANSPORT.get(protocol, ())]
        if ethertype == _IPV4 and protocol == _ICMP:
            found.append((ICMP, by_protocol))
        if ethertype == _IPV6 and protocol == _ICMPV6:
            found.append((ICMPV6, by_protocol))
            if key.get("l4_src", 0) in _NEIGHBOUR:
                found.append((ND, ("l4_src", 0xFF)))
    return found


_TRANSPORT: Final = {_TCP: (TCP, TCP_FLAGS), _UDP: (UDP,), _SCTP: (SCTP,)}


# ---- back to attributes


def emit(key: Fields, values: Fields, *, is_mask: bool = False) -> bytes:
    """*values*, a masked key or its mask, as the kernel gives them back: which attributes there are, the masked *key*
    says (__ovs_nla_put_key)."""

    def u32(kind: int, name: str) -> bytes:
        return attribute(kind, values.get(name, 0).to_bytes(4, "little"))

    out = u32(RECIRC_ID, "recirc_id") + u32(DP_HASH, "dp_hash") + u32(PRIORITY, "skb_priority")
    if key.get("tun_proto") or is_mask:
        out += attribute(TUNNEL, emit_tunnel(values, key.get("tun_proto", 0)))
    in_port = values.get("in_port", 0)
    if key.get("in_port") != MAX_PORTS:
        out += attribute(IN_PORT, (in_port | (0xFFFF_0000 if is_mask else 0)).to_bytes(4, "little"))
    elif is_mask and in_port == 0xFFFF:
        out += attribute(IN_PORT, b"\xff" * 4)
    out += (
        u32(SKB_MARK, "skb_mark")
        + u32(CT_STATE, "ct_state")
        + attribute(CT_ZONE, values.get("ct_zone", 0).to_bytes(2, "little"))
        + u32(CT_MARK, "ct_mark")
        + attribute(CT_LABELS, values.get("ct_labels", 0).to_bytes(16, "little"))
    )
    if not key.get("mac_proto", 1):
        return out + _emit_type(key, values)
    return out + _octets(ETHERNET, values, ("eth_src", 6), ("eth_dst", 6)) + _emit_tags(key, values, is_mask=is_mask)


def _emit_tags(key: Fields, values: Fields, *, is_mask: bool) -> bytes:
    ethertype = key.get("eth_type", 0)
    tags: list[bytes] = []
    cut = False
    for name in ("vlan", "cvlan"):
        tagged = bool(key.get(f"{name}_tci"))
        if not tagged and ethertype not in VLAN_TYPES:
            break
        tpid = 0xFFFF if is_mask else values.get(f"{name}_tpid", 0)
        tags.append(attribute(ETHERTYPE, tpid.to_bytes(2, "big")) + _octets(VLAN, values, (f"{name}_tci", 2)))
        cut = not tagged
        if cut:
            break
    if cut:
        inside = b""
    elif ethertype == ETH_P_802_2:
        mask = values.get("eth_type", 0)
        inside = attribute(ETHERTYPE, mask.to_bytes(2, "big")) if is_mask and mask else b""
    else:
        inside = _emit_type(key, values)
    for tag in reversed(tags):
        inside = tag + attribute(ENCAP, inside)
    return inside


def _emit_type(key: Fields, values: Fields) -> bytes:
    out = _octets(ETHERTYPE, values, ("eth_type", 2))
    ethertype, later = key.get("eth_type", 0), key.get("ip_frag") == FRAG_LATER
    if ethertype == _IPV4:
        out += _octets(IPV4, values, ("ip_src", 4), ("ip_dst", 4), *_IP_TAIL)
        return out if later else out + _emit_transport(key, values)
    if ethertype == _IPV6:
        out += _octets(IPV6, values, ("ip_src", 16), ("ip_dst", 16), ("ipv6_label", 4), *_IP_TAIL)
        out += attribute(IPV6_EXTHDRS, values.get("ipv6_exthdrs", 0).to_bytes(2, "little"))
        return out if later else out + _emit_transport(key, values)
    if ethertype == _NSH:
        base = _octets(NSH_BASE, values, *((f"nsh_{n}", 1) for n in ("flags", "ttl", "mdtype", "np")), ("nsh_path", 4))
        if values is not key or key.get("nsh_mdtype") == 1:
            base += _octets(NSH_MD1, values, ("nsh_context", 16))
        return out + attribute(NSH, base)
    if ethertype in _ARP:
        ends = ("ip_src", 4), ("ip_dst", 4), ("ip_proto", 2), ("arp_sha", 6), ("arp_tha", 6), ("", 2)
        return out + _octets(ARP, values, *ends)
    if ethertype in MPLS_TYPES:
        count = values.get("mpls_labels", 0).bit_count()
        return out + _octets(MPLS, values, *((f"mpls_lse{label + 1}", 4) for label in range(count)))
    return out


_IP_TAIL: Final = (("ip_proto", 1), ("ip_tos", 1), ("ip_ttl", 1), ("ip_frag", 1))


def _emit_transport(key: Fields, values: Fields) -> bytes:
    protocol, ports = key.get("ip_proto", 0), (("l4_src", 2), ("l4_dst", 2))
    if protocol == _TCP:
        return _octets(TCP, values, *ports) + _octets(TCP_FLAGS, values, ("tcp_flags", 2))
    if protocol == _UDP:
        return _octets(UDP, values, *ports)
    if protocol == _SCTP:
        return _octets(SCTP, values, *ports)
    kinds = ("l4_src", 1), ("l4_dst", 1)
    if protocol == _ICMP and key["eth_type"] == _IPV4:
        return _octets(ICMP, values, *kinds)
    if protocol == _ICMPV6 and key["eth_type"] == _IPV6:
        out = _octets(ICMPV6, values, *kinds)
        if key.get("l4_src", 0) in _NEIGHBOUR:
            out += _octets(ND, values, ("nd_target", 16), ("arp_sha", 6), ("arp_tha", 6))
        return out
    return b""


def _octets(kind: int, values: Fields, *parts: tuple[str, int]) -> bytes:
    return attribute(kind, b"".join(values.get(name, 0).to_bytes(size, "big") for name, size in parts))


def emit_tunnel(values: Fields, family: int) -> bytes:
    """The attributes of a tunnel key (__ip_tun_to_nlattr)."""
    flags = values.get("tun_flags", 0)
    out = _octets(TUN_ID, values, ("tun_id", 8)) if flags & TUN_KEY else b""
    version4 = family == INET
    for name, kind in (
        ("tun_src", TUN_IPV4_SRC if version4 else TUN_IPV6_SRC),
        ("tun_dst", TUN_IPV4_DST if version4 else TUN_IPV6_DST),
    ):
        size = 4 if version4 else 16
        value = values.get(name, 0) & (1 << 8 * size) - 1
        if family and value:
            out += attribute(kind, value.to_bytes(size, "big"))
    if values.get("tun_tos"):
        out += _octets(TUN_TOS, values, ("tun_tos", 1))
    out += _octets(TUN_TTL, values, ("tun_ttl", 1))
    for kind in (TUN_ATTR_DONT_FRAGMENT, TUN_ATTR_CSUM):
        if flags & _TUNNEL_FLAGS[kind]:
            out += attribute(kind, b"")
    for kind, name in ((TUN_TP_SRC, "tun_tp_src"), (TUN_TP_DST, "tun_tp_dst")):
        if values.get(name):
            out += _octets(kind, values, (name, 2))
    return out + (attribute(TUN_ATTR_OAM, b"") if flags & TUN_OAM else b"")


# ---- to the pipeline


def table_of(key: Fields) -> int:
    """The table that a flow with this masked key is in."""
    return OVS_TABLE | key.get("recirc_id", 0) | (0 if key.get("mac_proto", 1) else BARE)


_SAME: Final = (
    *("eth_dst", "eth_src", "eth_type", "vlan_tpid", "vlan_tci", "cvlan_tci", "ip_proto", "ip_tos", "ip_ttl"),
    *("ip_src", "ip_dst", "ipv6_label", "l4_src", "l4_dst", "tcp_flags", "arp_sha", "arp_tha", "nd_target"),
    *("mpls_lse1", "mpls_lse2", "mpls_lse3", "mpls_labels", "nsh_flags", "nsh_ttl", "nsh_mdtype", "nsh_np"),
    *("nsh_path", "nsh_context", "dp_hash", "skb_mark", "skb_priority", "tun_tos", "tun_ttl", "tun_tp_dst"),
)
"""Fields that rules match on as they are."""
_BITS: Final = {"ipv6_label": _LABEL_BITS, "tcp_flags": 0xFFF}
_NOT_SERVED: Final = (*_METADATA_CT.values(), *_TUPLES.values(), "ipv6_exthdrs", "tun_tp_src")
"""What this datapath cannot match on, since it is always 0: connection tracking, for example."""


def to_match(flow: FlowMatch) -> Match | None:
    """The match of a flow; ``None`` when no packet can be like that. EINVAL where this datapath cannot tell."""
    key, mask = flow.masked(), flow.mask
    out: dict[str, Masked] = {}
    if any(key.get(name) for name in _NOT_SERVED):
        raise invalid()
    for name in _SAME:
        bits = mask.get(name, 0) & _BITS.get(name, -1)
        if bits and (not name.startswith("tun_") or key.get("tun_proto")):
            value = key.get(name, 0)
            if value & ~bits:
                return None
            out[name] = Masked(value, bits)
    if bits := mask.get("cvlan_tpid", 0) >> 8:
        out["cvlan_tpid"] = Masked(key.get("cvlan_tpid", 0) >> 8, bits)
    if not key.get("vlan_tci"):  # of a tag that is not there, all is 0
        out.pop("vlan_tpid", None)
    if not key.get("cvlan_tci"):
        out.pop("cvlan_tpid", None)
    if key.get("tun_proto"):
        impossible = _tunnel_match(key, mask, out)
        if impossible:
            return None
    _fragment_match(key, mask, out)
    return Match(**out)


def _tunnel_match(key: Fields, mask: Fields, out: dict[str, Masked]) -> bool:
    """Match the tunnel; whether no packet can be like that: ids have 24 bits on the wire."""
    if key.get("tun_id", 0) >> 32:
        return True
    if bits := mask.get("tun_id", 0) & 0xFFFF_FFFF:
        out["tun_id"] = Masked(key.get("tun_id", 0), bits)
    for name in ("tun_src", "tun_dst"):
        bits = mask.get(name, 0)
        if bits:
            out[name] = Masked(key.get(name, 0), bits)
    if bits := mask.get("tun_flags", 0) & (TUN_CSUM | TUN_DONT_FRAGMENT | TUN_OAM):
        out["tun_flags"] = Masked(key.get("tun_flags", 0) & bits, bits)
    return False


def _fragment_match(key: Fields, mask: Fields, out: dict[str, Masked]) -> None:
    """The kernel's numbers of fragments (OVS_FRAG_TYPE_*) as the bits that rules have."""
    bits, value = mask.get("ip_frag", 0) & 3, key.get("ip_frag", 0)
    if bits == 3 or (bits == FRAG_LATER and value):
        out["ip_frag"] = Masked(int(FRAGMENTS[value]), 3)
    elif bits == FRAG_FIRST:
        out["ip_frag"] = Masked(Frag.FIRST if value else 0, Frag.FIRST)
    elif bits:
        raise invalid()


FRAGMENTS: Final = {FRAG_NONE: Frag.NONE, FRAG_FIRST: Frag.IS_FRAGMENT | Frag.FIRST, FRAG_LATER: Frag.IS_FRAGMENT}
"""OVS_FRAG_TYPE_* in the rule vocabulary."""
