# SPDX-License-Identifier: Apache-2.0
"""VXLAN tunnels of one frame: what is in one, into one, out of one. The specification of tunnel.h.

The headers are written here by hand, from RFC 7348, 768, 791, 8200 and 6935, and not shared with :mod:`.encaps` or
:mod:`asap2.nic.tunnels`, so that one is checked by the other.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import NamedTuple

from asap2.nic.checksums import checksum
from asap2.nic.rules import TUN_CSUM, TUN_DONT_FRAGMENT, Encap, SetTunnel
from asap2.nic.silicon import packet
from asap2.nic.silicon.packet import Fields
from asap2.nic.tunnels.vxlan import PORT as VXLAN_PORT

"""What a packet from the wire is looked into by; tunnels to ports that the silicon was not told of are ordinary
packets."""

_UDP = 17
_UDP_HEADER = _VXLAN_HEADER = 8
_ID_IS_THERE = 0x08
_SOURCE_PORTS = (32768, 60999)
"""The kernel's ip_local_port_range, by default."""

_NOT_INSIDE = ("arp_", "nd_", "mpls_", "nsh_")
"""What cannot be matched on in a tunnel."""


class Inside(NamedTuple):
    """A packet in a tunnel: where in the frame it begins, and the tunnel's fields (``tun_*``) that are not 0."""

    at: int
    tunnel: Fields


def look_into(frame: bytes, ports: Collection[int] = ()) -> Inside | None:
    """What is inside, or ``None``: then it is an ordinary packet. *ports* are those that VXLAN comes to besides 4789.

    There may be one outer tag. The outer IPv4 header has no options, the IPv6 header no extensions; it is not a
    fragment. Flags other than the one that says that there is a network identifier do not count, nor do lengths. An
    Ethernet header fits in.
    """
    outer = packet.parse(frame)
    port = outer.get("l4_dst", 0)
    if outer.get("ip_proto") != _UDP or not port or port not in (VXLAN_PORT, *ports):
        return None
    if "ip_frag" in outer or "cvlan_tci" in outer:
        return None
    ip = packet.HEADER + (4 if "vlan_tci" in outer else 0)
    if outer["eth_type"] == 0x0800 and frame[ip] == 0x45:
        udp = ip + 20
    elif outer["eth_type"] == 0x86DD and frame[ip] >> 4 == 6 and frame[ip + 6] == _UDP:
        udp = ip + 40
    else:
        return None
    vxlan = udp + _UDP_HEADER
    at = vxlan + _VXLAN_HEADER
    if len(frame) < at + packet.HEADER or not frame[vxlan] & _ID_IS_THERE:
        return None
    tunnel = {
        "tun_id": int.from_bytes(frame[vxlan + 4 : vxlan + 7], "big"),
        "tun_src": outer.get("ip_src", 0),
        "tun_dst": outer.get("ip_dst", 0),
        "tun_tos": outer.get("ip_tos", 0),
        "tun_ttl": outer.get("ip_ttl", 0),
        "tun_flags": TUN_CSUM if any(frame[udp + 6 : udp + 8]) else 0,
        "tun_tp_dst": port,
    }
    return Inside(at, {name: value for name, value in tunnel.items() if value})


def fields_of(tunnel: SetTunnel, port: int = 0) -> Fields:
    """The tunnel's fields of a packet that the kernel took out of *tunnel*, by a device with this UDP *port*."""
    fields = {
        "tun_id": tunnel.tun_id,
        "tun_src": int.from_bytes(tunnel.src, "big"),
        "tun_dst": int.from_bytes(tunnel.dst, "big"),
        "tun_tos": tunnel.tos,
        "tun_ttl": tunnel.ttl,
        "tun_flags": (TUN_CSUM if tunnel.csum else 0) | (TUN_DONT_FRAGMENT if tunnel.dont_fragment else 0),
        "tun_tp_dst": port,
    }
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
    fills in lengths, source port and IPv4's checksum.
    """
    vxlan = struct.pack("!B3xI", _ID_IS_THERE, into.tun_id << 8) + frame
    udp = struct.pack("!4H", source_port(flow_hash), into.tp_dst, _UDP_HEADER + len(vxlan), 0) + vxlan
    if len(into.dst) == 4:
        ethertype = 0x0800
        start = struct.pack("!BBHHHBB", 0x45, into.tos, 20 + len(udp), 0, 0, into.ttl, _UDP)
        addresses = into.src + into.dst
        ip = start + struct.pack("!H", checksum(start + addresses)) + addresses
    else:
        ethertype = 0x86DD
        ip = struct.pack("!IHBB", 6 << 28 | into.tos << 20, len(udp), _UDP, into.ttl) + into.src + into.dst
    return into.eth_dst + into.eth_src + struct.pack("!H", ethertype) + ip + udp


def decapsulate(frame: bytes, ports: Collection[int] = ()) -> bytes:
    """What is inside *frame*; *frame* itself where nothing is. *ports* as for :func:`look_into`."""
    inside = look_into(frame, ports)
    return frame[inside.at :] if inside else frame
