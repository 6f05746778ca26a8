# SPDX-License-Identifier: Apache-2.0
"""Outer headers and tunnel metadata in the program's memory, and what connection tracking and sampling are asked for.

The program copies the headers in front of a packet and fills in lengths, source port and checksum; so another tunnel
is another protocol in :mod:`asap2.nic.tunnels`, no other mechanism. Formats: RFC 791, 8200, 768.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from asap2.nic.layer_actions import PushNsh
from asap2.nic.rules import Ct, CtHardware, Encap, Psample, SetTunnel
from asap2.nic.silicon import abi, samples, trackings
from asap2.nic.silicon.indices import Indices
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.tunnels import BY_NUMBER, PROTOCOLS, Header, Ip

_ETHERNET, _UDP = 14, 8
_IPPROTO_UDP = 17
_HEADERS, _METADATA, _NSH, _TRACKING, _HARDWARE, _SAMPLING = 1, 2, 3, 4, 5, 6
"""The low octet of a slot's kind; above it is the protocol's number, where there are headers of one."""
_NSH_TYPE = b"\x89\x4f"
_META = struct.Struct(f"=Q16s16sBBBBHBB{abi.SET_OPTIONS_MAX}s")

Kept = Encap | SetTunnel | PushNsh | Ct | CtHardware | Psample
"""Actions that are kept in slots."""


class Outer(NamedTuple):
    """Headers that stand in front of a packet; where the IP header begins and where what follows it, in bytes; whether
    that is a UDP header."""

    header: bytes
    ip: int
    l4: int
    has_udp: bool


def _to_ip(encap: Encap, protocol: int) -> bytes:
    """Ethernet and IP; lengths and checksum are 0."""
    if len(encap.dst) == 4:
        ethertype = 0x0800
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, encap.tos, 0, 0, 0, encap.ttl, protocol, 0, encap.src, encap.dst)
    else:
        ethertype = 0x86DD
        ip = struct.pack("!IHBB16s16s", 6 << 28 | encap.tos << 20, 0, protocol, encap.ttl, encap.src, encap.dst)
    return encap.eth_dst + encap.eth_src + struct.pack("!H", ethertype) + ip


def outer(encap: Encap) -> Outer:
    """The headers of *encap*; lengths, checksums and the UDP source port are 0."""
    protocol = PROTOCOLS[encap.protocol]
    header = protocol.build(Header(encap.tun_id if encap.keyed else None, encap.options))
    l4 = _ETHERNET + (20 if len(encap.dst) == 4 else 40)
    if isinstance(protocol.over, Ip):
        return Outer(_to_ip(encap, protocol.over.protocol) + header, _ETHERNET, l4, has_udp=False)
    udp = struct.pack("!4H", 0, encap.tp_dst, 0, 0)
    return Outer(_to_ip(encap, _IPPROTO_UDP) + udp + header, _ETHERNET, l4, has_udp=True)


def metadata(tunnel: SetTunnel) -> bytes:
    """Tunnel metadata as it lies in a slot."""
    packed = _META.pack(
        tunnel.tun_id,
        tunnel.src.rjust(16, b"\0"),
        tunnel.dst.rjust(16, b"\0"),
        tunnel.tos,
        tunnel.ttl,
        len(tunnel.dst) == 16,
        tunnel.csum,
        tunnel.dont_fragment,
        not tunnel.keyed,
        len(tunnel.options),
        tunnel.options,
    )
    return packed.ljust(abi.OUTER_MAX, b"\0")


class Encaps:
    """A slot for each tunnel that an action list goes into."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._slots = Indices(len(layout.encaps), "tunnels", layout.grace_period)

    def take(self, action: Kept) -> int:
        """A slot that holds *action*. OSError ENOSPC."""
        slot = self._slots.take()
        record = self._layout.encaps[slot]
        if isinstance(action, Encap):
            headers = outer(action)
            record.len, record.ip, record.l4 = len(headers.header), headers.ip, headers.l4
            record.has_udp = headers.has_udp
            record.kind = _HEADERS | PROTOCOLS[action.protocol].number << 8
            data = headers.header
        elif isinstance(action, PushNsh):
            data = bytes(12) + _NSH_TYPE + action.header
            record.len, record.ip, record.l4, record.kind = len(data), 0, 0, _NSH
        elif isinstance(action, Ct | CtHardware):
            record.len = record.ip = record.l4 = 0
            record.kind = _HARDWARE if isinstance(action, CtHardware) else _TRACKING
            policy = self._layout.timeouts.number(action.timeout) if isinstance(action, Ct) else 0
            self._layout.timeouts.used(policy, 1)
            data = trackings.pack(action, policy)
        elif isinstance(action, Psample):
            record.len = record.ip = record.l4 = 0
            record.kind = _SAMPLING
            data = samples.pack(action)
        else:
            record.len = record.ip = record.l4 = 0
            record.kind = _METADATA
            data = metadata(action)
        record.header[:] = data.ljust(abi.OUTER_MAX, b"\0")
        return slot

    def give(self, slot: int) -> None:
        """Give a slot back."""
        self._layout.timeouts.used(self._policy(slot), -1)
        self._slots.give(slot)

    def holds(self, slot: int) -> bool:
        """Whether there is something in a slot."""
        return bool(0 < slot < len(self._layout.encaps) and self._layout.encaps[slot].kind)

    def read(self, slot: int) -> Kept:
        """What a slot holds."""
        record = self._layout.encaps[slot]
        data = bytes(record.header)
        if record.kind == _METADATA:
            tun_id, src, dst, tos, ttl, ipv6, csum, dont_fragment, without, length, options = _META.unpack_from(data)
            start = 0 if ipv6 else 12
            flags = bool(csum), bool(dont_fragment)
            return SetTunnel(tun_id, src[start:], dst[start:], tos, ttl, 0, *flags, options[:length], not without)
        if record.kind == _SAMPLING:
            return samples.unpack(data)
        if record.kind in (_TRACKING, _HARDWARE):
            timeout = self._layout.timeouts.name(self._policy(slot))
            return trackings.unpack(data, hardware=record.kind == _HARDWARE, timeout=timeout)
        if record.kind == _NSH:
            return PushNsh(data[_ETHERNET : record.len])
        ip, l4 = data[_ETHERNET : record.l4], data[record.l4 : record.len]
        if len(ip) == 20:
            tos, ttl, src, dst = ip[1], ip[8], ip[12:16], ip[16:20]
        else:
            tos, ttl, src, dst = (ip[0] << 4 | ip[1] >> 4) & 0xFF, ip[7], ip[8:24], ip[24:40]
        port = 0
        if record.has_udp:
            (port,) = struct.unpack_from("!H", l4, 2)
            l4 = l4[_UDP:]
        protocol = BY_NUMBER[record.kind >> 8]
        found = protocol.parse(l4)
        header = found[0] if found is not None else Header(None)
        macs = data[6:12], data[:6]
        more = header.options, header.tun_id is not None
        return Encap(protocol.name, header.tun_id or 0, src, dst, tos, ttl, port, *macs, *more)

    def restore(self, used: set[int]) -> None:
        """Take over the slots that action lists name."""
        self._slots.restore(used)
        for slot in used:
            self._layout.timeouts.used(self._policy(slot), 1)

    def _policy(self, slot: int) -> int:
        """The number of the timeout policy that a slot's action names; 0: it names none."""
        record = self._layout.encaps[slot]
        return trackings.policy_of(bytes(record.header)) if record.kind == _TRACKING else 0
