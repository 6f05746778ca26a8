# SPDX-License-Identifier: Apache-2.0
"""Flow keys and masks from attributes, checked as the kernel checks them."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from itertools import accumulate
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP
from typing import Final

from asap2.netlink.wire import NLA_TYPE_MASK, attribute, attributes
from asap2.nic.ethertypes import (
    ARP_TYPES,
    ETH_P_802_2,
    ETH_P_802_3_MIN,
    ETH_P_IP,
    ETH_P_IPV6,
    ETH_P_MPLS,
    ETH_P_NSH,
    VLAN_TYPES,
)
from asap2.nic.faces.ovs.key.layout import BITS, LAYOUTS, Attributes, Fields, Reader, invalid, walk
from asap2.nic.faces.ovs.key.numbers import (
    ARP,
    CT_LABELS,
    CT_MARK,
    CT_ORIG_TUPLE_IPV4,
    CT_ORIG_TUPLE_IPV6,
    CT_STATE,
    CT_ZONE,
    DP_HASH,
    ENCAP,
    ETHERNET,
    ETHERTYPE,
    FRAG_LATER,
    ICMP,
    ICMPV6,
    IN_PORT,
    IPV4,
    IPV6,
    IPV6_EXTHDRS,
    LABEL_BITS,
    LENGTHS,
    MAX_PORTS,
    MPLS,
    ND,
    NEIGHBOUR,
    NSH,
    PRIORITY,
    RECIRC_ID,
    SCTP,
    SKB_MARK,
    TCP,
    TCP_FLAGS,
    TUNNEL,
    UDP,
    VARIABLE,
    VLAN,
)
from asap2.nic.faces.ovs.key.tunnel import read_nsh, read_tunnel
from asap2.nic.fields import carried_by
from asap2.nic.rules import TUN_OPTIONS, VLAN_PRESENT


@dataclass(frozen=True, slots=True)
class FlowMatch:
    """The *key* of a flow, unmasked, and the *mask* that says which bits of it count."""

    key: Fields
    mask: Fields

    def masked(self) -> Fields:
        """The key's bits that count."""
        return {name: value & self.mask.get(name, 0) for name, value in self.key.items()}


_SHIFTS: Final = dict(zip(BITS, accumulate(BITS.values(), initial=0), strict=False))


def number(fields: Fields) -> int:
    """All fields of a key, or of a mask, as one number."""
    whole = 0
    for name, value in fields.items():
        whole |= value << _SHIFTS[name]
    return whole


def _parse(payload: bytes, into: Attributes, last: Attributes, *, is_mask: bool) -> None:
    """Add attributes to *into* and *last*; of a mask, those that are not all zeros (__parse_flow_nlattrs)."""
    for kind, value in walk(payload):
        length = LENGTHS.get(kind)
        if length is None or kind in into or length not in (VARIABLE, len(value)):
            raise invalid()
        if not is_mask or any(value):
            into[kind] = last[kind] = value


def packet_attributes(payload: bytes) -> Attributes:
    """The attributes of the key that comes with a packet. EINVAL."""
    attrs: Attributes = {}
    _parse(payload, attrs, {}, is_mask=False)
    return attrs


def packet_metadata(attrs: Attributes) -> Fields:
    """What the key that comes with a packet says of it that it does not show itself, and whether it has an Ethernet
    header. EINVAL (ovs_flow_key_extract_userspace)."""
    metadata: Fields = {}
    _metadata_of(attrs, metadata, is_mask=False)
    return metadata


def check_original_tuple(attrs: Attributes, fields: Fields) -> None:
    """Whether the key that comes with a packet of *fields* has no connection's original tuple but one that such a
    packet can have: neighbour discovery has none. EINVAL."""
    ethertype, protocol = fields.get("eth_type", 0), fields.get("ip_proto", 0)
    neighbour = ethertype == ETH_P_IPV6 and protocol == IPPROTO_ICMPV6 and fields.get("l4_src") in NEIGHBOUR
    if not attrs.keys() & set(_ORIGINAL.values()) <= {None if neighbour else _ORIGINAL.get(ethertype)}:
        raise invalid()


def match_of(key: bytes, mask: bytes | None) -> FlowMatch:
    """A flow's key and mask (``None``: exact on all that the key names), checked. EINVAL (ovs_nla_get_match)."""
    attrs: Attributes = {}
    last: Attributes = {}
    _parse(key, attrs, last, is_mask=False)
    fields: Fields = {}
    masks: Fields = {}
    _vlans(attrs, last, fields, fields, is_mask=False)
    named = attrs.keys() | set()
    _fields_of(attrs, fields, fields, is_mask=False)
    if mask is None:
        mask = _exact(key)
        if fields.get("tun_proto"):
            masks |= _EXACT_TUNNEL
    attrs = {}
    _parse(mask, attrs, last, is_mask=True)
    masks |= {"vlan_tci": 0xFFFF, "cvlan_tci": 0xFFFF}
    _vlans(attrs, last, masks, fields, is_mask=True)
    masking = attrs.keys() | set()
    _fields_of(attrs, masks, fields, is_mask=True)
    _mask_options(fields, masks)
    _validate(fields, masks, named, masking)
    return FlowMatch(fields, masks)


def _mask_options(key: Fields, mask: Fields) -> None:
    """A mask has as many options of Geneve as the key; then that number counts, too. EINVAL
    (genev_tun_opt_from_nlattr)."""
    if "tun_opts_len" in mask:
        if mask["tun_flags"] & TUN_OPTIONS and mask["tun_opts_len"] != key.get("tun_opts_len", 0):
            raise invalid()
        mask["tun_opts_len"] = 0xFF


_EXACT_TUNNEL: Final = {
    name: (1 << BITS[name]) - 1
    for name in ("tun_src", "tun_dst", "tun_id", "tun_tos", "tun_ttl", "tun_tp_src", "tun_tp_dst")
}
"""The mask of a tunnel that is to match exactly, also in what the key does not name."""


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
            value = _CT_SUPPORTED.to_bytes(4, sys.byteorder)
        else:
            value = b"\xff" * len(value)
        out += attribute(kind, value)
    return bytes(out)


def _vlans(attrs: Attributes, last: Attributes, into: Fields, key: Fields, *, is_mask: bool) -> None:
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


def _has_tag(attrs: Attributes, last: Attributes, key: Fields, name: str, *, is_mask: bool) -> bool:
    found = last if is_mask else attrs
    if (ENCAP if is_mask else ETHERNET) not in attrs:
        return False
    tci, ethertype = int.from_bytes(found.get(VLAN, b"")), int.from_bytes(found.get(ETHERTYPE, b""))
    if is_mask:
        if not key.get(f"{name}_tci", 0) & VLAN_PRESENT or ethertype != 0xFFFF or not tci & VLAN_PRESENT:
            raise invalid()
        return True
    if ethertype not in VLAN_TYPES:
        return False
    if VLAN not in attrs or ENCAP not in attrs or (not tci & VLAN_PRESENT and (tci or attrs[ENCAP])):
        raise invalid()
    return True


def _fields_of(attrs: Attributes, into: Fields, key: Fields, *, is_mask: bool) -> None:
    """The fields of *attrs*, which must all be known; a mask looks in the *key* (ovs_key_from_nlattrs)."""
    rest = _metadata_of(attrs, into, is_mask=is_mask)
    if ETHERNET in rest:
        _ETHERNET(rest.pop(ETHERNET), into, is_mask)
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


def _ethertype(attrs: Attributes, into: Fields, *, is_mask: bool) -> None:
    ethertype = int.from_bytes(attrs.pop(ETHERTYPE), "big")
    if not is_mask and ethertype < ETH_P_802_3_MIN:
        raise invalid()
    into["eth_type"] = 0xFFFF if is_mask else ethertype


_CT_SUPPORTED: Final = 0xFF
"""CT_SUPPORTED_MASK: the bits of ``ct_state`` that there are."""
_METADATA: Final = {
    kind: LAYOUTS[kind].read
    for kind in (
        *(DP_HASH, RECIRC_ID, PRIORITY, SKB_MARK, CT_STATE, CT_ZONE, CT_MARK, CT_LABELS),
        *(CT_ORIG_TUPLE_IPV4, CT_ORIG_TUPLE_IPV6),
    )
}


def _metadata_of(attrs: Attributes, into: Fields, *, is_mask: bool) -> Attributes:
    """Read what a packet does not show itself; the attributes that are left (metadata_from_nlattrs)."""
    rest: Attributes = {}
    for kind, value in attrs.items():
        if kind in _METADATA:
            _METADATA[kind](value, into, is_mask)
        else:
            rest[kind] = value
    if into.get("ct_state", 0) & ~_CT_SUPPORTED:
        raise invalid()
    if IN_PORT in rest:
        number = int.from_bytes(rest.pop(IN_PORT), sys.byteorder)
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


_ETHERNET, _IPV4, _IPV6, _ARP = (LAYOUTS[kind].read for kind in (ETHERNET, IPV4, IPV6, ARP))


def _read_ipv4(value: bytes, into: Fields, is_mask: bool) -> None:
    _IPV4(value, into, is_mask)
    if not is_mask and into["ip_frag"] > FRAG_LATER:
        raise invalid()


def _read_ipv6(value: bytes, into: Fields, is_mask: bool) -> None:
    _IPV6(value, into, is_mask)
    if not is_mask and (into["ipv6_label"] > LABEL_BITS or into["ip_frag"] > FRAG_LATER):
        raise invalid()


def _read_arp(value: bytes, into: Fields, is_mask: bool) -> None:
    """The operation has 16 bits in the attribute, and 8 in a key."""
    _ARP(value, into, is_mask)
    if not is_mask and into["ip_proto"] > 0xFF:
        raise invalid()
    into["ip_proto"] &= 0xFF


def _read_mpls(value: bytes, into: Fields, _is_mask: bool) -> None:
    """As many entries as the attribute has room for."""
    count = len(value) // 4
    if len(value) % 4 or not 0 < count <= len(_LABELS):
        raise invalid()
    into.update(zip(_LABELS, struct.unpack(f"!{count}I", value), strict=False))
    into["mpls_labels"] = (1 << count) - 1


_LABELS: Final = tuple(carried_by("mpls"))
_READERS: Final[dict[int, Reader]] = {
    IPV4: _read_ipv4,
    IPV6: _read_ipv6,
    IPV6_EXTHDRS: LAYOUTS[IPV6_EXTHDRS].read,
    ARP: _read_arp,
    NSH: read_nsh,
    MPLS: _read_mpls,
    **{kind: LAYOUTS[kind].read for kind in (TCP, TCP_FLAGS, UDP, SCTP, ICMP, ICMPV6, ND)},
}
"""In the kernel's order: of two network headers, the later one's fields stay."""

_ORIGINAL: Final = {ETH_P_IP: CT_ORIG_TUPLE_IPV4, ETH_P_IPV6: CT_ORIG_TUPLE_IPV6}
_CONDITIONAL: Final = {IPV4, IPV6, TCP, TCP_FLAGS, UDP, SCTP, ICMP, ICMPV6, ARP, ND, MPLS, NSH, *_ORIGINAL.values()}
"""Attributes that a mask may have only where all that they depend on is matched exactly."""


def _validate(key: Fields, mask: Fields, named: set[int], masking: set[int]) -> None:
    """Whether a key has the attributes that its protocols take, and its mask no others (match_validate)."""
    expected, allowed = set(), (named - _CONDITIONAL) | {TUNNEL, IN_PORT, ETHERTYPE}
    exact_type = mask.get("eth_type") == 0xFFFF
    for kind, because in _protocols(key):
        expected.add(kind)
        if exact_type and (because is None or mask.get(because[0], 0) == because[1]):
            allowed.add(kind)
    # Neighbour discovery has its fields where other packets have the original tuple.
    if exact_type and ND not in expected and (original := _ORIGINAL.get(key.get("eth_type", 0))):
        allowed.add(original)
    if not expected <= named or not masking <= allowed:
        raise invalid()


def _protocols(key: Fields) -> list[tuple[int, tuple[str, int] | None]]:
    """The attributes that the protocols of *key* have, outer first, and which field of the mask has to be what for a
    mask on them."""
    ethertype, protocol = key.get("eth_type", 0), key.get("ip_proto", 0)
    found: list[tuple[int, tuple[str, int] | None]] = []
    if ethertype in ARP_TYPES:
        found.append((ARP, None))
    elif ethertype in ETH_P_MPLS:
        found.append((MPLS, None))
    elif ethertype == ETH_P_NSH:
        found.append((NSH, None))
    elif ethertype in (ETH_P_IP, ETH_P_IPV6):
        found.append((IPV4 if ethertype == ETH_P_IP else IPV6, None))
        if key.get("ip_frag") == FRAG_LATER:
            return found
        by_protocol = ("ip_proto", 0xFF)
        found += [(kind, by_protocol) for kind in _TRANSPORT.get(protocol, ())]
        if ethertype == ETH_P_IP and protocol == IPPROTO_ICMP:
            found.append((ICMP, by_protocol))
        if ethertype == ETH_P_IPV6 and protocol == IPPROTO_ICMPV6:
            found.append((ICMPV6, by_protocol))
            if key.get("l4_src", 0) in NEIGHBOUR:
                found.append((ND, ("l4_src", 0xFF)))
    return found


_TRANSPORT: Final = {IPPROTO_TCP: (TCP, TCP_FLAGS), IPPROTO_UDP: (UDP,), IPPROTO_SCTP: (SCTP,)}
