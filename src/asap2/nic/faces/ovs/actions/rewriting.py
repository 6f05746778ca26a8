# SPDX-License-Identifier: Apache-2.0
"""Actions that set fields of a packet: which fields, and of which packets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from socket import IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP
from typing import Final

from asap2.netlink.tables.ovs import KEY
from asap2.nic.ethertypes import ETH_P_IP, ETH_P_IPV6, ETH_P_MPLS
from asap2.nic.faces.ovs.actions.headers import Packets
from asap2.nic.faces.ovs.key import INET, Fields, check_options, invalid, options_of, read_tunnel, walk
from asap2.nic.faces.ovs.key.numbers import ETHERNET, IPV4, IPV6, LABEL_BITS, LENGTHS, MPLS, SCTP, TCP, TUNNEL, UDP
from asap2.nic.fields import REWRITABLE, carried_by, rewritable_in
from asap2.nic.rules import TUN_CSUM, TUN_DONT_FRAGMENT, TUN_KEY, Masked, SetField, SetTunnel

_REWRITES: Final = {
    kind: tuple((name, *place) for name, place in rewritable_in(KEY.fields[kind][0]).items())
    for kind in (ETHERNET, IPV4, IPV6, TCP, UDP, SCTP, MPLS)
}
"""Key attributes that a set action may have, and the fields that it may rewrite: name, offset, octets."""
_META: Final = {
    KEY.numbers[attribute]: name
    for name, field in REWRITABLE.items()
    if field.meta is not None
    for attribute, _offset, _octets in field.ovs
}
"""As :data:`_REWRITES`, of the packet's fields in the kernel, which are in host order."""
_PROTOCOLS: Final = {TCP: IPPROTO_TCP, UDP: IPPROTO_UDP, SCTP: IPPROTO_SCTP}
_FIXED: Final = {
    kind: tuple(carried_by(KEY.fields[kind][0])[name][0] for name in ("ip_proto", "ip_frag")) for kind in (IPV4, IPV6)
}
"""Offsets of what may not be set: the protocol, and what fragment a packet is."""
_LABEL_AT: Final = carried_by("ipv6")["ipv6_label"][0]


def read_set(value: bytes, packets: Packets, *, masked: bool) -> Iterator[SetField | SetTunnel]:
    """A set action: one key attribute, followed by its mask when *masked* (validate_set)."""
    inner = walk(value)
    if len(inner) != 1:
        raise invalid()
    kind, data = inner[0]
    if kind == TUNNEL and not masked:
        yield _set_tunnel(data)
        return
    length = 4 if kind == MPLS else LENGTHS.get(kind, 0)
    if (kind not in _REWRITES and kind not in _META) or len(data) != length * (2 if masked else 1):
        raise invalid()
    values, mask = data[:length], data[length:] if masked else b"\xff" * length
    if any(octet & ~bits for octet, bits in zip(values, mask, strict=True)):
        raise invalid()
    _check_set(kind, values, mask if masked else None, packets)
    if kind in _META:
        number, bits = int.from_bytes(values, sys.byteorder), int.from_bytes(mask, sys.byteorder)
        if bits:
            yield SetField(_META[kind], Masked(number, bits))
        return
    for name, offset, octets in _REWRITES[kind]:
        bits = int.from_bytes(mask[offset : offset + octets], "big") & (LABEL_BITS if name == "ipv6_label" else -1)
        if bits:
            yield SetField(name, Masked(int.from_bytes(values[offset : offset + octets], "big") & bits, bits))


def _check_set(kind: int, values: bytes, mask: bytes | None, packets: Packets) -> None:
    """Whether packets have what is to be set, and whether it may be: not the protocol, nor what fragment it is."""
    ok = True
    if kind == ETHERNET:
        ok = packets.ethernet
    elif kind in (IPV4, IPV6):
        version4 = kind == IPV4
        fixed = _FIXED[kind]
        current = packets.key.get("ip_proto", 0), packets.key.get("ip_frag", 0)
        ok = packets.eth_type == (ETH_P_IP if version4 else ETH_P_IPV6)
        if mask is not None:
            ok = ok and not any(mask[at] for at in fixed)
        else:
            ok = ok and tuple(values[at] for at in fixed) == current
        if not version4:
            labels = (values, mask) if mask is not None else (values,)
            ok = ok and all(int.from_bytes(label[_LABEL_AT : _LABEL_AT + 4]) <= LABEL_BITS for label in labels)
    elif kind in _PROTOCOLS:
        ok = packets.eth_type in (ETH_P_IP, ETH_P_IPV6) and packets.key.get("ip_proto") == _PROTOCOLS[kind]
    elif kind == MPLS:
        ok = packets.eth_type in ETH_P_MPLS
    if not ok:
        raise invalid()


def _set_tunnel(data: bytes) -> SetTunnel:
    fields: Fields = {}
    read_tunnel(data, fields)
    check_options(fields)
    return tunnel_of(fields)


def tunnel_of(fields: Fields) -> SetTunnel:
    """A tunnel from its fields in a key."""
    size = 4 if fields["tun_proto"] == INET else 16
    flags = fields.get("tun_flags", 0)
    return SetTunnel(
        fields.get("tun_id", 0) & 0xFFFF_FFFF,
        fields.get("tun_src", 0).to_bytes(size, "big"),
        fields.get("tun_dst", 0).to_bytes(size, "big"),
        fields.get("tun_tos", 0),
        fields.get("tun_ttl", 0),
        fields.get("tun_tp_dst", 0),
        bool(flags & TUN_CSUM),
        bool(flags & TUN_DONT_FRAGMENT),
        options_of(fields),
        bool(flags & TUN_KEY),
    )
