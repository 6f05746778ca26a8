# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch flow keys, against what a real kernel gave and took."""

from __future__ import annotations

import errno

import pytest

from asap2.netlink.wire import NETLINK_GENERIC, NLA_TYPE_MASK, NetlinkError, attribute, attributes
from asap2.nic.kernel import ovs_key
from asap2.nic.kernel.ovs_extract import extract, tunnel
from asap2.nic.rules import TUN_CSUM, TUN_DONT_FRAGMENT, TUN_OAM, VLAN_PRESENT, Masked
from tests.captures import CAPTURES, messages

CTRL = 0x10
PACKET_MISS = 1
UNSERVED = (
    ovs_key.IPV6_EXTHDRS,
    ovs_key.TUNNEL,
    ovs_key.MPLS,
    ovs_key.CT_ORIG_TUPLE_IPV4,
    ovs_key.CT_ORIG_TUPLE_IPV6,
    ovs_key.NSH,
)
FLOW_GET = 3


def family(capture: str, name: str) -> int:
    for message in messages(capture, NETLINK_GENERIC):
        if message.type == CTRL and message.payload[0] == 1:
            attrs = {kind & NLA_TYPE_MASK: value for kind, value in attributes(message.payload[4:])}
            if attrs.get(2, b"").rstrip(b"\0") == name.encode():
                return int.from_bytes(attrs[1], "little")
    raise AssertionError(f"{capture} does not resolve {name}")


def of_family(capture: str, name: str, cmd: int) -> list[dict[int, bytes]]:
    number = family(capture, name)
    return [
        {kind & NLA_TYPE_MASK: value for kind, value in attributes(message.payload[8:])}
        for message in messages(capture, NETLINK_GENERIC)
        if message.type == number and message.payload[0] == cmd
    ]


@pytest.mark.parametrize("capture", CAPTURES)
def test_the_key_of_each_upcall_is_the_one_that_the_kernel_gave(capture: str) -> None:
    upcalls = [attrs for attrs in of_family(capture, "ovs_packet", PACKET_MISS) if 2 in attrs and 1 in attrs]
    assert len(upcalls) >= 5
    compared = 0
    for attrs in upcalls:
        level = ovs_key.parse(attrs[2])
        if any(level.attrs.get(kind, b"\0").strip(b"\0") for kind in (ovs_key.PRIORITY, ovs_key.SKB_MARK)):
            continue  # the sender's socket had a priority, which a packet alone does not show
        mine = ovs_key.parse(extract(attrs[1], ovs_key.in_port_of(level) or 0))
        for unwanted in (ovs_key.IPV6_EXTHDRS, ovs_key.DP_HASH):
            level.attrs.pop(unwanted, None)
            mine.attrs.pop(unwanted, None)
        assert flat(mine) == flat(level)
        compared += 1
    assert compared >= 2


def flat(level: ovs_key.Level | None) -> object:
    return None if level is None else (level.attrs, flat(level.inner))


@pytest.mark.parametrize("capture", CAPTURES)
def test_keys_and_masks_come_back_as_the_kernel_gives_them(capture: str) -> None:
    dumped = [attrs for attrs in of_family(capture, "ovs_flow", FLOW_GET) if 1 in attrs and 7 in attrs]
    assert dumped
    compared = 0
    for attrs in dumped:
        key, mask = ovs_key.parse(attrs[1]), ovs_key.parse(attrs[7])
        if any(kind in key.attrs for kind in UNSERVED):
            continue
        mask.attrs.pop(ovs_key.TUNNEL, None)
        again = tuple(map(ovs_key.parse, ovs_key.normalized(key, mask)))
        assert flat(again[0]) == flat(key)
        if ovs_key.ETHERTYPE in key.attrs:
            assert flat(again[1]) == flat(mask)
        compared += 1
    assert compared


def key_of(*attrs: tuple[int, bytes]) -> ovs_key.Level:
    return ovs_key.parse(b"".join(attribute(kind, value) for kind, value in attrs))


ETHERNET = (ovs_key.ETHERNET, b"\x02\0\0\0\0\x0a" + b"\x02\0\0\0\0\x0b")


def test_an_untagged_flow_does_not_match_a_tagged_packet() -> None:
    match = ovs_key.to_match(key_of(ETHERNET, (ovs_key.ETHERTYPE, b"\x08\0")), None)
    assert match.vlan_tci == Masked(0, 0xFFFF)
    assert match.eth_dst == Masked(0x02000000000B, 0xFFFFFFFFFFFF)


def test_a_tag_is_matched_with_its_present_bit() -> None:
    inner = attribute(ovs_key.ETHERTYPE, b"\x08\0")
    key = key_of(ETHERNET, (ovs_key.ETHERTYPE, b"\x81\0"), (ovs_key.VLAN, b"\x10\x39"), (ovs_key.ENCAP, inner))
    match = ovs_key.to_match(key, None)
    assert match.vlan_tci == Masked(VLAN_PRESENT | 57, 0xFFFF)
    assert match.vlan_tpid == Masked(0x8100, 0xFFFF)
    assert match.eth_type == Masked(0x0800, 0xFFFF)


def test_a_tag_without_its_present_bit_is_refused() -> None:
    key = key_of(ETHERNET, (ovs_key.ETHERTYPE, b"\x81\0"), (ovs_key.VLAN, b"\x00\x39"), (ovs_key.ENCAP, b""))
    with pytest.raises(NetlinkError) as refused:
        ovs_key.to_match(key, None)
    assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "payload",
    [
        attribute(ovs_key.ETHERNET, b"\0" * 11),
        attribute(ovs_key.IN_PORT, b"\0" * 4) * 2,
        attribute(200, b""),
        attribute(ovs_key.ENCAP, attribute(ovs_key.ENCAP, attribute(ovs_key.ENCAP, b""))),
    ],
    ids=["wrong length", "twice", "unknown", "too deep"],
)
def test_a_malformed_key_is_refused(payload: bytes) -> None:
    with pytest.raises(NetlinkError) as refused:
        ovs_key.parse(payload)
    assert refused.value.errno == errno.EINVAL


def test_a_match_on_connection_tracking_is_refused() -> None:
    key = key_of(ETHERNET, (ovs_key.CT_STATE, b"\x21\0\0\0"))
    with pytest.raises(NetlinkError, match="not supported"):
        ovs_key.to_match(key, None)


@pytest.mark.parametrize("length", range(14, 60))
def test_a_packet_cut_anywhere_still_has_a_key(length: int) -> None:
    packet = bytes.fromhex(
        "02000000000b02000000000a81000039080045000054c1754000400165310a0000010a00000208007a1a03740001a9db026b000000"
    )
    assert ovs_key.parse(extract(packet[:length], 3)).attrs[ovs_key.IN_PORT] == b"\x03\0\0\0"


def test_a_tunnels_flags_are_matched_and_told() -> None:
    def level(*flags: int, dst: bytes = b"\x0a\0\0\1") -> ovs_key.Level:
        inner = attribute(ovs_key.TUN_IPV4_DST, dst) + b"".join(attribute(flag, b"") for flag in flags)
        return ovs_key.parse(attribute(ovs_key.TUNNEL, inner))

    without = ovs_key.to_match(level(), level(ovs_key.TUN_CSUM, ovs_key.TUN_DONT_FRAGMENT, dst=b"\xff" * 4))
    assert without.tun_flags == Masked(0, TUN_CSUM | TUN_DONT_FRAGMENT)
    assert ovs_key.to_match(level(ovs_key.TUN_CSUM), level(ovs_key.TUN_CSUM)).tun_flags == Masked(TUN_CSUM, TUN_CSUM)
    assert not ovs_key.to_match(level(ovs_key.TUN_CSUM), level()).tun_flags.mask
    (_, told), *_ = attributes(tunnel({"tun_dst": 1, "tun_flags": TUN_CSUM | TUN_OAM, "tun_tp_dst": 4789}))
    known = ovs_key.TUN_ID, ovs_key.TUN_IPV4_DST, ovs_key.TUN_TTL
    assert [kind for kind, _ in attributes(told)] == [*known, ovs_key.TUN_CSUM, ovs_key.TUN_TP_DST, ovs_key.TUN_OAM]


def test_a_tunnels_id_is_matched_in_the_32_bits_that_it_has() -> None:
    def level(value: bytes) -> ovs_key.Level:
        return ovs_key.parse(attribute(ovs_key.TUNNEL, attribute(ovs_key.TUN_ID, value)))

    match = ovs_key.to_match(level(bytes(7) + b"\x4d"), level(b"\xff" * 8))
    assert match.tun_id == Masked(77, 0xFFFF_FFFF)
    assert ovs_key.to_match(level(bytes(7) + b"\x4d"), None).tun_id == Masked(77, 0xFFFF_FFFF)
    with pytest.raises(NetlinkError, match="32 bits"):
        ovs_key.to_match(level(b"\1" + bytes(7)), None)
