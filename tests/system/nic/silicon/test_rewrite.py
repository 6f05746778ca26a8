# SPDX-License-Identifier: Apache-2.0
"""Header rewrite by the program is what :mod:`asap2.nic.silicon.rewrite` says, checksums included."""

from __future__ import annotations

import struct

import pytest

from asap2.nic.fields import FIELD_BITS
from asap2.nic.rules import Masked, Match, Output, Rule, SetField
from asap2.nic.silicon.rewrite import rewrite
from tests.system.nic.silicon.conftest import MAC, VF1, VF2, Nic
from tests.system.nic.silicon.network import ethernet
from tests.system.nic.silicon.packets import checksum, ipv4, ipv6

SRC6, DST6 = bytes(15) + b"\1", bytes(15) + b"\2"
FIELDS = ("eth_dst", "eth_src", "ip_src", "ip_dst", "ip_tos", "ip_ttl", "l4_src", "l4_dst")


def udp(source: bytes, destination: bytes, payload: bytes) -> bytes:
    """A datagram from port 7 to 9 with its checksum."""
    length = 8 + len(payload)
    header = struct.pack(">HHHH", 7, 9, length, 0)
    total = checksum(source + destination + struct.pack(">HBB", length, 0, 17) + header + payload)
    return header[:6] + struct.pack(">H", total) + payload


FRAMES = {
    "ipv4": ethernet(
        MAC[VF2], MAC[VF1], ipv4("10.0.0.1", "10.0.0.2", 17, udp(b"\n\0\0\1", b"\n\0\0\2", b"x" * 40)), 0x0800
    ),
    "ipv6": ethernet(MAC[VF2], MAC[VF1], ipv6(SRC6, DST6, 17, udp(SRC6, DST6, b"x" * 40)), 0x86DD),
    "icmp": ethernet(MAC[VF2], MAC[VF1], ipv4("10.0.0.1", "10.0.0.2", 1, b"\x08\0\0\0" + bytes(60)), 0x0800),
}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("kind", FRAMES)
def test_a_field_is_rewritten_and_every_checksum_is_right(lasting_nic: Nic, kind: str, name: str) -> None:
    nic = lasting_nic
    frame, bits = FRAMES[kind], FIELD_BITS[name]
    if name.startswith("ip_") and kind != "ipv6":
        bits = min(bits, 32)
    to = Masked(0x1234_5678_9ABC_DEF0_1234_5678_9ABC_DEF0 >> 8 & (1 << bits) - 1, (1 << bits) - 1)
    handle = nic.pipeline.add(Rule(0, VF1, 1, Match(), (SetField(name, to), Output(VF2))))
    try:
        received = nic.tap(VF2)
        nic.tap(VF1).send(frame)
        got = received.receive()
    finally:
        nic.pipeline.remove(handle)
    assert got == rewrite(frame, SetField(name, to))
    if kind != "ipv6":
        assert checksum(got[14:34]) == 0
    if kind == "ipv4":
        assert checksum(got[26:34] + struct.pack(">BBH", 0, 17, 48) + got[34:82]) == 0
