# SPDX-License-Identifier: Apache-2.0
"""What the eSwitch sees in an Ethernet frame, and what it can do to its VLAN tags. The specification of the parser.

Frames are bytes as on the wire, tags included, without the frame check sequence. Sources: RFC 791, 826, 8200, 4861,
IEEE 802.1Q, and the Linux kernel's flow dissector (net/core/flow_dissector.c) and Open vSwitch key extraction
(net/openvswitch/flow.c), between which the eSwitch chooses where they differ.
"""

from __future__ import annotations

from asap2.nic.rules import VLAN_PRESENT, Frag

HEADER = 14
"""Bytes of an Ethernet header without tags."""

L3_WINDOW = 192
"""The eSwitch looks at so many bytes from the network header on. A header that ends beyond them is not there."""

EXTENSIONS = 8
"""IPv6 extension headers that are skipped. The number of the next one is the protocol, and its fields are 0."""

LLC = 0x0004
"""``eth_type`` of a frame with a length in its type field (ETH_P_802_2, as eth_type_trans() has it)."""

_TPIDS = (0x8100, 0x88A8)
_IPV4, _IPV6, _ARP, _RARP = 0x0800, 0x86DD, 0x0806, 0x8035
_ICMP, _TCP, _UDP, _ICMPV6, _SCTP = 1, 6, 17, 58, 132
_L4_HEADER = {_TCP: 20, _UDP: 8, _SCTP: 12}
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT = 135, 136


Fields = dict[str, int]
"""Values of match fields by name."""


class CutTagError(ValueError):
    """A frame ends inside a tag that has to be moved."""


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def parse(frame: bytes, window: int = L3_WINDOW) -> Fields:
    """The fields of :class:`asap2.nic.rules.Match` that are not 0 in *frame*, which has an Ethernet header.

    A tag counts when all its four bytes are there and an ethertype follows. A third tag is not looked into: it is the
    ``eth_type``. The DEI bit of a tag does not count; its place has VLAN_PRESENT.
    """
    fields = {"eth_dst": int.from_bytes(frame[0:6], "big"), "eth_src": int.from_bytes(frame[6:12], "big")}
    at = 12
    for name in ("vlan_tci", "cvlan_tci"):
        if _word(frame, at) in _TPIDS and len(frame) >= at + 6:
            fields[name] = _word(frame, at + 2) & 0xEFFF | VLAN_PRESENT
            if name == "vlan_tci":
                fields["vlan_tpid"] = _word(frame, at)
            else:
                fields["cvlan_tpid"] = frame[at]
            at += 4
        else:
            break
    eth_type = _word(frame, at)
    fields["eth_type"] = eth_type if eth_type >= 0x600 else LLC
    packet = frame[at + 2 : at + 2 + window]
    match eth_type:
        case 0x0800:
            fields |= _ipv4(packet)
        case 0x86DD:
            fields |= _ipv6(packet)
        case 0x0806 | 0x8035:
            fields |= _arp(packet)
    return {name: value for name, value in fields.items() if value}


def _ipv4(packet: bytes) -> Fields:
    """A header shorter than 20 bytes, by the frame's end or its own account, is not there. Options are skipped."""
    length = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < 20 or length < 20:
        return {}
    fields = {
        "ip_tos": packet[1],
        "ip_ttl": packet[8],
        "ip_proto": packet[9],
        "ip_src": int.from_bytes(packet[12:16], "big"),
        "ip_dst": int.from_bytes(packet[16:20], "big"),
    }
    fragment = _word(packet, 6)
    if fragment & 0x1FFF:
        return fields | {"ip_frag": Frag.IS_FRAGMENT}
    if fragment & 0x2000:
        fields["ip_frag"] = Frag.IS_FRAGMENT | Frag.FIRST
    return fields | _l4(packet[length:], packet[9], _ICMP)


def _ipv6(packet: bytes) -> Fields:
    """Hop-by-hop, routing, destination and fragment headers are skipped, as by the flow dissector.

    ``ip_proto`` is the number of the last header that could be reached: behind a header that is cut short, that
    header's; in a later fragment, what the fragment header names.
    """
    if len(packet) < 40:
        return {}
    flow = int.from_bytes(packet[0:4], "big")
    fields = {
        "ip_tos": flow >> 20 & 0xFF,
        "ipv6_label": flow & 0xFFFFF,
        "ip_ttl": packet[7],
        "ip_src": int.from_bytes(packet[8:24], "big"),
        "ip_dst": int.from_bytes(packet[24:40], "big"),
        "ip_proto": packet[6],
    }
    rest = packet[40:]
    for _ in range(EXTENSIONS):
        if fields["ip_proto"] not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION):
            break
        if len(rest) < 8:
            return fields
        if fields["ip_proto"] == _FRAGMENT:
            fields["ip_proto"] = rest[0]
            if _word(rest, 2) & 0xFFF8:
                return fields | {"ip_frag": Frag.IS_FRAGMENT}
            fields["ip_frag"] = Frag.IS_FRAGMENT | Frag.FIRST
            rest = rest[8:]
        else:
            fields["ip_proto"] = rest[0]
            rest = rest[(rest[1] + 1) * 8 :]
    return fields | _l4(rest, fields["ip_proto"], _ICMPV6)


def _l4(segment: bytes, protocol: int, icmp: int) -> Fields:
    """Nothing of a header that is cut short, as in Open vSwitch."""
    if protocol in _L4_HEADER and len(segment) >= _L4_HEADER[protocol]:
        fields = {"l4_src": _word(segment, 0), "l4_dst": _word(segment, 2)}
        if protocol == _TCP:
            fields["tcp_flags"] = _word(segment, 12) & 0xFFF
        return fields
    if protocol == icmp and len(segment) >= 8:
        fields = {"l4_src": segment[0], "l4_dst": segment[1]}
        neighbour = segment[0] in (_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT) and segment[1] == 0
        if protocol == _ICMPV6 and neighbour and len(segment) >= 24:
            fields["nd_target"] = int.from_bytes(segment[8:24], "big")
        return fields
    return {}


def _arp(packet: bytes) -> Fields:
    """ARP and RARP for IPv4 on Ethernet; anything else has no fields. An operation above 255 is 0."""
    if len(packet) < 28 or packet[:6] != bytes.fromhex("000108000604"):
        return {}
    operation = _word(packet, 6)
    return {
        "ip_proto": operation if operation < 256 else 0,
        "arp_sha": int.from_bytes(packet[8:14], "big"),
        "ip_src": int.from_bytes(packet[14:18], "big"),
        "arp_tha": int.from_bytes(packet[18:24], "big"),
        "ip_dst": int.from_bytes(packet[24:28], "big"),
    }


def tagged(frame: bytes) -> bool:
    """Whether a tag's ethertype follows the addresses."""
    return _word(frame, 12) in _TPIDS


def push_vlan(frame: bytes, tpid: int, tci: int) -> bytes:
    """*frame* with one more tag, outside all others."""
    return frame[:12] + tpid.to_bytes(2, "big") + tci.to_bytes(2, "big") + frame[12:]


def pop_vlan(frame: bytes) -> bytes:
    """*frame* without its outer tag, or as it is when it has none.

    The tag that was behind it becomes the outer one, so that has to be whole too. Raises :class:`CutTagError`.
    """
    if not tagged(frame):
        return frame
    if len(frame) < HEADER + 4:
        raise CutTagError
    frame = frame[:12] + frame[16:]
    if tagged(frame) and len(frame) < HEADER + 4:
        raise CutTagError
    return frame


def modify_vlan(frame: bytes, tpid: int, vid: int, pcp: int | None) -> bytes:
    """*frame* with its outer tag's TPID and id replaced, its priority too unless that is None, and its DEI bit kept; as
    it is when it has no tag.

    As TC's action "vlan modify". Raises :class:`CutTagError` where :func:`pop_vlan` does.
    """
    if not tagged(frame):
        return frame
    kept = _word(frame, 14) & (0xF000 if pcp is None else 0x1000)
    return push_vlan(pop_vlan(frame), tpid, (pcp or 0) << 13 | vid & 0xFFF | kept)
