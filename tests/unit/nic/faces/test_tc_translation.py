# SPDX-License-Identifier: Apache-2.0
"""Flower filters and TC actions, against what a real kernel gave back for the same requests."""

from __future__ import annotations

import errno
from itertools import repeat
from typing import Any

import pytest

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.actions import ACTION, Bitfield32
from asap2.netlink.tables.flower import FLOWER
from asap2.netlink.wire import NETLINK_ROUTE, NetlinkError
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc.counted import Counted
from asap2.nic.faces.tc.flower import parse
from asap2.nic.rules import VLAN_PRESENT, Drop, Goto, Masked, Output, Pass, PopVlan, PushVlan
from tests.captures import messages

NEWTFILTER = 44
REQUEST_ECHO = 0x409


def exchanges() -> list[tuple[Attrs, Attrs, int]]:
    """(request, reply, protocol) of each flower filter that the kernel took."""
    found = []
    last: tuple[int, Attrs] | None = None
    for message in messages("ovs-hw-offload", NETLINK_ROUTE):
        if message.type != NEWTFILTER or message.flags != REQUEST_ECHO:
            continue
        header, attrs = tables.TC.decode(message.payload)
        if not isinstance(attrs.get("options"), Attrs):
            continue
        if "chain" not in attrs:
            last = (message.seq, attrs["options"])
        elif last and last[0] == message.seq:
            found.append((last[1], attrs["options"], header.protocol))
    return found


def test_what_a_filter_gives_back_is_what_the_kernel_gave_back() -> None:
    compared = 0
    for request, reply, protocol in exchanges():
        expected = {name: value for name, value in reply.items() if name not in ("act", "flags", "in_hw_count")}
        assert list(parse(request, protocol).dump) == list(expected.items())
        compared += 1
    assert compared >= 5


def test_actions_are_given_back_as_the_kernel_gave_them_back() -> None:
    compared = 0
    for request, reply, _ in exchanges():
        indexes = [action["options"]["parms"].index for action in reply["act"].values()]
        _, listed = tc_actions.parse(request["act"], tc_actions.Given(indexes))
        state = tc_actions.ActionState(Counted(), 0, 0, False, bool(request["flags"] & 1))
        mine = tc_actions.dump(listed, state, terse=False)
        for given, expected in zip(mine, reply["act"].values(), strict=True):
            for options in (given["options"], expected["options"]):
                options.pop("tm")
            again = ACTION.decode(ACTION.encode(given))
            assert again == expected
            assert list(again) == list(expected)
        compared += 1
    assert compared >= 5


def flower(**keys: Any) -> Attrs:
    return FLOWER.decode(FLOWER.encode(keys))


def test_a_tagged_filter_matches_tag_and_payload_type() -> None:
    options = flower(key_eth_type=0x8100, key_vlan_id=57, key_vlan_prio=0, key_vlan_eth_type=0x0800)
    key = parse(options, 0x8100)
    assert key.match.vlan_tci == Masked(VLAN_PRESENT | 57, 0xFFFF)
    assert key.match.vlan_tpid == Masked(0x8100, 0xFFFF)
    assert key.match.eth_type == Masked(0x0800, 0xFFFF)
    assert [name for name, _ in key.dump] == ["key_eth_type", "key_vlan_id", "key_vlan_prio", "key_vlan_eth_type"]


def test_the_ttl_of_a_tunnel_is_matched_and_given_back() -> None:
    key = parse(flower(key_enc_ip_ttl=64, key_enc_ip_ttl_mask=0xF0), 0x0800)
    assert key.match.tun_ttl == Masked(64, 0xF0)
    assert [name for name, _ in key.dump] == ["key_enc_ip_ttl", "key_enc_ip_ttl_mask"]


def test_a_filter_of_protocol_ip_does_not_match_tagged_packets() -> None:
    key = parse(flower(), 0x0800)
    assert key.match.vlan_tci == Masked(0, VLAN_PRESENT)
    assert key.match.eth_type == Masked(0x0800, 0xFFFF)


def test_a_filter_of_protocol_all_matches_everything() -> None:
    assert not parse(flower(), 3).match.used()


def test_a_key_without_mask_is_exact_and_a_zero_mask_is_no_key() -> None:
    options = flower(
        key_eth_type=0x0800,
        key_ip_proto=6,
        key_ipv4_src=b"\x0a\0\0\1",
        key_ipv4_dst=b"\x0a\0\0\2",
        key_ipv4_dst_mask=b"\0\0\0\0",
        key_tcp_dst=80,
    )
    match = parse(options, 0x0800).match
    assert match.ip_src == Masked(0x0A000001, 0xFFFFFFFF)
    assert not match.ip_dst.mask
    assert match.l4_dst == Masked(80, 0xFFFF)


def test_a_key_that_the_eswitch_has_not_is_refused_by_name() -> None:
    with pytest.raises(NetlinkError, match="hash") as refused:
        parse(flower(key_hash=9, key_hash_mask=9), 0x0800)
    assert refused.value.errno == errno.EOPNOTSUPP


def action(kind: str, **options: Any) -> dict[str, Any]:
    return {"kind": kind, "options": options}


def steps_of(*actions: dict[str, Any]) -> tuple[tc_actions.Step, ...]:
    encoded = FLOWER.decode(FLOWER.encode({"act": list(actions)}))
    return tc_actions.parse(encoded["act"], tc_actions.Given(repeat(1)))[0]


def generic(verdict: int, **more: int) -> Any:
    from asap2.netlink.tables import actions as ta

    if "eaction" in more:
        return ta.Mirred(action=verdict, **more)
    if "v_action" in more:
        return ta.Vlan(action=verdict, **more)
    return ta.Generic(action=verdict)


def test_push_and_redirect() -> None:
    steps = steps_of(
        action("vlan", parms=generic(3, v_action=2), push_vlan_id=57, push_vlan_protocol=0x8100),
        action("mirred", parms=generic(4, eaction=1, ifindex=9)),
    )
    assert tc_actions.to_rule(steps, lambda step: step.ifindex, Pass) == (PushVlan(57), Output(9))


def test_mirror_and_go_on_ends_in_the_stack() -> None:
    steps = steps_of(
        action("mirred", parms=generic(3, eaction=2, ifindex=9)), action("vlan", parms=generic(3, v_action=1))
    )
    assert tc_actions.to_rule(steps, lambda step: step.ifindex, Pass, prio=1) == (Output(9), PopVlan(), Pass())


def test_verdicts() -> None:
    assert steps_of(action("gact", parms=generic(2))) == (Drop(),)
    assert steps_of(action("gact", parms=generic(0x20000005))) == (Goto(5),)
    assert steps_of(action("gact", parms=generic(8))) == (tc_actions.Trap(),)


def test_what_follows_a_verdict_is_kept_but_not_done() -> None:
    steps = steps_of(action("gact", parms=generic(2)), action("mirred", parms=generic(4, eaction=1, ifindex=9)))
    assert steps == (Drop(), tc_actions.Beyond("mlx5_core: Rule cannot support forward+drop action"))
    assert tc_actions.to_rule(steps, lambda step: step.ifindex, Pass) == (Drop(),)


def test_skip_hw_shows_in_the_flags_of_each_action() -> None:
    encoded = FLOWER.decode(FLOWER.encode({"act": [action("gact", parms=generic(2))]}))
    _, listed = tc_actions.parse(encoded["act"], tc_actions.Given(repeat(1)))
    state = tc_actions.ActionState(Counted(), 0, 0, False, True)
    assert tc_actions.dump(listed, state, terse=False)[0]["flags"] == Bitfield32(2, 2)
