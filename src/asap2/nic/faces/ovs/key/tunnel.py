# SPDX-License-Identifier: Apache-2.0
"""A key's tunnel and its network service header: attributes within an attribute, with rules of their own."""

from __future__ import annotations

from typing import Final

from asap2.netlink.wire import attribute
from asap2.nic.faces.ovs.key.layout import NSH_LAYOUTS, TUNNEL_LAYOUTS, Fields, invalid, walk
from asap2.nic.faces.ovs.key.numbers import (
    NSH,
    NSH_BASE,
    NSH_MD1,
    TUN_ATTR_CSUM,
    TUN_ATTR_DONT_FRAGMENT,
    TUN_ATTR_OAM,
    TUN_ERSPAN_OPTS,
    TUN_GENEVE_OPTS,
    TUN_ID,
    TUN_IPV4_DST,
    TUN_IPV4_SRC,
    TUN_IPV6_DST,
    TUN_IPV6_SRC,
    TUN_TOS,
    TUN_TP_DST,
    TUN_TP_SRC,
    TUN_TTL,
    TUN_VXLAN_OPTS,
    TUNNEL_LENGTHS,
    VARIABLE,
    VXLAN_GBP,
)
from asap2.nic.rules import TUN_CSUM, TUN_DONT_FRAGMENT, TUN_ERSPAN, TUN_GBP, TUN_KEY, TUN_OAM, TUN_OPTIONS
from asap2.nic.tunnels.erspan import METADATA_OCTETS
from asap2.nic.tunnels.options import GBP_OCTETS

_FLAGS: Final = {
    TUN_ID: TUN_KEY,
    TUN_ATTR_DONT_FRAGMENT: TUN_DONT_FRAGMENT,
    TUN_ATTR_CSUM: TUN_CSUM,
    TUN_ATTR_OAM: TUN_OAM,
    TUN_GENEVE_OPTS: TUN_OPTIONS,
    TUN_VXLAN_OPTS: TUN_GBP,
    TUN_ERSPAN_OPTS: TUN_ERSPAN,
}
_OPTIONS: Final = {TUN_GENEVE_OPTS, TUN_VXLAN_OPTS, TUN_ERSPAN_OPTS}
OPTIONS_MOST: Final = 255
"""Octets of options in a key (IP_TUNNEL_OPTS_MAX). A key has them as the number ``tun_opts``, and their length in
``tun_opts_len``; a bit of ``tun_flags`` says whose they are. VXLAN's group policy is ``struct vxlan_metadata``, and
ERSPAN's is ``struct erspan_metadata``, as the kernel's devices have them."""
INET, INET6 = 2, 10
"""``tun_proto``: AF_INET, AF_INET6."""
_FAMILIES: Final = {TUN_IPV4_SRC: INET, TUN_IPV4_DST: INET, TUN_IPV6_SRC: INET6, TUN_IPV6_DST: INET6}
_ADDRESSES: Final = {
    INET: (("tun_src", TUN_IPV4_SRC, 0xFFFF_FFFF), ("tun_dst", TUN_IPV4_DST, 0xFFFF_FFFF)),
    INET6: (("tun_src", TUN_IPV6_SRC, -1), ("tun_dst", TUN_IPV6_DST, -1)),
}


def read_tunnel(payload: bytes, into: Fields, *, is_mask: bool = False) -> None:
    """The tunnel's fields of a key's attribute. EINVAL, also for options of tunnels (ip_tun_from_nlattr)."""
    families, flags, kinds = set(), 0, set[int]()
    for kind, value in walk(payload, padded=False):
        if TUNNEL_LENGTHS.get(kind) not in (VARIABLE, len(value)):
            raise invalid()
        if kind in _OPTIONS:
            if kinds & _OPTIONS:
                raise invalid()
            options = _options(kind, value)
            into["tun_opts"], into["tun_opts_len"] = int.from_bytes(options, "big"), len(options)
        kinds.add(kind)
        flags |= _FLAGS.get(kind, 0)
        if kind in TUNNEL_LAYOUTS:
            TUNNEL_LAYOUTS[kind].read(value, into, is_mask)
        if kind in _FAMILIES:
            families.add(_FAMILIES[kind])
    into["tun_flags"] = flags
    into["tun_proto"] = 0xFF if is_mask else INET6 if INET6 in families else INET
    if len(families) > 1 or (not is_mask and (not families or not into.get("tun_dst") or TUN_TTL not in kinds)):
        raise invalid()


def _options(kind: int, value: bytes) -> bytes:
    """The options that an attribute has, as the kernel's metadata. EINVAL (vxlan_tun_opt_from_nlattr and others)."""
    if kind == TUN_VXLAN_OPTS:
        policy = bytes(GBP_OCTETS)
        for number, inner in walk(value, padded=False):
            if number != VXLAN_GBP or len(inner) != GBP_OCTETS:
                raise invalid()
            policy = inner
        return policy
    if kind == TUN_ERSPAN_OPTS:
        if len(value) != METADATA_OCTETS:
            raise invalid()
    elif len(value) > OPTIONS_MOST or len(value) % 4:
        raise invalid()
    return value


def emit_tunnel(values: Fields, family: int, octets: int) -> bytes:
    """The attributes of a tunnel key with so many *octets* of options (__ip_tun_to_nlattr)."""
    flags = values.get("tun_flags", 0)
    out = TUNNEL_LAYOUTS[TUN_ID].emit(values) if flags & TUN_KEY else b""
    for name, kind, bits in _ADDRESSES.get(family, ()):
        if values.get(name, 0) & bits:
            out += TUNNEL_LAYOUTS[kind].emit(values)
    if values.get("tun_tos"):
        out += TUNNEL_LAYOUTS[TUN_TOS].emit(values)
    out += TUNNEL_LAYOUTS[TUN_TTL].emit(values)
    for kind in (TUN_ATTR_DONT_FRAGMENT, TUN_ATTR_CSUM):
        if flags & _FLAGS[kind]:
            out += attribute(kind, b"")
    for kind, name in ((TUN_TP_SRC, "tun_tp_src"), (TUN_TP_DST, "tun_tp_dst")):
        if values.get(name):
            out += TUNNEL_LAYOUTS[kind].emit(values)
    if flags & TUN_OAM:
        out += attribute(TUN_ATTR_OAM, b"")
    if octets and flags & (TUN_OPTIONS | TUN_GBP | TUN_ERSPAN):
        options = values.get("tun_opts", 0).to_bytes(octets, "big")
        if flags & TUN_OPTIONS:
            out += attribute(TUN_GENEVE_OPTS, options)
        elif flags & TUN_GBP:
            out += attribute(TUN_VXLAN_OPTS, attribute(VXLAN_GBP, options))
        else:
            out += attribute(TUN_ERSPAN_OPTS, options)
    return out


def options_of(fields: Fields) -> bytes:
    """The options of a key's tunnel."""
    return fields.get("tun_opts", 0).to_bytes(fields.get("tun_opts_len", 0), "big")


def check_options(fields: Fields) -> None:
    """Whether options of Geneve that a packet is to get fill their room. EINVAL (validate_geneve_opts)."""
    if not fields.get("tun_flags", 0) & TUN_OPTIONS:
        return
    at, options = 0, options_of(fields)
    while at < len(options):
        at += 4 + 4 * (options[at + 3] & 0x1F)
    if at > len(options):
        raise invalid()


def read_nsh(payload: bytes, into: Fields, is_mask: bool) -> None:
    """The fields of a network service header's attributes. EINVAL (nsh_key_put_from_nlattr)."""
    fields: Fields = {}
    kinds = set()
    for kind, value in walk(payload, padded=False):
        # Of metadata of variable length (OVS_NSH_KEY_ATTR_MD2), a key has none.
        if kind not in NSH_LAYOUTS or len(value) != (8 if kind == NSH_BASE else 16):
            raise invalid()
        kinds.add(kind)
        NSH_LAYOUTS[kind].read(value, fields, is_mask)
    if not is_mask and NSH_MD1 in kinds and fields.get("nsh_mdtype", 0) != 1:
        raise invalid()
    into |= fields


def emit_nsh(key: Fields, values: Fields) -> bytes:
    """A network service header's attribute, from a masked *key* or its mask."""
    inside = NSH_LAYOUTS[NSH_BASE].emit(values)
    if values is not key or key.get("nsh_mdtype") == 1:
        inside += NSH_LAYOUTS[NSH_MD1].emit(values)
    return attribute(NSH, inside)
