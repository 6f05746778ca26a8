# SPDX-License-Identifier: Apache-2.0
"""Translation of filters and actions in the places where a real kernel was found to do otherwise than one thinks."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables.flower import FLOWER
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc.counted import Counted
from asap2.nic.faces.tc.flower import NEVER, FlowerKey, parse
from asap2.nic.faces.tc.hardware_actions import rewritten_tags
from asap2.nic.rules import (
    VLAN_PRESENT,
    Chance,
    Drop,
    Goto,
    LookOn,
    Masked,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    PushVlan,
)
from tests.unit.nic.faces.tc_requests import gact, parsed, pop

ETH_P_ALL = 3


def key(protocol: int, **keys: Any) -> FlowerKey:
    return parse(FLOWER.decode(FLOWER.encode(keys)), protocol)


@pytest.mark.parametrize(
    ("protocol", "keys"),
    [
        (0x0800, {"key_eth_type": 0x86DD}),
        (0x0800, {"key_eth_type": 0x8100, "key_vlan_eth_type": 0x0800}),
        (0x8100, {"key_eth_type": 0x88A8}),
        (ETH_P_ALL, {"key_eth_type": 0x0806, "key_ipv4_src": b"\x0a\0\0\1"}),
        (0x0800, {"key_eth_type": 0x0800, "key_ip_proto": 6, "key_tcp_flags": 0x1000}),
    ],
)
def test_a_key_that_contradicts_itself_matches_nothing(protocol: int, keys: dict[str, Any]) -> None:
    assert key(protocol, **keys).match.ip_frag == NEVER["ip_frag"]


def test_protocol_all_with_a_type_takes_any_tags() -> None:
    assert key(ETH_P_ALL, key_eth_type=0x0800).match.used() == {"eth_type": Masked(0x0800, 0xFFFF)}


def test_addresses_imply_the_type() -> None:
    match = key(ETH_P_ALL, key_ipv4_dst=b"\x0a\0\0\1", key_ipv4_dst_mask=b"\0\0\0\0").match
    assert match.used() == {"eth_type": Masked(0x0800, 0xFFFF)}


def test_what_is_behind_one_tag_is_not_behind_two() -> None:
    assert key(0x8100, key_eth_type=0x8100, key_vlan_eth_type=0x0800).match.cvlan_tci == Masked(0, VLAN_PRESENT)
    assert not key(0x8100, key_eth_type=0x8100, key_vlan_id=7).match.cvlan_tci.mask


def test_a_key_is_given_back_as_it_was_given() -> None:
    given = {"key_eth_type": 0x0800, "key_ipv4_dst": b"\x0a\1\2\3", "key_ipv4_dst_mask": b"\xff\xff\0\0"}
    assert dict(key(0x0800, **given).dump) == given


def test_filters_are_the_same_by_what_they_are_given_under_their_masks() -> None:
    one = key(0x0800, key_ipv4_dst=b"\x0a\1\2\3", key_ipv4_dst_mask=b"\xff\xff\0\0")
    other = key(0x0800, key_ipv4_dst=b"\x0a\1\7\7", key_ipv4_dst_mask=b"\xff\xff\0\0")
    assert one.identity == other.identity
    assert one.masks != key(0x0800, key_ipv4_dst=b"\x0a\1\2\3").masks
    assert key(0x0800).identity != key(0x0800, key_eth_type=0x0800).identity


def mirror(verdict: int) -> dict[str, Any]:
    return {"kind": "mirred", "options": {"parms": ta.Mirred(action=verdict, eaction=ta.TCA_EGRESS_MIRROR, ifindex=9)}}


def rule(*actions: dict[str, Any], prio: int | None = 1) -> Any:
    return tc_actions.to_rule(parsed(*actions)[0], lambda step: step.ifindex, Drop, prio=prio)


def test_a_mirror_at_the_end_lets_the_packet_go_on_in_software_only() -> None:
    assert rule(mirror(ta.TC_ACT_PIPE)) == (Output(9), Pass())
    assert rule(mirror(ta.TC_ACT_PIPE), prio=None) == (Output(9),)
    assert rule(mirror(ta.TC_ACT_STOLEN)) == (Output(9),)


def test_a_packet_that_is_taken_goes_nowhere() -> None:
    assert rule(pop(ta.TC_ACT_STOLEN)) == (PopVlan(), Drop())
    assert rule(mirror(ta.TC_ACT_PIPE), pop(ta.TC_ACT_STOLEN)) == (Output(9), PopVlan())


def test_continue_looks_on_behind_the_filters_of_the_same_priority() -> None:
    assert rule(pop(ta.TC_ACT_UNSPEC)) == (PopVlan(), LookOn(2 << 16))
    assert rule(mirror(ta.TC_ACT_UNSPEC), prio=0xFFFF) == (Output(9), Pass())
    assert rule(mirror(ta.TC_ACT_UNSPEC), prio=None) == (Output(9),)


def test_reclassify_begins_with_the_first_chain() -> None:
    assert rule(pop(ta.TC_ACT_RECLASSIFY)) == (PopVlan(), Goto(0))


def test_a_gact_at_random_does_one_of_two_things_in_software_and_the_first_in_hardware() -> None:
    options: dict[str, Any] = {"parms": ta.Generic(action=ta.TC_ACT_PIPE)}
    chance: dict[str, Any] = {"kind": "gact", "options": options}
    options["prob"] = ta.GactProbability(1, 4, ta.TC_ACT_SHOT)
    assert rule(chance, mirror(ta.TC_ACT_STOLEN)) == (Chance(0x3FFFFFFF, (Drop(),)), Output(9))
    assert rule(chance, mirror(ta.TC_ACT_STOLEN), prio=None) == (Output(9),)
    options["prob"] = ta.GactProbability(0, 4, ta.TC_ACT_SHOT)
    assert rule(chance, mirror(ta.TC_ACT_STOLEN)) == (Output(9),)


def test_what_is_behind_a_verdict_has_counted_nothing_and_a_drop_counts_its_drops() -> None:
    _, listed = parsed(pop(ta.TC_ACT_PIPE), gact(ta.TC_ACT_SHOT), mirror(ta.TC_ACT_PIPE))
    state = tc_actions.ActionState(Counted(3, 300), 0, 0, False, False)
    stats = [entry["stats"] for entry in tc_actions.dump(listed, state, terse=True)]
    assert [one["basic"] for one in stats] == [ta.Basic(300, 3), ta.Basic(300, 3), ta.Basic(0, 0)]
    assert [one["queue"].drops for one in stats] == [0, 3, 0]


def test_vlan_ids_end_before_4095_and_a_push_has_a_priority() -> None:
    def push(vid: int, what: int) -> dict[str, Any]:
        return {"kind": "vlan", "options": {"parms": ta.Vlan(action=3, v_action=what), "push_vlan_id": vid}}

    with pytest.raises(NetlinkError) as refused:
        parsed(push(4095, ta.TCA_VLAN_ACT_PUSH))
    assert refused.value.errno == errno.ERANGE
    _, (pushed, modified) = parsed(push(7, ta.TCA_VLAN_ACT_PUSH), push(7, ta.TCA_VLAN_ACT_MODIFY))
    assert dict(pushed.options)["push_vlan_priority"] == 0
    assert "push_vlan_priority" not in dict(modified.options)


def test_a_modified_tag_keeps_its_priority_unless_told_another() -> None:
    def modify(**more: Any) -> Any:
        parms = ta.Vlan(action=ta.TC_ACT_PIPE, v_action=ta.TCA_VLAN_ACT_MODIFY)
        return parsed({"kind": "vlan", "options": {"parms": parms, "push_vlan_id": 7, **more}})[0][0]

    assert modify() == ModifyVlan(7, None)
    assert modify(push_vlan_priority=0) == ModifyVlan(7, 0)


def test_hardware_rewrites_a_vlan_id_and_keeps_the_priority() -> None:
    sent = tc_actions.Mirred(9, False, True)
    copy = tc_actions.Mirred(8, False, False)
    assert rewritten_tags((ModifyVlan(7, 3), sent)) == (ModifyVlan(7, None), sent)
    assert rewritten_tags((PopVlan(), PushVlan(7), sent)) == (ModifyVlan(7, None), sent)
    assert rewritten_tags((PopVlan(), copy, PushVlan(7), sent)) == (PopVlan(), copy, PushVlan(7), sent)


def test_the_inner_tags_type_is_matched() -> None:
    match = key(0x88A8, key_eth_type=0x88A8, key_vlan_eth_type=0x8100).match
    assert match.cvlan_tpid == Masked(0x81, 0xFF)


def test_a_device_is_matched_beside_the_key_and_told_by_its_name() -> None:
    here = key(0x0800, indev="lo", key_ipv4_dst=b"\x0a\1\2\3")
    assert here.indev == 1
    assert here.shown()["indev"] == "lo"
    assert here.match == key(0x0800, key_ipv4_dst=b"\x0a\1\2\3").match
    assert here.identity != key(0x0800, key_ipv4_dst=b"\x0a\1\2\3").identity
    assert here.masks != key(0x0800, key_ipv4_dst=b"\x0a\1\2\3").masks


@pytest.mark.parametrize(
    ("name", "number", "text"),
    [("nosuch", errno.ENODEV, "Network device not found"), ("a" * 16, errno.EINVAL, "Interface name too long")],
)
def test_a_device_that_is_not_there_is_refused(name: str, number: int, text: str) -> None:
    with pytest.raises(NetlinkError) as refused:
        key(0x0800, indev=name)
    assert (refused.value.errno, refused.value.strerror) == (number, text)
