# SPDX-License-Identifier: Apache-2.0
"""Headers of test packets."""

from __future__ import annotations

import socket
import struct


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of *data*."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def ipv4(src: str, dst: str, proto: int, payload: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    """An IPv4 packet; *fragment* is the word of flags and offset."""
    addresses = socket.inet_aton(src) + socket.inet_aton(dst)
    length = 20 + len(options)
    start = struct.pack(">BBHHHBB", 0x40 | length // 4, 0, length + len(payload), 1, fragment, 64, proto)
    return start + struct.pack(">H", checksum(start + b"\0\0" + addresses + options)) + addresses + options + payload


def ipv6(src: bytes, dst: bytes, proto: int, payload: bytes, *, flow: int = 6 << 28, hops: int = 64) -> bytes:
    """An IPv6 packet; *flow* is its first word."""
    return struct.pack(">IHBB", flow, len(payload), proto, hops) + src + dst + payload


def ipv6_option(following: int, units: int, payload: bytes) -> bytes:
    """A hop-by-hop, routing or destination header of 8 and *units* times 8 bytes."""
    return bytes([following, units]) + bytes(6 + 8 * units) + payload


def ipv6_fragment(following: int, offset: int, payload: bytes) -> bytes:
    """A fragment header; *offset* is the word of offset and flags."""
    return struct.pack(">BBHI", following, 0, offset, 7) + payload


def udp(src_port: int, dst_port: int, payload: bytes) -> bytes:
    """A UDP datagram without a checksum."""
    return struct.pack(">HHHH", src_port, dst_port, 8 + len(payload), 0) + payload


def tcp_with_pseudo_checksum(src: str, dst: str, src_port: int, dst_port: int, payload: bytes) -> bytes:
    """A TCP segment whose checksum is to be completed by a device."""
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack(">BBH", 0, 6, 20 + len(payload))
    partial = ~checksum(pseudo) & 0xFFFF
    return struct.pack(">HHIIBBHHH", src_port, dst_port, 1000, 0, 5 << 4, 0x10, 512, partial, 0) + payload


def tcp_is_right(packet: bytes) -> bool:
    """Whether the TCP checksum of an IPv4 packet without options is right."""
    segment = packet[20 : int.from_bytes(packet[2:4], "big")]
    return checksum(packet[12:20] + struct.pack(">BBH", 0, 6, len(segment)) + segment) == 0
