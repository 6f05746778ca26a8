# SPDX-License-Identifier: Apache-2.0
"""VXLAN of one frame: octets by hand, what counts as being in a tunnel, and the program's template beside it."""

from __future__ import annotations

import struct

import pytest

from asap2.nic.rules import Encap
from asap2.nic.silicon.encaps import outer
from asap2.nic.silicon.tunnel import decapsulate, encapsulate, look_into, source_port

INNER = bytes.fromhex("020000000001 020000000002 88b5") + b"inside"
SRC, DST = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")
OVER_4 = Encap("vxlan", 0x4D, bytes([172, 16, 0, 1]), bytes([172, 16, 0, 2]), 0xB8, 64, eth_src=SRC, eth_dst=DST)
OVER_6 = Encap(
    "vxlan", 0xFFFFFF, b"\xfd" + bytes(14) + b"\1", b"\xfd" + bytes(14) + b"\2", 0xB8, 64, eth_src=SRC, eth_dst=DST
)


def test_ipv4_headers_octet_by_octet() -> None:
    assert (
        encapsulate(INNER, OVER_4, 0)
        == bytes.fromhex(
            "0200000000bb 0200000000aa 0800"
            "45b8 0038 0000 0000 4011 21da ac100001 ac100002"
            "8000 12b5 0024 0000"
            "08000000 00004d00"
        )
        + INNER
    )


def test_ipv6_headers_octet_by_octet() -> None:
    assert (
        encapsulate(INNER, OVER_6, 0)
        == bytes.fromhex(
            "0200000000bb 0200000000aa 86dd"
            "6b800000 0024 11 40 fd000000000000000000000000000001 fd000000000000000000000000000002"
            "8000 12b5 0024 0000"
            "08000000 ffffff00"
        )
        + INNER
    )


@pytest.mark.parametrize("into", [OVER_4, OVER_6])
def test_the_template_of_the_program_is_the_same_but_for_lengths_port_and_checksum(into: Encap) -> None:
    template, made = outer(into), encapsulate(INNER, into, 0)
    filled = {template.l4, template.l4 + 1, template.l4 + 4, template.l4 + 5}
    filled |= {template.ip + at for at in ((2, 3, 10, 11) if len(into.dst) == 4 else (4, 5))}
    different = {at for at, octet in enumerate(template.header) if octet != made[at]}
    assert made[len(template.header) :] == INNER
    assert different <= filled


def test_source_ports_are_in_the_default_range_and_spread() -> None:
    ports = {source_port(flow_hash) for flow_hash in range(0, 1 << 32, 0x00FF_FFF1)}
    assert min(ports) >= 32768
    assert max(ports) < 60999
    assert len(ports) > 200


@pytest.mark.parametrize("into", [OVER_4, OVER_6])
def test_what_is_inside_comes_out_and_its_tunnel_is_known(into: Encap) -> None:
    frame = encapsulate(INNER, into, 1)
    inside = look_into(frame)
    assert inside is not None
    assert inside.tunnel == {
        "tun_id": into.tun_id,
        "tun_src": int.from_bytes(into.src, "big"),
        "tun_dst": int.from_bytes(into.dst, "big"),
        "tun_tos": 0xB8,
        "tun_ttl": 64,
        "tun_tp_dst": 4789,
    }
    assert decapsulate(frame) == INNER
    assert decapsulate(frame[:12] + b"\x81\0\0\5" + frame[12:]) == INNER


def _changed(frame: bytes, at: int, octets: bytes) -> bytes:
    return frame[:at] + octets + frame[at + len(octets) :]


V4, V6 = encapsulate(INNER, OVER_4, 1), encapsulate(INNER, OVER_6, 1)
NOT_IN_A_TUNNEL = {
    "two tags": V4[:12] + b"\x81\0\0\5" * 2 + V4[12:],
    "another port": _changed(V4, 36, struct.pack(">H", 8472)),
    "a first fragment": _changed(V4, 20, b"\x20\0"),
    "a later fragment": _changed(V4, 20, b"\0\1"),
    "IPv4 options": _changed(V4, 14, b"\x46")[:34] + bytes(4) + V4[34:],
    "IPv6 of another version": _changed(V6, 14, b"\x40"),
    "an IPv6 extension header": _changed(V6, 20, b"\x3c")[:54] + b"\x11\0" + bytes(6) + V6[54:],
    "no network identifier": _changed(V4, 42, b"\0"),
    "no whole Ethernet header inside": V4[:63],
    "TCP": _changed(V4, 23, b"\6"),
}


@pytest.mark.parametrize("name", NOT_IN_A_TUNNEL)
def test_what_is_an_ordinary_packet(name: str) -> None:
    frame = NOT_IN_A_TUNNEL[name]
    assert look_into(frame) is None
    assert decapsulate(frame) == frame


def test_other_ports_are_looked_into_where_they_are_known() -> None:
    frame = NOT_IN_A_TUNNEL["another port"]
    inside = look_into(frame, (80, 8472))
    assert inside is not None
    assert inside.tunnel["tun_tp_dst"] == 8472
    assert decapsulate(frame, (80, 8472)) == INNER
    assert decapsulate(V4, (80,)) == INNER
    assert look_into(_changed(V4, 36, bytes(2)), (0,)) is None


def test_other_flags_reserved_octets_and_lengths_do_not_count() -> None:
    frame = _changed(_changed(V4, 42, b"\xff\1\2\3"), 38, b"\0\0\x12\x34")
    assert decapsulate(_changed(frame, 49, b"\x99")) == INNER
