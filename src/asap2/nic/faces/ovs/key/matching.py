# SPDX-License-Identifier: Apache-2.0
"""Flow keys to the pipeline: the table that a flow is in, and the match of its rule."""

from __future__ import annotations

import sys
from typing import Final

from asap2.nic.faces.ovs.key.layout import Fields, invalid
from asap2.nic.faces.ovs.key.numbers import FRAG_FIRST, FRAG_LATER, FRAG_NONE
from asap2.nic.faces.ovs.key.reading import FlowMatch
from asap2.nic.fields import FIELDS, OVS_ONLY
from asap2.nic.rules import BARE, OVS_TABLE, TUN_CSUM, TUN_DONT_FRAGMENT, TUN_GBP, TUN_OAM, Frag, Masked, Match
from asap2.nic.tunnels.options import GBP, GBP_OCTETS, KINDS


def table_of(key: Fields) -> int:
    """The table that a flow with this masked key is in."""
    return OVS_TABLE | key.get("recirc_id", 0) | (0 if key.get("mac_proto", 1) else BARE)


_OTHERWISE: Final = {"cvlan_tpid", "ip_frag", "tun_src", "tun_dst", "tun_id", "tun_flags"}
_OPTION: Final = 8
"""Octets of an option that rules match on."""
_OPTION_HEADER: Final = 0xFFFFFF1F
"""Its header without the reserved bits."""
"""Fields whose values in a key are not those of a rule."""
_SAME: Final = {field.name: (1 << field.bits) - 1 for field in FIELDS if field.name not in _OTHERWISE}
"""Fields that rules match on as they are, and their bits there."""
_NOT_SERVED: Final = {field.name for field in OVS_ONLY} - {"recirc_id", "in_port", "mac_proto", "tun_proto", "tun_opts"}
"""What this datapath cannot match on, since it is always 0."""


def to_match(flow: FlowMatch) -> Match | None:
    """The match of a flow; ``None`` when no packet can be like that. EINVAL where this datapath cannot tell."""
    key, mask = flow.masked(), flow.mask
    out: dict[str, Masked] = {}
    for name in _NOT_SERVED & key.keys():
        if key[name]:
            raise invalid()
    tunnelled = key.get("tun_proto")
    for name, given in mask.items():
        bits = given & _SAME.get(name, 0)
        if bits and (tunnelled or not name.startswith("tun_")):
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
    if tunnelled:
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
    _options_match(key, mask, out)
    return False


def _options_match(key: Fields, mask: Fields, out: dict[str, Masked]) -> None:
    """Match the options: Geneve's one with data of 32 bits, and VXLAN's group policy. EINVAL for others."""
    bits = mask.get("tun_opts", 0)
    if not bits:
        return
    if mask.get("tun_flags", 0) & TUN_GBP:
        bits = _host_integer(bits)
        policy = _host_integer(key.get("tun_opts", 0)) & bits
        if policy:  # a packet without one is as one with 0
            out["tun_option_kind"] = Masked(GBP, 0xFF)
        out["tun_option"] = Masked(policy, bits)
        return
    header, header_bits = (number >> 32 & 0xFFFF_FFFF for number in (key.get("tun_opts", 0), bits))
    whole = key.get("tun_opts_len") == _OPTION and header_bits & _OPTION_HEADER == _OPTION_HEADER
    number = KINDS.number(header.to_bytes(4, "big")) if whole and header & 0xFF == 1 else None
    if number is None:
        raise invalid()
    out["tun_option_kind"] = Masked(number, 0xFF)
    if data := bits & 0xFFFF_FFFF:
        out["tun_option"] = Masked(key["tun_opts"] & data, data)


def _host_integer(options: int) -> int:
    """The integer of a group policy, which is among the octets of options as the machine has it in memory."""
    return int.from_bytes(options.to_bytes(GBP_OCTETS, "big"), sys.byteorder)


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
