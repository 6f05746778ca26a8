# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch flow keys, against what a real kernel gave and took."""

from __future__ import annotations

import errno
import sys
from dataclasses import replace

import pytest

from asap2.netlink.tables.ovs import ACTIONS
from asap2.netlink.wire import NETLINK_GENERIC, NLA_TYPE_MASK, NetlinkError, attribute, attributes
from asap2.nic.faces.ovs import actions as ovs_actions
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.actions import numbers as action
from asap2.nic.faces.ovs.actions.reading import READERS
from asap2.nic.faces.ovs.extract import extension_headers, extract, tunnel_metadata
from asap2.nic.faces.ovs.key import numbers
from asap2.nic.fields import carried_by, rewritable_in
from asap2.nic.rules import (
    BARE,
    OVS_TABLE,
    TUN_CSUM,
    TUN_DONT_FRAGMENT,
    TUN_GBP,
    TUN_KEY,
    TUN_OAM,
    VLAN_PRESENT,
    CheckLength,
    Clone,
    Drop,
    Goto,
    Masked,
    Match,
    Meter,
    Output,
    Psample,
    Sample,
    Truncate,
)
from asap2.nic.silicon.abi import IN_PORT
from asap2.nic.tunnels.options import GBP
from tests.captures import CAPTURES, messages

CTRL = 0x10
PACKET_MISS = 1
FLOW_GET, UFID = 3, 9


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
    for attrs in upcalls:
        metadata = ovs_key.packet_metadata(ovs_key.packet_attributes(attrs[2]))
        key = extract(attrs[1], metadata)
        assert key is not None
        assert ovs_key.emit(key, key) == attrs[2]


@pytest.mark.parametrize("capture", CAPTURES)
def test_keys_and_masks_come_back_as_the_kernel_gives_them(capture: str) -> None:
    dumped = [attrs for attrs in of_family(capture, "ovs_flow", FLOW_GET) if 1 in attrs and 7 in attrs]
    assert dumped
    for attrs in dumped:
        match = ovs_key.match_of(attrs[1], attrs[7])
        key = match.masked()
        given = key if UFID in attrs else match.key  # a flow without a name is called by its whole key
        assert ovs_key.emit(given, given) == attrs[1]
        assert ovs_key.emit(key, match.mask, is_mask=True) == attrs[7]


Attrs = tuple[tuple[int, bytes], ...]


def packed(*attrs: tuple[int, bytes]) -> bytes:
    return b"".join(attribute(kind, value) for kind, value in attrs)


def matched(key: Attrs, mask: Attrs | None = None) -> Match:
    found = ovs_key.to_match(ovs_key.match_of(packed(*key), None if mask is None else packed(*mask)))
    assert found is not None
    return found


def refused(key: Attrs, mask: Attrs | None = None) -> None:
    with pytest.raises(NetlinkError) as error:
        ovs_key.match_of(packed(*key), None if mask is None else packed(*mask))
    assert error.value.errno == errno.EINVAL


ETHERNET = (numbers.ETHERNET, b"\x02\0\0\0\0\x0a" + b"\x02\0\0\0\0\x0b")
ANY_ETHERNET = (numbers.ETHERNET, bytes(12))
IPV4_TYPE, EXACT_TYPE = (numbers.ETHERTYPE, b"\x08\0"), (numbers.ETHERTYPE, b"\xff\xff")
TCP = (numbers.TCP, b"\x03\xe8\0\x50"), (numbers.TCP_FLAGS, b"\0\x10")


def ipv4(protocol: int = 6, tos: int = 0, frag: int = 0) -> tuple[int, bytes]:
    return numbers.IPV4, b"\x0a\0\0\1\x0a\0\0\2" + bytes((protocol, tos, 64, frag))


def test_an_untagged_flow_does_not_match_a_tagged_packet() -> None:
    match = matched((ETHERNET, IPV4_TYPE, ipv4(), *TCP))
    assert match.vlan_tci == Masked(0, 0xFFFF)
    assert match.eth_dst == Masked(0x02000000000B, 0xFFFFFFFFFFFF)


def test_a_tag_is_matched_with_its_present_bit() -> None:
    inner = packed(IPV4_TYPE, ipv4(), *TCP)
    tag = (numbers.ETHERTYPE, b"\x81\0"), (numbers.VLAN, b"\x10\x39"), (numbers.ENCAP, inner)
    match = matched((ETHERNET, *tag))
    assert match.vlan_tci == Masked(VLAN_PRESENT | 57, 0xFFFF)
    assert match.vlan_tpid == Masked(0x8100, 0xFFFF)
    assert match.eth_type == Masked(0x0800, 0xFFFF)


def test_a_tag_without_its_present_bit_is_refused() -> None:
    tag = (numbers.ETHERTYPE, b"\x81\0"), (numbers.VLAN, b"\x00\x39"), (numbers.ENCAP, b"")
    refused((ETHERNET, *tag))


@pytest.mark.parametrize(
    "key",
    [
        ((numbers.ETHERNET, b"\0" * 11),),
        (ETHERNET, (numbers.IN_PORT, b"\0" * 4), (numbers.IN_PORT, b"\0" * 4)),
        (ETHERNET, (200, b"")),
        (ETHERNET, (numbers.PACKET_TYPE, bytes(4))),
        (),
        (ETHERNET, (numbers.ETHERTYPE, b"\1\0")),
        (ETHERNET, IPV4_TYPE),
        (ETHERNET, IPV4_TYPE, ipv4()),
        (ETHERNET, IPV4_TYPE, ipv4(frag=3), *TCP),
        (ETHERNET, (numbers.ETHERTYPE, b"\x88\x47"), (numbers.MPLS, b"")),
        (ETHERNET, (numbers.ETHERTYPE, b"\x88\x47"), (numbers.MPLS, bytes(16))),
        (ETHERNET, (numbers.IN_PORT, b"\xff\xff\0\0")),
    ],
)
def test_a_key_that_is_wrong_or_not_whole_is_refused(key: Attrs) -> None:
    refused(key)


@pytest.mark.parametrize(
    "mask",
    [
        (ANY_ETHERNET, ipv4(0xFF, frag=0xFF)),
        (EXACT_TYPE, ipv4(0x0F), (numbers.TCP, b"\xff" * 4)),
        (EXACT_TYPE, (numbers.UDP, b"\xff" * 4)),
    ],
    ids=["any ethertype", "any protocol", "another protocol"],
)
def test_a_mask_on_what_may_not_be_there_is_refused(mask: Attrs) -> None:
    refused((ETHERNET, IPV4_TYPE, ipv4(), *TCP), mask)


def test_a_flow_comes_back_masked() -> None:
    match = ovs_key.match_of(packed(ETHERNET, IPV4_TYPE, ipv4(tos=2), *TCP), packed(EXACT_TYPE, ipv4(6, tos=1)))
    key = match.masked()
    assert key["ip_tos"] == 0
    attrs = dict(ovs_key.walk(ovs_key.emit(key, key)))
    assert attrs[numbers.IPV4][9] == 0
    assert numbers.TCP not in dict(ovs_key.walk(ovs_key.emit({**key, "ip_proto": 0}, key)))


def test_metadata_is_matched() -> None:
    dp_hash = (numbers.DP_HASH, b"\x0c\0\0\0")
    match = matched((ETHERNET, dp_hash, (numbers.SKB_MARK, b"\1\0\0\0")), ((numbers.DP_HASH, b"\x0f\0\0\0"),))
    assert (match.dp_hash, match.skb_mark.mask) == (Masked(12, 15), 0)


def test_labels_neighbours_and_service_headers_are_matched() -> None:
    labels = matched((ETHERNET, (numbers.ETHERTYPE, b"\x88\x47"), (numbers.MPLS, b"\0\x06\x41\x40")))
    assert (labels.mpls_lse1, labels.mpls_labels) == (Masked(0x00064140, 0xFFFF_FFFF), Masked(1, 1))
    base = attribute(numbers.NSH_BASE, b"\1\x3f\1\3\0\0\x7b\xff") + attribute(numbers.NSH_MD1, bytes(15) + b"\7")
    service = matched((ETHERNET, (numbers.ETHERTYPE, b"\x89\x4f"), (numbers.NSH, base)))
    assert (service.nsh_path.value, service.nsh_context.value, service.nsh_ttl.value) == (0x7BFF, 7, 0x3F)
    nd = (numbers.ND, bytes(15) + b"\1" + bytes(5) + b"\2" + bytes(5) + b"\3")
    ipv6 = (numbers.IPV6, bytes(36) + bytes((58, 0, 255, 0)))
    neighbour = matched((ETHERNET, (numbers.ETHERTYPE, b"\x86\xdd"), ipv6, (numbers.ICMPV6, b"\x87\0"), nd))
    assert (neighbour.nd_target.value, neighbour.nd_sll.value, neighbour.nd_tll.value) == (1, 2, 3)


def test_a_packet_without_an_ethernet_header_has_tables_of_its_own() -> None:
    match = ovs_key.match_of(
        packed((numbers.RECIRC_ID, b"\5\0\0\0"), IPV4_TYPE, ipv4(17), (numbers.UDP, bytes(4))), None
    )
    assert ovs_key.table_of(match.masked()) == OVS_TABLE | BARE | 5


PACKETS = [
    "02000000000b02000000000a81000039080045000054c1754000400165310a0000010a00000208007a1a03740001a9db026b000000",
    "02000000000b02000000000a86dd6000000000303aff" + "fe80" + "00" * 13 + "01" + "ff02" + "00" * 13 + "02"
    "8700000000000000" + "fd00" + "00" * 13 + "02" + "0101020000000001",
    "02000000000b02000000000a88470006414000064140000641400006414045000054c1754000",
    "02000000000b02000000000a894f0fc60103000004ff" + "00" * 16 + "02000000000102000000000208004500",
]


@pytest.mark.parametrize("whole", PACKETS)
def test_a_packet_cut_anywhere_has_the_key_of_a_flow_that_matches_it(whole: str) -> None:
    for length in range(14, len(whole) // 2):
        key = extract(bytes.fromhex(whole)[:length], {"in_port": 3})
        if key is None:  # the kernel drops it
            assert whole[24:28] == "894f"
            continue
        emitted = ovs_key.emit(key, key)
        if key["eth_type"] == 0x8100:
            continue  # cut inside its tag: no flow can match on that either
        if numbers.MPLS in dict(ovs_key.walk(emitted)) and not key.get("mpls_labels"):
            continue  # a stack without an end, which no flow can match on
        again = ovs_key.match_of(emitted, None).key
        assert {name: value for name, value in again.items() if value} == {
            name: value for name, value in key.items() if value and name != "cvlan_tpid"
        }


def test_a_later_fragment_is_of_the_protocol_fragment() -> None:
    fragment = bytes((58, 0, 0, 9, 0, 0, 0, 1))
    frame = bytes(12) + b"\x86\xdd" + b"\x60\0\0\0\0\x10\x2c\x40" + bytes(32) + fragment + bytes(8)
    key = extract(frame, {})
    assert key is not None
    assert (key["ip_proto"], key["ip_frag"]) == (44, numbers.FRAG_LATER)


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ([6], 0),
        ([0, 6], 0x40),
        ([60, 43, 44, 6], 0x8 | 0x20 | 0x10),
        ([43, 43, 6], 0x20 | 0x80 | 0x100),
        ([44, 0, 59], 0x10 | 0x100 | 0x1),
    ],
)
def test_extension_headers_are_told(headers: list[int], told: int) -> None:
    rest = b"".join(bytes((following,)) + bytes(7) for following in headers[1:])
    assert extension_headers(bytes(6) + bytes((headers[0], 64)) + bytes(32) + rest) == told


def tunnelled(*attrs: tuple[int, bytes]) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    return ETHERNET, (numbers.TUNNEL, packed(*attrs))


DST, TTL = (numbers.TUN_IPV4_DST, b"\x0a\0\0\1"), (numbers.TUN_TTL, b"\x40")


def test_a_tunnels_flags_are_matched_and_told() -> None:
    csum, dont_fragment = (numbers.TUN_ATTR_CSUM, b""), (numbers.TUN_ATTR_DONT_FRAGMENT, b"")
    mask = (numbers.TUNNEL, packed((numbers.TUN_IPV4_DST, b"\xff" * 4), csum, dont_fragment))
    assert matched(tunnelled(DST, TTL), (mask,)).tun_flags == Masked(0, TUN_CSUM | TUN_DONT_FRAGMENT)
    assert matched(tunnelled(DST, TTL, csum), (mask,)).tun_flags == Masked(TUN_CSUM, TUN_CSUM | TUN_DONT_FRAGMENT)
    told = tunnel_metadata({"tun_dst": 1, "tun_flags": TUN_CSUM | TUN_KEY | TUN_OAM, "tun_tp_dst": 4789}, b"")
    known = numbers.TUN_ID, numbers.TUN_IPV4_DST, numbers.TUN_TTL
    kinds = [kind for kind, _ in attributes(ovs_key.emit_tunnel(told, told["tun_proto"], 0))]
    assert kinds == [*known, numbers.TUN_ATTR_CSUM, numbers.TUN_TP_DST, numbers.TUN_ATTR_OAM]


def test_a_tunnel_without_an_id_has_none_in_its_key() -> None:
    told = tunnel_metadata({"tun_dst": 1, "tun_flags": 0}, b"")
    kinds = [kind for kind, _ in attributes(ovs_key.emit_tunnel(told, told["tun_proto"], 0))]
    assert numbers.TUN_ID not in kinds


def policy(value: int) -> tuple[int, bytes]:
    return numbers.TUN_VXLAN_OPTS, attribute(numbers.VXLAN_GBP, value.to_bytes(4, sys.byteorder))


@pytest.mark.parametrize(("value", "kind"), [(0x0800_0007, Masked(GBP, 0xFF)), (0, Masked(0, 0))])
def test_the_group_policy_of_vxlan_is_matched(value: int, kind: Masked) -> None:
    mask = (numbers.TUNNEL, packed((numbers.TUN_IPV4_DST, b"\xff" * 4), policy(0x0800_FFFF)))
    match = matched(tunnelled(DST, TTL, *([policy(value)] if value else [])), (mask,))
    assert match.tun_option_kind == kind
    assert match.tun_option == Masked(value, 0x0800_FFFF)


@pytest.mark.parametrize(
    ("fields", "options", "kind"),
    [
        ({"tun_flags": TUN_GBP, "tun_tp_dst": 4789}, b"\7\0\0\0", numbers.TUN_VXLAN_OPTS),
        ({"tun_tp_dst": 6081}, b"\1\2\x80\1\0\1\0\2", numbers.TUN_GENEVE_OPTS),
        ({}, b"\1\0\0\0\0\0\0\7\0\0\0\0", numbers.TUN_ERSPAN_OPTS),
    ],
)
def test_options_come_back_as_whose_they_are(fields: ovs_key.Fields, options: bytes, kind: int) -> None:
    told = tunnel_metadata({"tun_dst": 1, **fields}, options)
    given = dict(attributes(ovs_key.emit_tunnel(told, told["tun_proto"], told["tun_opts_len"])))
    assert kind in given
    again: ovs_key.Fields = {}
    ovs_key.read_tunnel(ovs_key.emit_tunnel(told, told["tun_proto"], told["tun_opts_len"]), again)
    assert ovs_key.options_of(again) == options


@pytest.mark.parametrize(
    "wrong",
    [
        [policy(1), (numbers.TUN_GENEVE_OPTS, b"\1\2\x80\0")],
        [(numbers.TUN_VXLAN_OPTS, attribute(numbers.VXLAN_GBP, b"\1"))],
        [(numbers.TUN_VXLAN_OPTS, attribute(9, bytes(4)))],
        [(numbers.TUN_ERSPAN_OPTS, bytes(8))],
    ],
)
def test_wrong_options_are_refused(wrong: list[tuple[int, bytes]]) -> None:
    with pytest.raises(NetlinkError):
        ovs_key.read_tunnel(packed(DST, TTL, *wrong), {})


def test_a_tunnels_id_is_matched_in_the_32_bits_that_it_has() -> None:
    match = matched(tunnelled((numbers.TUN_ID, bytes(7) + b"\x4d"), DST, TTL))
    assert match.tun_id == Masked(77, 0xFFFF_FFFF)
    never = packed(*tunnelled((numbers.TUN_ID, b"\1" + bytes(7)), DST, TTL))
    assert ovs_key.to_match(ovs_key.match_of(never, None)) is None


# ---- actions


def output(port: int) -> bytes:
    return attribute(action.OUTPUT, port.to_bytes(4, "little"))


def word(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "little"))


KEY = {"mac_proto": 1, "eth_type": 0x0800, "ip_proto": 6}


def rule(payload: bytes, key: ovs_key.Fields = KEY) -> tuple[object, ...]:
    steps, ports, meters = ovs_actions.parse(payload, key), {3: 103, 5: 105}, {0: 31, 9: 40}
    return ovs_actions.to_rule(steps, ports.get, lambda _step: 7, meters.__getitem__)


def test_what_is_cut_is_the_next_output_alone_and_a_port_that_is_not_there_counts() -> None:
    trunc = word(action.TRUNC, 100)
    assert rule(trunc + output(3) + output(5)) == (Truncate(100), Output(103), Output(105))
    assert rule(trunc + output(9) + output(5)) == (Truncate(100), Output(ovs_actions.NO_PORT), Output(105))
    assert rule(output(9)) == (Drop(),)


def test_a_meter_decides_about_all_that_follows_and_within_a_copy_about_the_copy() -> None:
    metered = word(action.METER, 9)
    assert rule(metered + output(3)) == (Meter(40), Output(103))
    copied = attribute(action.CLONE, word(action.METER, 0) + output(3))
    assert rule(copied + metered + output(5)) == (Clone((Meter(31), Output(103))), Meter(40), Output(105))


def test_a_sample_for_psample_tells_the_probability_of_all_samples_around_it() -> None:
    psample = attribute(action.PSAMPLE, word(1, 5) + attribute(2, b"cookie"))
    half = attribute(1, (0x7FFF_FFFF).to_bytes(4, "little"))
    sample = attribute(action.SAMPLE, half + attribute(2, psample))
    told = Psample(5, 0xFFFF_FFFF, ifindex=IN_PORT, cookie=b"cookie", probability=True)
    assert rule(psample + output(3)) == (told, Output(103))
    inner = Sample(0x7FFF_FFFF, (replace(told, rate=0x7FFF_FFFF),))
    assert rule(sample + output(3)) == (inner, Output(103))
    twice = attribute(action.SAMPLE, half + attribute(2, sample))
    assert rule(twice) == (Sample(0x7FFF_FFFF, (Sample(0x7FFF_FFFF, (replace(told, rate=0x3FFF_FFFF),)),)),)


@pytest.mark.parametrize(
    ("wrong", "number"),
    [
        (b"", errno.EINVAL),
        (attribute(2, b"cookie"), errno.EINVAL),
        (word(1, 5) + attribute(2, bytes(17)), errno.ERANGE),
        (attribute(1, b"\0\0"), errno.ERANGE),
        (word(1, 5) + word(3, 5), errno.EINVAL),
    ],
)
def test_a_sample_for_psample_needs_a_group_and_has_a_short_cookie(wrong: bytes, number: int) -> None:
    with pytest.raises(NetlinkError) as error:
        rule(attribute(action.PSAMPLE, wrong))
    assert error.value.errno == number


def test_recirculation_before_the_end_takes_a_copy() -> None:
    recirc = word(action.RECIRC, 6)
    assert rule(recirc + output(3)) == (Clone((Goto(OVS_TABLE | 6),)), Output(103))
    assert rule(recirc) == (Goto(OVS_TABLE | 6),)


def test_lists_in_lists_are_translated_and_given_back() -> None:
    within = attribute(1, b"\x64\0") + attribute(2, output(3)) + attribute(3, output(5))
    payload = attribute(action.CHECK_PKT_LEN, within)
    assert rule(payload) == (CheckLength(100, (Output(103),), (Output(105),)),)
    expected = attribute(1, b"\x64\0") + attribute(3, output(5)) + attribute(2, output(3))
    assert ovs_actions.echoed(payload) == attribute(action.CHECK_PKT_LEN, expected)


def ipv4_set(protocol: int, mask: bytes = b"") -> bytes:
    value = bytes(8) + bytes((protocol, 0, 64, 0))
    return attribute(action.SET_MASKED if mask else action.SET, attribute(numbers.IPV4, value + mask))


@pytest.mark.parametrize(
    "payload",
    [
        ipv4_set(0),
        ipv4_set(6, bytes(8) + b"\xff\0\xff\0"),
        ipv4_set(6, bytes(12)),
        attribute(action.SET, attribute(numbers.UDP, bytes(4))),
        attribute(action.SET, attribute(numbers.ND, bytes(28))),
        attribute(action.POP_MPLS, b"\x08\0"),
        attribute(action.PUSH_MPLS, bytes(4) + b"\x08\0\0\0"),
        attribute(action.PUSH_ETH, bytes(12)),
        word(action.TRUNC, 13),
        word(action.DROP, 0) + output(3),
        attribute(action.HASH, b"\2\0\0\0" + bytes(4)),
        attribute(19, bytes(3)),
        output(65535),
    ],
)
def test_an_action_that_is_not_safe_is_refused(payload: bytes) -> None:
    with pytest.raises(NetlinkError) as error:
        ovs_actions.parse(payload, KEY)
    assert error.value.errno == errno.EINVAL


def test_an_unmasked_set_of_what_the_packet_has_is_taken() -> None:
    assert ovs_actions.parse(ipv4_set(6), KEY)


@pytest.mark.parametrize(
    "wrong", [attribute(6, bytes(4)), attribute(15, bytes(2)), attribute(15, bytes(4)) * 2, b"\x06"]
)
def test_a_packet_with_a_key_of_other_lengths_than_the_kernels_is_refused(wrong: bytes) -> None:
    good = attribute(6, b"\x08\0") + attribute(2, bytes(4))
    assert ovs_key.packet_metadata(ovs_key.packet_attributes(good))["mac_proto"] == 0
    with pytest.raises(NetlinkError):
        ovs_key.packet_metadata(ovs_key.packet_attributes(attribute(2, bytes(4)) + wrong))


def test_every_action_of_the_protocol_is_read() -> None:
    assert READERS.keys() == action.LENGTHS.keys() == ACTIONS.fields.keys()


def test_a_set_finds_each_field_where_the_key_has_it() -> None:
    for name in ("ethernet", "ipv4", "ipv6", "tcp", "udp", "mpls"):
        assert rewritable_in(name).items() <= carried_by(name).items()
    assert rewritable_in("sctp") == {"sctp_src": (0, 2), "sctp_dst": (2, 2)}
