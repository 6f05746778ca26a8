# SPDX-License-Identifier: Apache-2.0
"""Flow keys and masks as the kernel gives them back: which attributes there are, the masked key says."""

from __future__ import annotations

import sys
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP
from typing import Final

from asap2.netlink.wire import attribute
from asap2.nic.ethertypes import ARP_TYPES, ETH_P_802_2, ETH_P_IP, ETH_P_IPV6, ETH_P_MPLS, ETH_P_NSH, VLAN_TYPES
from asap2.nic.faces.ovs.key.layout import LAYOUTS, Fields
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
    MAX_PORTS,
    MPLS,
    ND,
    NEIGHBOUR,
    PRIORITY,
    RECIRC_ID,
    SCTP,
    SKB_MARK,
    TCP,
    TCP_FLAGS,
    TUNNEL,
    UDP,
    VLAN,
)
from asap2.nic.faces.ovs.key.tunnel import emit_nsh, emit_tunnel
from asap2.nic.fields import carried_by

_FIRST: Final = tuple(LAYOUTS[kind].emit for kind in (RECIRC_ID, DP_HASH, PRIORITY))
_TRACKED: Final = tuple(LAYOUTS[kind].emit for kind in (SKB_MARK, CT_STATE, CT_ZONE, CT_MARK, CT_LABELS))
_ORIGINAL: Final = {ETH_P_IP: LAYOUTS[CT_ORIG_TUPLE_IPV4].emit, ETH_P_IPV6: LAYOUTS[CT_ORIG_TUPLE_IPV6].emit}
_ETHERNET, _ETHERTYPE = LAYOUTS[ETHERNET].emit, LAYOUTS[ETHERTYPE].emit
_IPV4, _IPV6, _ARP = LAYOUTS[IPV4].emit, LAYOUTS[IPV6].emit, LAYOUTS[ARP].emit
_TCP, _TCP_FLAGS, _UDP, _SCTP = (LAYOUTS[kind].emit for kind in (TCP, TCP_FLAGS, UDP, SCTP))
_ICMP, _ICMPV6, _ND = (LAYOUTS[kind].emit for kind in (ICMP, ICMPV6, ND))
_EXTHDRS: Final = LAYOUTS[IPV6_EXTHDRS].emit
_LABELS: Final = tuple(carried_by("mpls"))


def emit(key: Fields, values: Fields, *, is_mask: bool = False) -> bytes:
    """*values*, a masked key or its mask, as the kernel gives them back: which attributes there are, the masked *key*
    says (__ovs_nla_put_key)."""
    out = b"".join([put(values) for put in _FIRST])
    if key.get("tun_proto") or is_mask:
        out += attribute(TUNNEL, emit_tunnel(values, key.get("tun_proto", 0), key.get("tun_opts_len", 0)))
    in_port = values.get("in_port", 0)
    if key.get("in_port") != MAX_PORTS:
        out += attribute(IN_PORT, (in_port | (0xFFFF_0000 if is_mask else 0)).to_bytes(4, sys.byteorder))
    elif is_mask and in_port == 0xFFFF:
        out += attribute(IN_PORT, b"\xff" * 4)
    out += b"".join([put(values) for put in _TRACKED])
    if key.get("ct_proto") and (original := _ORIGINAL.get(key.get("eth_type", 0))):
        out += original(values)
    if not key.get("mac_proto", 1):
        return out + _emit_type(key, values)
    return out + _ETHERNET(values) + _emit_tags(key, values, is_mask=is_mask)


def _emit_tags(key: Fields, values: Fields, *, is_mask: bool) -> bytes:
    ethertype = key.get("eth_type", 0)
    tags: list[bytes] = []
    cut = False
    for name in ("vlan", "cvlan"):
        tagged = bool(key.get(f"{name}_tci"))
        if not tagged and ethertype not in VLAN_TYPES:
            break
        tpid = 0xFFFF if is_mask else values.get(f"{name}_tpid", 0)
        tci = values.get(f"{name}_tci", 0)
        tags.append(attribute(ETHERTYPE, tpid.to_bytes(2, "big")) + attribute(VLAN, tci.to_bytes(2, "big")))
        cut = not tagged
        if cut:
            break
    if cut:
        inside = b""
    elif ethertype == ETH_P_802_2:
        inside = _ETHERTYPE(values) if is_mask and values.get("eth_type") else b""
    else:
        inside = _emit_type(key, values)
    for tag in reversed(tags):
        inside = tag + attribute(ENCAP, inside)
    return inside


def _emit_type(key: Fields, values: Fields) -> bytes:
    out = _ETHERTYPE(values)
    ethertype, later = key.get("eth_type", 0), key.get("ip_frag") == FRAG_LATER
    if ethertype == ETH_P_IP:
        out += _IPV4(values)
        return out if later else out + _emit_transport(key, values)
    if ethertype == ETH_P_IPV6:
        out += _IPV6(values) + _EXTHDRS(values)
        return out if later else out + _emit_transport(key, values)
    if ethertype == ETH_P_NSH:
        return out + emit_nsh(key, values)
    if ethertype in ARP_TYPES:
        return out + _ARP(values)
    if ethertype in ETH_P_MPLS:
        # As many entries as the packets have, of those that there is room for.
        count = values.get("mpls_labels", 0).bit_count()
        return out + attribute(MPLS, b"".join(values.get(name, 0).to_bytes(4, "big") for name in _LABELS[:count]))
    return out


def _emit_transport(key: Fields, values: Fields) -> bytes:
    protocol = key.get("ip_proto", 0)
    if protocol == IPPROTO_TCP:
        return _TCP(values) + _TCP_FLAGS(values)
    if protocol == IPPROTO_UDP:
        return _UDP(values)
    if protocol == IPPROTO_SCTP:
        return _SCTP(values)
    if protocol == IPPROTO_ICMP and key["eth_type"] == ETH_P_IP:
        return _ICMP(values)
    if protocol == IPPROTO_ICMPV6 and key["eth_type"] == ETH_P_IPV6:
        out = _ICMPV6(values)
        return out + _ND(values) if key.get("l4_src", 0) in NEIGHBOUR else out
    return b""
