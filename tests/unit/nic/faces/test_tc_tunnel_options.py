# SPDX-License-Identifier: Apache-2.0
"""Options of tunnels in TC: what is matched and set, what is given back, and the kernel's refusals."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from asap2.netlink.tables.actions import GENEVE_OPT
from asap2.netlink.tables.flower import FLOWER
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc import tunnel_options
from asap2.nic.faces.tc.flower import FlowerKey, parse
from asap2.nic.rules import Masked
from asap2.nic.tunnels.options import KINDS, OptionKinds, kind_of

OVN = {"class": 0x0102, "type": 0x80, "data": b"\0\4\0\5"}
MASK = {"class": 0xFFFF, "type": 0xFF, "data": b"\x7f\xff\xff\xff"}


def key_of(option: dict[str, Any], mask: dict[str, Any] | None = None) -> FlowerKey:
    options: dict[str, Any] = {"key_eth_type": 0x0800, "key_enc_key_id": 7, "key_enc_opts": {"geneve": [option]}}
    if mask is not None:
        options["key_enc_opts_mask"] = {"geneve": [mask]}
    return parse(FLOWER.decode(FLOWER.encode(options)), 0x0800)


def test_an_option_is_matched_by_its_kind_its_data_and_the_length_of_all() -> None:
    match = key_of(OVN, MASK).match
    assert KINDS.kind(match.tun_option_kind.value) == bytes.fromhex("01028001")
    assert match.tun_option == Masked(0x00040005, 0x7FFFFFFF)
    assert match.tun_opts_len == Masked(8, 8)


def test_an_option_is_given_back_with_its_mask() -> None:
    back = dict(key_of(OVN, MASK).dump)
    assert back["key_enc_opts"] == {"geneve": [OVN]}
    assert back["key_enc_opts_mask"] == {"geneve": [MASK]}
    assert dict(key_of(OVN).dump)["key_enc_opts_mask"]["geneve"][0]["data"] == b"\xff" * 4


def test_keys_that_differ_under_the_mask_only_are_the_same() -> None:
    other = OVN | {"data": b"\x80\4\0\5"}
    assert key_of(OVN, MASK).canon == key_of(other, MASK).canon
    assert key_of(OVN).canon != key_of(other).canon
    assert key_of(OVN, MASK).masks != key_of(OVN).masks


@pytest.mark.parametrize(
    ("option", "mask", "number", "text"),
    [
        ({"class": 1, "type": 2}, None, errno.EINVAL, "Missing tunnel key geneve option class, type or data"),
        (OVN | {"data": b"\1"}, None, errno.ERANGE, "Tunnel key geneve option data is less than 4 bytes long"),
        (
            OVN | {"data": bytes(6)},
            None,
            errno.ERANGE,
            "Tunnel key geneve option data is not a multiple of 4 bytes long",
        ),
        (OVN, MASK | {"data": bytes(8)}, errno.EINVAL, "Key and mask miss aligned"),
        (OVN | {"data": bytes(8)}, None, errno.EOPNOTSUPP, None),
        (OVN, MASK | {"type": 1}, errno.EOPNOTSUPP, None),
    ],
)
def test_options_that_cannot_be_matched_are_refused(
    option: dict[str, Any], mask: dict[str, Any] | None, number: int, text: str | None
) -> None:
    with pytest.raises(NetlinkError) as refused:
        key_of(option, mask)
    assert refused.value.errno == number
    assert text is None or text in str(refused.value)


def test_options_are_set_as_they_go_on_the_wire() -> None:
    options, back = tunnel_options.to_set({"geneve": [OVN, OVN | {"data": bytes(8)}]})
    assert options == bytes.fromhex("01028001 00040005 01028002 00000000 00000000")
    ((name, nest),) = back
    assert name == "enc_opts"
    assert nest["geneve"] == [GENEVE_OPT.encode(OVN) + GENEVE_OPT.encode(OVN | {"data": bytes(8)})], "one nest for all"
    with pytest.raises(NetlinkError) as refused:
        tunnel_options.to_set({"vxlan": {"gbp": 1}})
    assert refused.value.errno == errno.EOPNOTSUPP


def test_kinds_keep_their_numbers_and_there_is_room_for_four() -> None:
    told: list[dict[int, bytes]] = []
    kinds = OptionKinds()
    kinds.bind(lambda all_kinds: told.append(dict(all_kinds)), {1: kind_of(1, 1)})
    assert kinds.number(kind_of(1, 1)) == 1
    assert [kinds.number(kind_of(2, number)) for number in range(5)] == [2, 3, 4, None, None]
    assert len(told) == 3
    assert told[-1][4] == kind_of(2, 2)
