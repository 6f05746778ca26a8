# SPDX-License-Identifier: Apache-2.0
"""The flow key of a packet, as the kernel's datapath has it (net/openvswitch/flow.c, key_extract).

The headers are read by :func:`asap2.nic.silicon.packet.parse`, as for the rules of Open vSwitch's tables: so a flow
that user space makes of a packet's key matches that packet.
"""

from __future__ import annotations

from typing import Final

from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.key import Fields
from asap2.nic.rules import TUN_ERSPAN, TUN_GBP, TUN_OPTIONS, Frag
from asap2.nic.silicon import packet

_FRAGMENTS: Final = {int(value): number for number, value in ovs_key.FRAGMENTS.items()}
_TPIDS: Final = {0x81: 0x8100, 0x88: 0x88A8}
_NSH: Final = 0x894F
_IPV6: Final = 0x86DD
_IPV6_HEADER: Final = 40
_SNAP: Final = 8
"""Bytes between a length and what follows a SNAP header."""

NO_NEXT, ESP, AUTH, DEST, FRAG, ROUTER, HOP, UNREP, UNSEQ = (1 << bit for bit in range(9))
"""Bits that tell of extension headers (OFPIEH12_*, net/openvswitch/flow.h)."""


def extract(frame: bytes, metadata: Fields, *, ethernet: bool = True) -> Fields | None:
    """The key of *frame*, an Ethernet frame with its tags in line, or without *ethernet* a packet behind room for such
    a header. *metadata* is what it does not show itself. ``None`` for a packet that the kernel drops at once."""
    fields: Fields = {"mac_proto": 1} | metadata | packet.parse(frame, ovs=True)
    if fields["eth_type"] == _NSH and not fields.get("nsh_mdtype"):
        return None
    fields["ip_frag"] = _FRAGMENTS[fields.get("ip_frag", int(Frag.NONE))]
    if "cvlan_tpid" in fields:
        fields["cvlan_tpid"] = _TPIDS[fields["cvlan_tpid"]]
    if fields["eth_type"] == _IPV6:
        at = packet.HEADER + 4 * (("vlan_tci" in fields) + ("cvlan_tci" in fields))
        if frame[at - 2 : at] != _IPV6.to_bytes(2, "big"):
            at += _SNAP
        fields["ipv6_exthdrs"] = extension_headers(frame[at:])
    if not ethernet:
        fields["mac_proto"] = 0
        for name in ("eth_src", "eth_dst"):
            fields.pop(name, None)
    return fields


def tunnel_metadata(fields: Fields, options: bytes) -> Fields:
    """The tunnel's part of a key, from the fields ``tun_*`` of a packet that came out of one with these *options*."""
    found = {name: value for name, value in fields.items() if name.startswith("tun_")}
    if not found.get("tun_dst"):
        return {}
    family = ovs_key.INET if found["tun_dst"] < 1 << 32 else ovs_key.INET6
    flags = found.get("tun_flags", 0)
    for name in ("tun_option_kind", "tun_option", "tun_opts_len"):
        found.pop(name, None)
    if options:
        if not found.get("tun_tp_dst"):
            flags |= TUN_ERSPAN  # nothing else that is not in UDP has any
        elif not flags & TUN_GBP:
            flags |= TUN_OPTIONS
        found |= {"tun_opts": int.from_bytes(options, "big"), "tun_opts_len": len(options)}
    return found | {"tun_proto": family, "tun_flags": flags}


def extension_headers(ip: bytes) -> int:
    """What is told of the extension headers of an IPv6 packet: which there are, and whether they repeat or are out of
    the order that RFC 8200 recommends (get_ipv6_ext_hdrs)."""
    if len(ip) < _IPV6_HEADER:
        return 0
    seen, destinations, following, at = 0, 0, ip[6], _IPV6_HEADER
    while following in (0, 43, 44, 51, 59, 60):
        if following == 59:
            return seen | NO_NEXT
        before = _BEFORE[following]
        if following == 60:
            if destinations < 2:
                before = _BEFORE[following] if destinations else HOP | UNREP
                seen |= UNSEQ if seen & ~before else 0
            else:
                seen |= UNREP
            seen |= DEST if not destinations else 0
            destinations += 1
        elif following == 0:
            seen |= UNREP if seen & HOP else 0
            seen |= UNSEQ if seen else HOP
        else:
            bit = _BIT[following]
            seen |= UNREP if seen & bit else 0
            seen |= UNSEQ if seen & ~before or destinations >= 2 else 0
            seen |= bit
        if len(ip) < at + 2:
            break
        following, at = ip[at], at + (ip[at + 1] + 1) * 8
    return seen


_BIT: Final = {43: ROUTER, 44: FRAG, 51: AUTH}
_BEFORE: Final = {
    0: 0,
    43: HOP | DEST | UNREP,
    44: HOP | DEST | ROUTER | UNREP,
    51: HOP | DEST | ROUTER | FRAG | UNREP,
    60: HOP | DEST | ROUTER | FRAG | AUTH | ESP | UNREP,
}
"""What may come before each header."""
