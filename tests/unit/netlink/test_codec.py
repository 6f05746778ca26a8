# SPDX-License-Identifier: Apache-2.0
"""The attribute codec: a real kernel's messages to the byte, and what it does with odd ones."""

from __future__ import annotations

import errno
import struct as _struct
from collections import Counter
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.netlink.body import Body
from asap2.netlink.codec import (
    Attrs,
    Table,
    array_of,
    be16,
    flag,
    mac,
    nested,
    nested_by,
    numbers,
    repeated,
    string,
    struct,
    u8,
    u16,
    u32,
)
from asap2.netlink.sequence import Sequence, listed
from asap2.netlink.tables import devlink, ethtool, genl, link, ovs, tc
from asap2.netlink.tables.actions import bitfield32
from asap2.netlink.wire import NETLINK_GENERIC, NETLINK_ROUTE, NLA_F_NESTED, NetlinkError, NlMsg, attribute
from tests.captures import CAPTURES, messages

OVS_FAMILIES = {32: ovs.DATAPATH, 33: ovs.VPORT, 34: ovs.FLOW, 35: ovs.PACKET}
"""The family ids that the captured kernel had given out."""


class Pair(NamedTuple):
    """A structure for these tests."""

    left: int
    right: int


INNER = Table("inner", {1: ("small", u8), 2: ("pair", struct(Pair, "=IH"))})
OUTER = Table(
    "outer",
    {
        1: ("number", u32),
        2: ("port", be16),
        3: ("name", string),
        4: ("inner", nested(INNER)),
        5: ("flagged", nested(INNER, flagged=True)),
        6: ("kind", string),
        7: ("data", nested_by("kind", {"inner": INNER})),
        8: ("many", repeated(u16)),
        9: ("set", flag),
        10: ("list", array_of(INNER)),
        11: ("hw", mac),
        12: ("steps", listed(Sequence("steps", {1: ("out", u32), 2: ("pop", flag)}))),
        13: ("words", numbers("=I")),
    },
)


def body_of(protocol: int, message: NlMsg) -> tuple[Body[Any], int] | None:
    """Table and offset for a captured message; None for those that we have no table of."""
    if protocol == NETLINK_ROUTE:
        if 16 <= message.type <= 19:
            return link.LINK, 0
        if 36 <= message.type <= 46 or 100 <= message.type <= 102:
            return tc.TC, 0
        return (tc.ACTION_BODY, 0) if 48 <= message.type <= 50 else None
    if message.type == genl.GENL_ID_CTRL:
        return genl.CTRL, 0
    return (OVS_FAMILIES[message.type], 4) if message.type in OVS_FAMILIES else None


@pytest.mark.parametrize("protocol", [NETLINK_ROUTE, NETLINK_GENERIC])
@pytest.mark.parametrize("capture", CAPTURES)
def test_captured_messages_decode_and_encode_to_the_byte(capture: str, protocol: int) -> None:
    seen: Counter[int] = Counter()
    for message in messages(capture, protocol):
        found = body_of(protocol, message)
        if found is None or len(message.payload) < found[0].size:
            continue
        body, offset = found
        header, attrs = body.decode(message.payload, offset)
        assert message.payload[:offset] + body.encode(header, attrs) == message.payload
        seen[message.type] += 1
    assert sum(seen.values()) > 100


@pytest.mark.parametrize("capture", CAPTURES)
def test_nothing_in_the_captures_is_unknown_to_the_tables(capture: str) -> None:
    def check(value: object, where: str) -> None:
        if isinstance(value, Attrs):
            assert not value.tail, where
            for name, inner in value.items():
                assert isinstance(name, str) or isinstance(inner, Attrs), f"{where}.{name}"
                check(inner, f"{where}.{name}")
        elif isinstance(value, list):
            for item in value:
                check(item, where)

    for protocol in (NETLINK_ROUTE, NETLINK_GENERIC):
        for message in messages(capture, protocol):
            found = body_of(protocol, message)
            if found is not None:
                check(found[0].decode(message.payload, found[1])[1], found[0].table.name)


def test_a_link_dump_with_the_short_header_is_understood() -> None:
    header, attrs = link.LINK.decode(b"\x11\0\0\0" + attribute(29, b"\1\0\0\0"))
    assert (header.family, header.index, attrs) == (17, 0, {"ext_mask": 1})


def test_values_are_built_from_plain_dicts_and_lists() -> None:
    values = {
        "number": 7,
        "port": 0x1234,
        "name": "eth0",
        "inner": {"small": 1, "pair": Pair(2, 3)},
        "flagged": {"small": 9},
        "kind": "inner",
        "data": {"small": 4},
        "many": [1, 2],
        "set": True,
        "list": [{"small": 1}, {"small": 2}],
        "hw": bytes(range(6)),
        "steps": [("out", 1), ("pop", True), ("out", 2)],
        "words": (1, 2, 3),
    }
    raw = OUTER.encode(values)
    back = OUTER.decode(raw)
    assert back["list"] == {1: {"small": 1}, 2: {"small": 2}}
    assert {**back, "list": values["list"]} == values
    assert OUTER.encode(back) == raw
    assert attribute(2, b"\x12\x34") in raw
    assert attribute(5 | NLA_F_NESTED, attribute(1, b"\x09")) in raw


def test_none_leaves_an_attribute_out() -> None:
    assert OUTER.encode({"number": None}) == b""


def test_an_unknown_name_cannot_be_encoded() -> None:
    with pytest.raises(KeyError):
        OUTER.encode({"no such": 1})


def test_text_is_not_taken_for_bytes() -> None:
    with pytest.raises(TypeError, match="takes bytes"):
        ovs.PACKET_ATTRS.encode({"packet": "text"})


@pytest.mark.parametrize(
    "raw",
    [
        attribute(99, b"?"),
        attribute(1 | NLA_F_NESTED, b"\1\0\0\0"),
        attribute(4 | NLA_F_NESTED, attribute(1, b"\1")),
        attribute(1, b"\1\0\0\0\5\5"),
        attribute(11, bytes(8)),
        attribute(3, b"no end"),
        attribute(3, b"two\0ends\0"),
        attribute(3, b"\xff\xfe\0"),
        attribute(6, b"other\0") + attribute(7, b"opaque"),
        attribute(10, attribute(7 | NLA_F_NESTED, b"")),
        attribute(12, attribute(9, b"x") + attribute(1 | NLA_F_NESTED, b"\1\0\0\0")),
        attribute(1, b"\1\0\0\0") + b"\xff\0\1\0",
        attribute(1, b"\1\0\0\0") + b"\1",
        attribute(2, b"\1\1")[:-2],
        attribute(8, b"\1\0") + attribute(8, b"\2\0"),
    ],
)
def test_odd_messages_come_back_as_they_were(raw: bytes) -> None:
    assert OUTER.encode(OUTER.decode(raw)) == raw


def test_an_overlong_number_counts_by_its_first_bytes() -> None:
    assert OUTER.decode(attribute(1, b"\1\0\0\0\5\5"))["number"] == 1


def test_a_text_without_end_is_the_text() -> None:
    assert OUTER.decode(attribute(3, b"eth0"))["name"] == "eth0"


def test_options_before_their_kind_are_understood() -> None:
    raw = attribute(7, attribute(1, b"\4")) + attribute(6, b"inner\0")
    assert OUTER.decode(raw)["data"] == {"small": 4}


@pytest.mark.parametrize(
    ("raw", "offset"),
    [
        (attribute(1, b"\1\0"), 16),
        (attribute(9, b"\1"), 16),
        (attribute(3, b"eth0\0") + attribute(4, attribute(2, bytes(5))), 16 + 12 + 4),
    ],
)
def test_a_short_attribute_is_refused_as_the_kernel_does_with_its_place(raw: bytes, offset: int) -> None:
    with pytest.raises(NetlinkError, match="Attribute failed policy validation") as refused:
        OUTER.decode(raw)
    assert (refused.value.errno, refused.value.offset) == (errno.ERANGE, offset)


def test_a_payload_shorter_than_its_header_is_refused() -> None:
    with pytest.raises(NetlinkError) as refused:
        tc.TC.decode(bytes(19))
    assert refused.value.errno == errno.EINVAL


BODIES: list[Body[Any]] = [
    link.LINK,
    tc.TC,
    tc.ACTION_BODY,
    genl.CTRL,
    ovs.DATAPATH,
    ovs.VPORT,
    ovs.FLOW,
    ovs.PACKET,
    devlink.DEVLINK,
    ethtool.STRSET,
    ethtool.FEATURES,
    ethtool.LINKMODES,
]


@given(st.binary(max_size=200), st.sampled_from(BODIES))
def test_any_bytes_are_decoded_or_refused(raw: bytes, body: Body[Any]) -> None:
    try:
        header, attrs = body.decode(raw)
    except NetlinkError:
        return
    body.encode(header, attrs)


@given(st.data())
def test_a_damaged_message_is_decoded_or_refused(data: st.DataObject) -> None:
    message, (body, offset) = data.draw(st.sampled_from(SAMPLES))
    raw = bytearray(message.payload)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    try:
        header, attrs = body.decode(bytes(raw), offset)
    except NetlinkError:
        return
    body.encode(header, attrs)


SAMPLES = [
    (message, found)
    for protocol in (NETLINK_ROUTE, NETLINK_GENERIC)
    for message in messages(CAPTURES[0], protocol)
    if (found := body_of(protocol, message)) is not None and len(message.payload) > 40
]


def test_vf_information_of_a_link() -> None:
    attrs = {
        "ifname": "enp3s0f0",
        "num_vf": 1,
        "vfinfo_list": {
            "vf_info": [
                {
                    "mac": link.VfMac(0, bytes.fromhex("0011223344550000") + bytes(24)),
                    "vlan": link.VfVlan(0, 100, 3),
                    "vlan_list": {"info": [link.VfVlanInfo(0, 100, 3, 0x0081)]},
                    "spoofchk": link.VfSetting(0, 1),
                    "link_state": link.VfSetting(0, 0),
                    "trust": link.VfSetting(0, 0),
                    "stats": {"rx_packets": 5, "tx_dropped": 1},
                }
            ]
        },
    }
    raw = link.LINK.encode(link.Ifinfomsg(index=2), attrs)
    assert link.LINK.decode(raw) == (link.Ifinfomsg(index=2), attrs)
    assert attribute(4, _struct.pack("=II", 0, 1)) in raw


def test_bitsets_compact_and_by_name() -> None:
    names = ["rx", "tx", "hw-tc-offload"]
    compact = ethtool.compact_bitset(3, 0b100, 0b101)
    assert ethtool.BITSET.decode(ethtool.BITSET.encode(compact)) == {
        "size": 3,
        "value": b"\4\0\0\0",
        "mask": b"\5\0\0\0",
    }
    assert ethtool.set_bits(compact, names) == {"rx": False, "hw-tc-offload": True}
    assert ethtool.set_bits(ethtool.compact_bitset(3, 0b10), names) == {"rx": False, "tx": True, "hw-tc-offload": False}
    verbose = ethtool.verbose_bitset(3, [(0, "rx", False), (2, "hw-tc-offload", True)])
    decoded = ethtool.BITSET.decode(ethtool.BITSET.encode(verbose))
    assert ethtool.set_bits(decoded, names) == {"rx": False, "hw-tc-offload": True}
    listed_only = ethtool.verbose_bitset(3, [(2, "hw-tc-offload", True)], nomask=True)
    decoded = ethtool.BITSET.decode(ethtool.BITSET.encode(listed_only))
    assert ethtool.set_bits(decoded, names) == {"rx": False, "tx": False, "hw-tc-offload": True}


def test_a_filters_priority_and_protocol_share_a_number() -> None:
    header = tc.Tcmsg(info=tc.info(3, 0x86DD))
    assert (header.prio, header.protocol) == (3, 0x86DD)
    assert bitfield32.encode((1, 1)) == b"\1\0\0\0\1\0\0\0"
