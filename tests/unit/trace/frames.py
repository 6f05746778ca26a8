# SPDX-License-Identifier: Apache-2.0
"""Frames to trace."""

from __future__ import annotations

import struct

ONE, OTHER = bytes.fromhex("fa163e000001"), bytes.fromhex("fa163e000002")


def ipv4(protocol: int, payload: bytes, source: str = "10.57.0.1", destination: str = "10.57.0.2") -> bytes:
    """A frame with an IPv4 packet."""
    ends = b"".join(bytes(map(int, end.split("."))) for end in (source, destination))
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + ends
    return OTHER + ONE + b"\x08\x00" + header + payload


def echo(kind: int, sequence: int, identifier: int = 7) -> bytes:
    """A frame with an echo request (8) or reply (0)."""
    ends = ("10.57.0.1", "10.57.0.2") if kind == 8 else ("10.57.0.2", "10.57.0.1")
    return ipv4(1, struct.pack(">BBHHH", kind, 0, 0, identifier, sequence) + bytes(56), *ends)


def tcp(flags: int = 2, checksum: int = 0) -> bytes:
    """A frame with a TCP segment to port 80."""
    return ipv4(6, struct.pack(">HHIIBBHHH", 40000, 80, 1, 0, 0x50, flags, 64, checksum, 0))


def tagged(frame: bytes, vid: int) -> bytes:
    """A frame in a VLAN."""
    return frame[:12] + struct.pack(">HH", 0x8100, vid) + frame[12:]
