# SPDX-License-Identifier: Apache-2.0
"""Tunnels of one frame: what is in one, into one, out of one. The specification of tunnel.h.

The headers are written here by hand, from RFC 7348, 8926, 2784, 2890, 768, 791, 8200 and 6935, and not shared with
:mod:`.encaps` or :mod:`asap2.nic.tunnels`, so that one is checked by the other.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import NamedTuple

from asap2.nic.checksums import checksum
from asap2.nic.rules import TUN_CSUM, TUN_DONT_FRAGMENT, TUN_KEY, Encap, SetTunnel
from asap2.nic.silicon import packet
from asap2.nic.silicon.packet import Fields
from asap2.nic.tunnels.vxlan import PORT as VXLAN_PORT

"""What a packet from the wire is looked into by; tunnels to ports that the silicon was not told of are ordinary
packets."""

_UDP, _GRE = 17, 47
_UDP_HEADER = _VXLAN_HEADER = _GENEVE_HEADER = 8
_GENEVE_PORT = 6081
_ID_IS_THERE = 0x08
_FRAME_INSIDE = 0x6558
_NO_KINDS: Mapping[int, bytes] = {}
_LOOK = 8
"""Options of a Geneve header that are looked at."""
_SOURCE_PORTS = (32768, 60999)
"""The kernel's ip_local_port_range, by default."""

_NOT_INSIDE = ("nd_", "mpls_", "nsh_")
"""What cannot be matched on in a tunnel."""


class Inside(NamedTuple):
    """A packet in a tunnel: where in the frame it begins, and the tunnel's fields (``tun_*``) that are not 0."""

    at: int
    tunnel: Fields


def look_into(frame: bytes, ports: Collection[int] = (), kinds: Mapping[int, bytes] = _NO_KINDS) -> Inside | None:
    """What is inside, or ``None``: then it is an ordinary packet. *ports* are those that VXLAN comes to besides 4789;
    *kinds* numbers the headers of options of Geneve that rules match on.

    There may be one outer tag. The outer IPv4 header has no options, the IPv6 header no extensions; it is not a
    fragment. Lengths do not count. An Ethernet header fits in.
    """
    outer = packet.parse(frame)
    protocol, port = outer.get("ip_proto", 0), outer.get("l4_dst", 0)
    if protocol not in (_UDP, _GRE) or "ip_frag" in outer or "cvlan_tci" in outer:
        return None
    ip = packet.HEADER + (4 if "vlan_tci" in outer else 0)
    if outer["eth_type"] == 0x0800 and frame[ip] == 0x45:
        l4 = ip + 20
    elif outer["eth_type"] == 0x86DD and frame[ip] >> 4 == 6 and frame[ip + 6] == protocol:
        l4 = ip + 40
    else:
        return None
    if protocol == _GRE:
        found = _look_into_gre(frame, l4)
    elif port and port in (VXLAN_PORT, *ports):
        found = _look_into_vxlan(frame, l4 + _UDP_HEADER)
    elif port == _GENEVE_PORT:
        found = _look_into_geneve(frame, l4 + _UDP_HEADER, kinds)
    else:
        return None
    if found is None or len(frame) < found.at + packet.HEADER:
        return None
    tunnel = found.tunnel | {
        "tun_src": outer.get("ip_src", 0),
        "tun_dst": outer.get("ip_dst", 0),
        "tun_tos": outer.get("ip_tos", 0),
        "tun_ttl": outer.get("ip_ttl", 0),
    }
    if protocol == _UDP:
        tunnel |= {"tun_flags": TUN_CSUM if any(frame[l4 + 6 : l4 + 8]) else 0, "tun_tp_dst": port}
    return Inside(found.at, {name: value for name, value in tunnel.items() if value})


def _look_into_vxlan(frame: bytes, at: int) -> Inside | None:
    """Flags other than the one that says that there is a network identifier do not count."""
    if len(frame) < at + _VXLAN_HEADER or not frame[at] & _ID_IS_THERE:
        return None
    return Inside(at + _VXLAN_HEADER, {"tun_id": int.from_bytes(frame[at + 4 : at + 7], "big")})


def _look_into_geneve(frame: bytes, at: int, kinds: Mapping[int, bytes]) -> Inside | None:
    """A frame, and no control packet. Of the options, the first eight are looked at for one of *kinds*."""
    if len(frame) < at + _GENEVE_HEADER:
        return None
    first, flags, inside = struct.unpack_from("!BBH", frame, at)
    if first >> 6 or flags & 0x80 or inside != _FRAME_INSIDE:
        return None
    options = at + _GENEVE_HEADER
    end = options + 4 * (first & 0x3F)
    fields = {"tun_id": int.from_bytes(frame[at + 4 : at + 7], "big"), "tun_opts_len": end - options}
    for _ in range(_LOOK):
        if options + 8 > min(end, len(frame)):
            break
        header = frame[options : options + 4]
        number = option_kind(header, kinds)
        if number:
            fields |= {"tun_option_kind": number, "tun_option": int.from_bytes(frame[options + 4 : options + 8], "big")}
            break
        options += 4 + 4 * (header[3] & 0x1F)
    return Inside(end, fields)


def option_kind(header: bytes, kinds: Mapping[int, bytes]) -> int:
    """The least number of an option with this *header*, whose reserved bits do not count; 0: *kinds* has it not."""
    plain = header[:3] + bytes((header[3] & 0x1F,))
    return min((number for number, known in kinds.items() if known == plain and any(known)), default=0)


def _look_into_gre(frame: bytes, at: int) -> Inside | None:
    """A frame behind a header that may have a checksum, which nobody verifies, a key and a sequence number."""
    if len(frame) < at + 4:
        return None
    flags, inside = struct.unpack_from("!HH", frame, at)
    if flags & ~0xB000 or inside != _FRAME_INSIDE:
        return None
    checksum, key, sequence = (4 if flags & bit else 0 for bit in (0x8000, 0x2000, 0x1000))
    start = at + 4 + checksum
    fields = {
        "tun_id": int.from_bytes(frame[start : start + key], "big"),
        "tun_flags": TUN_CSUM if checksum else 0,
    }
    return Inside(start + key + sequence, fields)


def fields_of(tunnel: SetTunnel, port: int = 0, kinds: Mapping[int, bytes] = _NO_KINDS) -> Fields:
    """The tunnel's fields of a packet that the kernel took out of *tunnel*, by a device with this UDP *port*; of its
    options, the first counts if it is of *kinds*."""
    fields = {
        "tun_id": tunnel.tun_id,
        "tun_src": int.from_bytes(tunnel.src, "big"),
        "tun_dst": int.from_bytes(tunnel.dst, "big"),
        "tun_tos": tunnel.tos,
        "tun_ttl": tunnel.ttl,
        "tun_flags": (TUN_CSUM if tunnel.csum else 0)
        | (TUN_KEY if tunnel.keyed else 0)
        | (TUN_DONT_FRAGMENT if tunnel.dont_fragment else 0),
        "tun_tp_dst": port,
        "tun_opts_len": len(tunnel.options),
    }
    number = option_kind(tunnel.options[:4], kinds) if len(tunnel.options) >= 8 else 0
    if number:
        fields |= {"tun_option_kind": number, "tun_option": int.from_bytes(tunnel.options[4:8], "big")}
    return {name: value for name, value in fields.items() if value}


def inner_fields(frame: bytes, tunnel: Fields, *, ovs: bool = False) -> Fields:
    """What rules that match on a tunnel see of the inner *frame*; *ovs* as for :func:`.packet.parse`."""
    parsed = packet.parse(frame, ovs=ovs)
    inner = {name: value for name, value in parsed.items() if not name.startswith(_NOT_INSIDE)}
    return inner | tunnel


def source_port(flow_hash: int) -> int:
    """The outer UDP source port for a flow inside (udp_flow_src_port() in include/net/udp.h)."""
    first, last = _SOURCE_PORTS
    mixed = (flow_hash ^ flow_hash << 16) & 0xFFFF_FFFF
    return first + (mixed * (last - first) >> 32)


def encapsulate(frame: bytes, into: Encap, flow_hash: int) -> bytes:
    """*frame* in the tunnel *into*, tags inside. IPv4: no identification, may be fragmented.

    The UDP checksum is 0, over IPv6 too (RFC 6935), whatever the rule asks for: mlx5 gives the NIC headers whose
    checksum is 0 and looks at no flag of the tunnel's (mlx5e_gen_ip_tunnel_header_vxlan in en/tc_tun_vxlan.c); the NIC
    fills in lengths, source port and IPv4's checksum. Nor has GRE a checksum. Geneve's flags are 0, though an option
    may be critical, as mlx5 leaves them for what comes by TC.
    """
    protocol = _UDP
    match into.protocol:
        case "vxlan":
            content = struct.pack("!B3xI", _ID_IS_THERE, into.tun_id << 8) + frame
        case "geneve":
            start = struct.pack("!BBHI", len(into.options) // 4, 0, _FRAME_INSIDE, into.tun_id << 8)
            content = start + into.options + frame
        case _:
            protocol = _GRE
            key = into.tun_id.to_bytes(4, "big") if into.keyed else b""
            content = struct.pack("!HH", 0x2000 if key else 0, _FRAME_INSIDE) + key + frame
    if protocol == _UDP:
        content = struct.pack("!4H", source_port(flow_hash), into.tp_dst, _UDP_HEADER + len(content), 0) + content
    if len(into.dst) == 4:
        ethertype = 0x0800
        start = struct.pack("!BBHHHBB", 0x45, into.tos, 20 + len(content), 0, 0, into.ttl, protocol)
        addresses = into.src + into.dst
        ip = start + struct.pack("!H", checksum(start + addresses)) + addresses
    else:
        ethertype = 0x86DD
        ip = struct.pack("!IHBB", 6 << 28 | into.tos << 20, len(content), protocol, into.ttl) + into.src + into.dst
    return into.eth_dst + into.eth_src + struct.pack("!H", ethertype) + ip + content


def decapsulate(frame: bytes, ports: Collection[int] = ()) -> bytes:
    """What is inside *frame*; *frame* itself where nothing is. *ports* as for :func:`look_into`."""
    inside = look_into(frame, ports)
    return frame[inside.at :] if inside else frame
