# SPDX-License-Identifier: Apache-2.0
"""The flow key of a packet, as the kernel's datapath gives it with an upcall (net/openvswitch/flow.c, key_extract)."""

from __future__ import annotations

import struct

from asap2.netlink.wire import attribute
from asap2.nic.kernel import ovs_key as key

_IPV4_FRAGMENT_OFFSET = 0x1FFF
_IPV4_MORE_FRAGMENTS = 0x2000
_FRAG_NONE, _FRAG_FIRST, _FRAG_LATER = 0, 1, 2
_EXTENSION_HEADERS = (0, 43, 60)
_FRAGMENT_HEADER = 44
_U32 = struct.Struct("=I")


def tunnel(fields: dict[str, int]) -> bytes:
    """The tunnel attribute of a packet that came out of one (fields ``tun_*``); empty for none (__ip_tun_to_nlattr)."""
    destination = fields.get("tun_dst", 0)
    if not destination:
        return b""
    version4 = destination < 1 << 32
    length = 4 if version4 else 16
    out = attribute(key.TUN_ID, fields.get("tun_id", 0).to_bytes(8, "big"))
    for name, kind in (
        ("tun_src", key.TUN_IPV4_SRC if version4 else key.TUN_IPV6_SRC),
        ("tun_dst", key.TUN_IPV4_DST if version4 else key.TUN_IPV6_DST),
    ):
        if fields.get(name):
            out += attribute(kind, fields[name].to_bytes(length, "big"))
    if fields.get("tun_tos"):
        out += attribute(key.TUN_TOS, bytes((fields["tun_tos"],)))
    out += attribute(key.TUN_TTL, bytes((fields.get("tun_ttl", 0),)))
    flags = fields.get("tun_flags", 0)
    for kind in (key.TUN_DONT_FRAGMENT, key.TUN_CSUM):
        if flags & key.TUNNEL_FLAGS[kind]:
            out += attribute(kind, b"")
    if fields.get("tun_tp_dst"):
        out += attribute(key.TUN_TP_DST, fields["tun_tp_dst"].to_bytes(2, "big"))
    if flags & key.TUNNEL_FLAGS[key.TUN_OAM]:
        out += attribute(key.TUN_OAM, b"")
    return attribute(key.TUNNEL, out)


def metadata(in_port: int, recirc_id: int = 0, mark: int = 0, tunnel_key: bytes = b"") -> bytes:
    """The attributes in front of the headers, in the kernel's order."""
    return (
        attribute(key.RECIRC_ID, _U32.pack(recirc_id))
        + attribute(key.DP_HASH, bytes(4))
        + attribute(key.PRIORITY, bytes(4))
        + tunnel_key
        + attribute(key.IN_PORT, _U32.pack(in_port))
        + attribute(key.SKB_MARK, _U32.pack(mark))
        + attribute(key.CT_STATE, bytes(4))
        + attribute(key.CT_ZONE, bytes(2))
        + attribute(key.CT_MARK, bytes(4))
        + attribute(key.CT_LABELS, bytes(16))
    )


def extract(packet: bytes, in_port: int, recirc_id: int = 0, tunnel_key: bytes = b"") -> bytes:
    """The nested key of *packet* (an Ethernet frame with its tags in line) received on datapath port *in_port*, from
    a tunnel when there is a *tunnel_key*.

    Headers that are cut short end the key where the kernel ends it: with zeros for the layer that is not there.
    """
    out = metadata(in_port, recirc_id, 0, tunnel_key) + attribute(key.ETHERNET, packet[6:12] + packet[:6])
    return out + _headers(packet, 12, 0)


def _headers(packet: bytes, at: int, depth: int) -> bytes:
    ethertype = int.from_bytes(packet[at : at + 2], "big")
    if ethertype in (0x8100, 0x88A8) and depth < 2 and len(packet) >= at + 4:
        tci = int.from_bytes(packet[at + 2 : at + 4], "big") | 0x1000
        return (
            attribute(key.ETHERTYPE, packet[at : at + 2])
            + attribute(key.VLAN, tci.to_bytes(2, "big"))
            + attribute(key.ENCAP, _headers(packet, at + 4, depth + 1))
        )
    if ethertype < 0x600:
        return _llc(packet, at)
    return attribute(key.ETHERTYPE, packet[at : at + 2]) + _network(packet, ethertype, at + 2)


def _llc(packet: bytes, at: int) -> bytes:
    """IEEE 802.3 frames: the type behind a SNAP header of OUI 0, else ETH_P_802_2 (parse_ethertype)."""
    if packet[at + 2 : at + 8] == b"\xaa\xaa\x03\0\0\0" and int.from_bytes(packet[at + 8 : at + 10], "big") >= 0x600:
        return attribute(key.ETHERTYPE, packet[at + 8 : at + 10])
    return b""


def _network(packet: bytes, ethertype: int, at: int) -> bytes:
    if ethertype == 0x0800:
        return _ipv4(packet, at)
    if ethertype == 0x86DD:
        return _ipv6(packet, at)
    if ethertype in (0x0806, 0x8035):
        return _arp(packet, at)
    return b""


def _ipv4(packet: bytes, at: int) -> bytes:
    header = packet[at : at + 20]
    length = (header[0] & 15) * 4 if header else 0
    if len(header) < 20 or length < 20 or header[0] >> 4 != 4 or len(packet) < at + length:
        return attribute(key.IPV4, bytes(12))
    fragment = int.from_bytes(header[6:8], "big")
    frag = _FRAG_NONE
    if fragment & _IPV4_FRAGMENT_OFFSET:
        frag = _FRAG_LATER
    elif fragment & _IPV4_MORE_FRAGMENTS:
        frag = _FRAG_FIRST
    out = attribute(key.IPV4, header[12:20] + bytes((header[9], header[1], header[8], frag)))
    return out if frag == _FRAG_LATER else out + _transport(packet, header[9], at + length, key.ICMP)


def _ipv6(packet: bytes, at: int) -> bytes:
    header = packet[at : at + 40]
    if len(header) < 40:
        return attribute(key.IPV6, bytes(40))
    flow = int.from_bytes(header[:4], "big")
    proto, at, frag = header[6], at + 40, _FRAG_NONE
    while frag != _FRAG_LATER and (proto in _EXTENSION_HEADERS or proto == _FRAGMENT_HEADER):
        extension = packet[at : at + 8]
        if len(extension) < 8:
            break
        if proto == _FRAGMENT_HEADER:
            offset = int.from_bytes(extension[2:4], "big")
            frag = _FRAG_LATER if offset & 0xFFF8 else _FRAG_FIRST
            at += 8
        else:
            at += 8 + extension[1] * 8
        proto = extension[0]
    label = (flow & 0xFFFFF).to_bytes(4, "big")
    out = attribute(key.IPV6, header[8:40] + label + bytes((proto, flow >> 20 & 0xFF, header[7], frag)))
    return out if frag == _FRAG_LATER else out + _transport(packet, proto, at, key.ICMPV6)


def _transport(packet: bytes, proto: int, at: int, icmp: int) -> bytes:
    if proto == 6:
        tcp = packet[at : at + 20]
        if len(tcp) < 20:
            return attribute(key.TCP, bytes(4)) + attribute(key.TCP_FLAGS, bytes(2))
        flags = (int.from_bytes(tcp[12:14], "big") & 0xFFF).to_bytes(2, "big")
        return attribute(key.TCP, tcp[:4]) + attribute(key.TCP_FLAGS, flags)
    if proto in (17, 132):
        need = 8 if proto == 17 else 12
        ports = packet[at : at + 4] if len(packet) >= at + need else bytes(4)
        return attribute(key.UDP if proto == 17 else key.SCTP, ports)
    if proto == 1 and icmp == key.ICMP:
        return attribute(key.ICMP, packet[at : at + 2] if len(packet) >= at + 8 else bytes(2))
    if proto == 58 and icmp == key.ICMPV6:
        return _icmpv6(packet, at)
    return b""


def _icmpv6(packet: bytes, at: int) -> bytes:
    if len(packet) < at + 4:
        return attribute(key.ICMPV6, bytes(2))
    out = attribute(key.ICMPV6, packet[at : at + 2])
    if packet[at] not in (135, 136) or packet[at + 1] != 0:
        return out
    if len(packet) < at + 24:
        return out + attribute(key.ND, bytes(28))
    target, source, destination = packet[at + 8 : at + 24], bytes(6), bytes(6)
    at += 24
    while at + 8 <= len(packet):
        kind, length = packet[at], packet[at + 1] * 8
        if not length:
            break
        if kind == 1 and length == 8:
            source = packet[at + 2 : at + 8]
        elif kind == 2 and length == 8:
            destination = packet[at + 2 : at + 8]
        at += length
    return out + attribute(key.ND, target + source + destination)


def _arp(packet: bytes, at: int) -> bytes:
    arp = packet[at : at + 28]
    if len(arp) < 28 or arp[:6] != b"\0\x01\x08\0\x06\x04":
        return attribute(key.ARP, bytes(24))
    operation = arp[6:8] if arp[6] == 0 else bytes(2)
    return attribute(key.ARP, arp[14:18] + arp[24:28] + operation + arp[8:14] + arp[18:24] + bytes(2))
