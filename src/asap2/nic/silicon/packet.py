# SPDX-License-Identifier: Apache-2.0
"""What the eSwitch sees in an Ethernet frame, and what it can do to its VLAN tags. The specification of the parser.

Frames are bytes as on the wire, tags included, without the frame check sequence. Sources: RFC 791, 826, 8200, 4861,
3032, 8300, IEEE 802.1Q, and the Linux kernel's flow dissector (net/core/flow_dissector.c) and Open vSwitch key
extraction (net/openvswitch/flow.c). Where these two differ, Open vSwitch's tables have the latter, and TC's a choice of
both.
"""

from __future__ import annotations

from asap2.nic.rules import VLAN_PRESENT, Frag
from asap2.nic.silicon.abi import EXTENSIONS, L3_WINDOW, MPLS_LABELS

HEADER = 14
"""Bytes of an Ethernet header without tags."""

LLC = 0x0004
"""``eth_type`` of a frame with a length in its type field (ETH_P_802_2, as eth_type_trans() has it)."""

_TPIDS = (0x8100, 0x88A8)
_NEIGHBOUR_DISCOVERY = range(133, 138)
"""ICMPv6 types: solicitations and advertisements of routers and neighbours, and redirects."""
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_ICMP, _TCP, _UDP, _ICMPV6, _SCTP = 1, 6, 17, 58, 132
_L4_HEADER = {_TCP: 20, _UDP: 8, _SCTP: 12}
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NO_NEXT, _DESTINATION = 0, 43, 44, 51, 59, 60
_OVS_EXTENSIONS = (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NO_NEXT, _DESTINATION)
_SNAP = b"\xaa\xaa"
_BOTTOM = 0x100
"""Bit of a label stack entry: it is the last."""
_SOURCE_OPTION, _TARGET_OPTION = 1, 2
_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT = 135, 136


Fields = dict[str, int]
"""Values of match fields by name."""


class CutTagError(ValueError):
    """A frame ends inside a tag that has to be moved."""


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def parse(frame: bytes, window: int = L3_WINDOW, *, ovs: bool = False) -> Fields:
    """The fields of :class:`asap2.nic.rules.Match` that are not 0 in *frame*, which has an Ethernet header; with *ovs*,
    as Open vSwitch sees them.

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
    at += 2
    if eth_type < 0x600 and ovs and frame[at : at + 2] == _SNAP and frame[at + 3 : at + 6] == bytes(3):
        # Its type follows, and what that says.
        eth_type = _word(frame, at + 6) if len(frame) >= at + 8 else LLC
        at += 8
    fields["eth_type"] = eth_type if eth_type >= 0x600 else LLC
    packet, whole = frame[at : at + window], len(frame) - at
    match eth_type:
        case 0x0800:
            fields |= _ipv4(packet, whole, ovs=ovs)
        case 0x86DD:
            fields |= _ipv6(packet, whole, ovs=ovs)
        case 0x0806 | 0x8035:
            fields |= _arp(packet)
        case 0x8847 | 0x8848:
            fields |= _mpls(packet)
        case 0x894F:
            fields |= _nsh(frame[at:])
    return {name: value for name, value in fields.items() if value}


def _ipv4(packet: bytes, whole: int, *, ovs: bool) -> Fields:
    """A header shorter than 20 bytes, by the frame's end or its own account, is not there. Options are skipped; to Open
    vSwitch, a header whose options are cut short is not there either."""
    length = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < 20 or length < 20 or (ovs and whole < length):
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
    return fields | _l4(packet[length:], packet[9], _ICMP, whole - length, ovs=ovs)


def _ipv6(packet: bytes, whole: int, *, ovs: bool) -> Fields:
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
    if ovs and packet[6] in _OVS_EXTENSIONS:
        more, at = _ovs_extensions(packet)
        fields |= more
        return fields if at is None else fields | _l4(packet[at:], fields["ip_proto"], _ICMPV6, whole - at, ovs=ovs)
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
    return fields | _l4(rest, fields["ip_proto"], _ICMPV6, whole - 40, ovs=ovs)


def _ovs_extensions(packet: bytes) -> tuple[Fields, int | None]:
    """The protocol and fragment of an IPv6 packet whose extension headers are to be followed, and where the transport
    header begins (``None``: it is not there).

    The authentication header is one, too. The protocol of a later fragment is 44; it is 59, none, where headers cannot
    be followed to their end, as behind a later fragment's.
    """
    fields: Fields = {"ip_proto": _NO_NEXT}
    protocol, at = packet[6], 40
    for _ in range(EXTENSIONS):
        if protocol not in _OVS_EXTENSIONS or protocol == _NO_NEXT:
            break
        if len(packet) < at + (4 if protocol == _ROUTING else 2) or at + 8 > L3_WINDOW:
            return fields, None
        following, length = packet[at], packet[at + 1]
        if protocol == _FRAGMENT:
            fields["ip_frag"] = Frag.IS_FRAGMENT | Frag.FIRST
            if len(packet) < at + 4:
                return fields, None
            if _word(packet, at + 2) & 0xFFF8:
                if following not in _OVS_EXTENSIONS or following == _NO_NEXT:
                    fields = {"ip_proto": _FRAGMENT, "ip_frag": Frag.IS_FRAGMENT}
                return fields, None
            at += 8
        else:
            at += (length + 2) * 4 if protocol == _AUTHENTICATION else (length + 1) * 8
        protocol = following
    if protocol in _OVS_EXTENSIONS and protocol != _NO_NEXT:
        return fields, None
    fields["ip_proto"] = protocol
    return fields, at


def _l4(segment: bytes, protocol: int, icmp: int, whole: int, *, ovs: bool) -> Fields:
    """Nothing of a header that is cut short, as in Open vSwitch, to which all of TCP's options belong."""
    if protocol in _L4_HEADER and len(segment) >= _L4_HEADER[protocol]:
        if ovs and protocol == _TCP and not 20 <= (segment[12] >> 4) * 4 <= whole:
            return {}
        fields = {"l4_src": _word(segment, 0), "l4_dst": _word(segment, 2)}
        if protocol == _TCP:
            fields["tcp_flags"] = _word(segment, 12) & 0xFFF
        return fields
    if protocol == icmp and len(segment) >= 8:
        fields = {"l4_src": segment[0], "l4_dst": segment[1]}
        neighbour = segment[0] in (_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT) and segment[1] == 0
        if protocol == _ICMPV6 and neighbour and len(segment) >= 24:
            fields |= _neighbour(segment)
        return fields
    return {}


def about_neighbours(fields: Fields) -> bool:
    """Whether a packet with *fields* is ARP, or of neighbour discovery (RFC 4861)."""
    if fields.get("eth_type") == _IPV6 and fields.get("ip_proto") == _ICMPV6:
        return fields.get("l4_src", 0) in _NEIGHBOUR_DISCOVERY
    return fields.get("eth_type") == _ARP


def _neighbour(segment: bytes) -> Fields:
    """Target and link-layer addresses of neighbour discovery; nothing of a message that has one of these twice."""
    fields = {"nd_target": int.from_bytes(segment[8:24], "big")}
    at = 24
    while at + 8 <= len(segment):
        kind, length = segment[at], segment[at + 1] * 8
        if not length or at + length > len(segment):
            break
        if length == 8 and kind in (_SOURCE_OPTION, _TARGET_OPTION):
            name = "nd_sll" if kind == _SOURCE_OPTION else "nd_tll"
            if fields.get(name):
                return {}
            fields[name] = int.from_bytes(segment[at + 2 : at + 8], "big")
        at += length
    return fields


def _mpls(packet: bytes) -> Fields:
    """The first labels, and a bit for each where the stack has an end."""
    fields: Fields = {}
    for count in range(1, L3_WINDOW // 4 + 1):
        if len(packet) < 4 * count:
            break
        entry = int.from_bytes(packet[4 * count - 4 : 4 * count], "big")
        if count <= MPLS_LABELS:
            fields[f"mpls_lse{count}"] = entry
        if entry & _BOTTOM:
            fields["mpls_labels"] = (1 << min(count, MPLS_LABELS)) - 1
            break
    return fields


def _nsh(packet: bytes) -> Fields:
    """A network service header of version 0 and type 1 or 2; anything else has no fields, as one that is cut short."""
    if len(packet) < 8:
        return {}
    head, kind = _word(packet, 0), packet[2]
    length = (head & 0x3F) * 4
    if head >> 14 or len(packet) < length or kind not in (1, 2) or (kind == 1 and length != 24):
        return {}
    fields = {
        "nsh_flags": head >> 12 & 3,
        "nsh_ttl": head >> 6 & 0x3F,
        "nsh_mdtype": kind,
        "nsh_np": packet[3],
        "nsh_path": int.from_bytes(packet[4:8], "big"),
    }
    return fields | ({"nsh_context": int.from_bytes(packet[8:24], "big")} if kind == 1 else {})


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
