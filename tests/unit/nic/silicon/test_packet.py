# SPDX-License-Identifier: Apache-2.0
"""What the eSwitch sees in a frame, and what it does to tags."""

from __future__ import annotations

import struct

import pytest

from asap2.nic.rules import VLAN_PRESENT, Frag
from asap2.nic.silicon.packet import CutTagError, modify_vlan, parse, pop_vlan, push_vlan

ADDRESSES = bytes.fromhex("020000000001020000000002")
L2 = {"eth_dst": 0x020000000001, "eth_src": 0x020000000002}
TCP = struct.pack(">HHIIHHHH", 1000, 80, 0, 0, 0x5012, 0, 0, 0)
V4 = {"ip_src": 0x0A000001, "ip_dst": 0x0A000002, "ip_ttl": 64, "ip_tos": 0xB8, "eth_type": 0x0800} | L2


def ipv4(protocol: int, payload: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    """An IPv4 packet in a frame."""
    header = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0xB8, 0, 0, fragment, 64, protocol, 0)
    return ADDRESSES + b"\x08\x00" + header + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + options + payload


def ipv6(following: int, payload: bytes) -> bytes:
    """An IPv6 packet in a frame."""
    return ADDRESSES + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28 | 0xABCDE, 0, following, 9) + bytes(32) + payload


def test_an_untagged_frame_of_an_unknown_type_has_three_fields() -> None:
    assert parse(ADDRESSES + b"\x88\xb5rest") == L2 | {"eth_type": 0x88B5}


def test_a_length_in_the_type_field_is_llc() -> None:
    assert parse(ADDRESSES + b"\x00\x2e" + bytes(46))["eth_type"] == 0x0004


def test_two_tags_are_read_and_the_third_is_the_type() -> None:
    frame = ADDRESSES + bytes.fromhex("88a8 3039 8100 f001 8100 0003 0800")
    assert parse(frame) == L2 | {
        "vlan_tpid": 0x88A8,
        "vlan_tci": 0x2039 | VLAN_PRESENT,
        "cvlan_tci": 0xE001 | VLAN_PRESENT,
        "cvlan_tpid": 0x81,
        "eth_type": 0x8100,
    }


def test_a_tag_that_is_cut_short_is_no_tag() -> None:
    assert parse(ADDRESSES + bytes.fromhex("8100 0039 08")) == L2 | {"eth_type": 0x8100}


def test_tcp_over_ipv4_with_options() -> None:
    expected = V4 | {"ip_proto": 6, "l4_src": 1000, "l4_dst": 80, "tcp_flags": 0x12}
    assert parse(ipv4(6, TCP)) == expected
    assert parse(ipv4(6, TCP, options=b"\1" * 40)) == expected


def test_nothing_is_read_of_a_tcp_header_that_is_cut_short() -> None:
    assert parse(ipv4(6, TCP[:19])) == V4 | {"ip_proto": 6}


@pytest.mark.parametrize("header", [b"\x45" + bytes(18), b"\x44" + bytes(19), b""])
def test_nothing_is_read_of_a_broken_ipv4_header(header: bytes) -> None:
    assert parse(ADDRESSES + b"\x08\x00" + header) == L2 | {"eth_type": 0x0800}


def test_the_first_fragment_has_ports_and_later_ones_have_not() -> None:
    first, later = parse(ipv4(6, TCP, fragment=0x2000)), parse(ipv4(6, TCP, fragment=5))
    assert (first["ip_frag"], first["l4_dst"]) == (Frag.IS_FRAGMENT | Frag.FIRST, 80)
    assert later["ip_frag"] == Frag.IS_FRAGMENT
    assert "l4_dst" not in later
    assert "ip_frag" not in parse(ipv4(6, TCP, fragment=0x4000))


def test_icmp_type_and_code_are_the_ports() -> None:
    fields = parse(ipv4(1, bytes([8, 3]) + bytes(6)))
    assert (fields["l4_src"], fields["l4_dst"]) == (8, 3)
    assert "l4_src" not in parse(ipv4(58, bytes([8, 3]) + bytes(6)))


def test_ipv6_extension_headers_are_skipped() -> None:
    fields = parse(ipv6(0, bytes([60, 1]) + bytes(14) + bytes([6, 0]) + bytes(6) + TCP))
    assert (fields["ip_proto"], fields["l4_dst"], fields["ipv6_label"]) == (6, 80, 0xABCDE)


def test_a_later_ipv6_fragment_has_the_protocol_but_no_ports() -> None:
    fields = parse(ipv6(44, bytes([6, 0, 0, 8]) + bytes(4) + TCP))
    assert (fields["ip_proto"], fields["ip_frag"]) == (6, Frag.IS_FRAGMENT)
    assert "l4_dst" not in fields


def test_the_ninth_ipv6_extension_header_is_not_skipped() -> None:
    assert parse(ipv6(60, (bytes([60, 0]) + bytes(6)) * 8 + bytes([6, 0]) + bytes(6) + TCP))["ip_proto"] == 60


def test_a_header_far_behind_the_network_header_is_not_there() -> None:
    reachable, beyond = (parse(ipv6(60, bytes([6, units]) + bytes(6 + 8 * units) + TCP)) for units in (15, 16))
    assert reachable["l4_dst"] == 80
    assert beyond["ip_proto"] == 6
    assert "l4_dst" not in beyond


def test_a_neighbour_solicitation_has_its_target() -> None:
    target = bytes.fromhex("fe80" + "0" * 27 + "1")
    assert parse(ipv6(58, bytes([135, 0]) + bytes(6) + target))["nd_target"] == int.from_bytes(target, "big")
    assert "nd_target" not in parse(ipv6(58, bytes([135, 0]) + bytes(6) + target[:15]))


def test_arp_is_read_when_it_is_for_ipv4_on_ethernet() -> None:
    content = bytes.fromhex("0001 0800 0604 0002 020000000001 0a000001 020000000002 0a000002")
    assert parse(ADDRESSES + b"\x08\x06" + content) == L2 | {
        "eth_type": 0x0806,
        "ip_proto": 2,
        "arp_sha": 0x020000000001,
        "arp_tha": 0x020000000002,
        "ip_src": 0x0A000001,
        "ip_dst": 0x0A000002,
    }
    assert parse(ADDRESSES + b"\x08\x06" + b"\0\6" + content[2:]) == L2 | {"eth_type": 0x0806}


def test_tags_come_and_go_at_the_outside() -> None:
    plain = ADDRESSES + b"\x88\xb5" + bytes(46)
    one = push_vlan(plain, 0x8100, 57)
    two = push_vlan(one, 0x88A8, 5)
    assert parse(two)["cvlan_tci"] == VLAN_PRESENT | 57
    assert (pop_vlan(two), pop_vlan(one), pop_vlan(plain)) == (one, plain, plain)


def test_modify_keeps_the_dei_bit_and_leaves_an_untagged_frame_alone() -> None:
    plain = ADDRESSES + b"\x88\xb5" + bytes(46)
    assert modify_vlan(push_vlan(plain, 0x8100, 0x1005), 0x88A8, 9, 7) == push_vlan(plain, 0x88A8, 0xF009)
    assert modify_vlan(push_vlan(plain, 0x8100, 5), 0x88A8, 9, 7) == push_vlan(plain, 0x88A8, 0xE009)
    assert modify_vlan(plain, 0x8100, 9, 7) == plain


def test_modify_without_a_priority_keeps_the_packets() -> None:
    plain = ADDRESSES + b"\x88\xb5" + bytes(46)
    assert modify_vlan(push_vlan(plain, 0x8100, 0xB005), 0x8100, 9, None) == push_vlan(plain, 0x8100, 0xB009)


def test_a_tag_that_is_cut_short_cannot_be_popped_nor_become_the_outer_one() -> None:
    cut = ADDRESSES + bytes.fromhex("8100 0039 08")
    for frame in (cut, push_vlan(cut, 0x8100, 1)):
        with pytest.raises(CutTagError):
            pop_vlan(frame)
