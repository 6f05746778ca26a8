# SPDX-License-Identifier: Apache-2.0
"""Connection tracking in TC: flower's keys, the action ct, and where a filter with it goes."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables.actions import ACTION
from asap2.netlink.tables.flower import FLOWER
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc.counted import Counted
from asap2.nic.faces.tc.flower import FlowerKey, parse
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct, CtClear, CtState, Goto, Masked
from tests.unit.nic.faces.tc_requests import ct, flagged, goto, parsed

NEW, EST, REL, TRK, INV, RPL = (1 << bit for bit in range(6))
"""TCA_FLOWER_KEY_CT_FLAGS_*."""
IP = 0x0800


def key(**keys: Any) -> FlowerKey:
    return parse(FLOWER.decode(FLOWER.encode(keys)), IP)


def refusal(**options: Any) -> tuple[int | None, str | None]:
    """The error and text with which an action ct is refused."""
    with pytest.raises(NetlinkError) as refused:
        parsed(ct(**options))
    return refused.value.errno, refused.value.text


# ---- keys


def test_a_state_has_the_bits_of_the_kernels_own_datapath() -> None:
    match = key(key_ct_state=TRK | EST | RPL, key_ct_state_mask=TRK | EST | RPL | INV | REL).match
    state = CtState.TRK | CtState.EST | CtState.RPL
    assert match.ct_state == Masked(state, state | CtState.INV | CtState.REL)
    assert match.ct_state.value == 0x2A


def test_keys_of_connection_tracking_come_back_in_the_kernels_order_and_as_given() -> None:
    given = {
        "key_ct_labels": bytes(range(16)),
        "key_ct_labels_mask": b"\xff" * 15 + b"\0",
        "key_ct_mark": 0x1234,
        "key_ct_mark_mask": 0xFF,
        "key_ct_zone": 7,
        "key_ct_state": TRK | NEW,
        "key_ct_state_mask": TRK | NEW | EST,
    }
    names = ["state", "zone", "mark", "labels"]
    dump = list(key(**given).dump)
    assert dump == [
        (f"key_ct_{name}{end}", given.get(f"key_ct_{name}{end}", 0xFFFF)) for name in names for end in ("", "_mask")
    ]


def test_zone_mark_and_labels_are_numbers_as_the_packets_are() -> None:
    match = key(key_ct_zone=7, key_ct_mark=0x1234, key_ct_mark_mask=0xFF, key_ct_labels=bytes(range(16))).match
    assert match.ct_zone == Masked(7, 0xFFFF)
    assert match.ct_mark == Masked(0x34, 0xFF)
    assert match.ct_labels == Masked(int.from_bytes(bytes(range(16)), "big"), (1 << 128) - 1)


def test_short_labels_are_filled_with_zeros_and_long_ones_refused() -> None:
    short = key(key_ct_labels=b"\1", key_ct_labels_mask=b"\3")
    assert short.match.ct_labels == Masked(1 << 120, 3 << 120)
    assert ("key_ct_labels", b"\1" + bytes(15)) in short.dump
    with pytest.raises(NetlinkError, match="Attribute failed policy validation"):
        key(key_ct_labels=bytes(17))


@pytest.mark.parametrize(
    ("state", "mask", "text"),
    [
        (0xFFFF, 0xFFFF, "reserved bit set"),
        (TRK, TRK | 0x40, "reserved bit set"),
        (NEW, NEW, "no trk, so no other flag can be set"),
        (TRK | NEW | EST, TRK | NEW | EST, "new and est are mutually exclusive"),
        (TRK | INV | EST, TRK | INV | EST, "when inv is set, only trk may be set"),
        (TRK | NEW | RPL, TRK | NEW | RPL, "new and rpl are mutually exclusive"),
    ],
)
def test_a_state_that_no_packet_has_is_refused(state: int, mask: int, text: str) -> None:
    with pytest.raises(NetlinkError) as refused:
        key(key_ct_state=state, key_ct_state_mask=mask)
    assert (refused.value.errno, refused.value.text) == (errno.EINVAL, text)


@pytest.mark.parametrize("state", [NEW | TRK, TRK | INV, TRK | EST | RPL])
def test_open_vswitchs_probes_find_every_state(state: int) -> None:
    assert ("key_ct_state_mask", state) in key(key_ct_state=state, key_ct_state_mask=state).dump


# ---- the action


def test_a_commit_sets_what_its_masks_say() -> None:
    steps, _ = parsed(
        ct(ta.TCA_CT_ACT_COMMIT | ta.TCA_CT_ACT_FORCE, zone=5, mark=2, mark_mask=3, labels=b"\1" * 16), goto(4)
    )
    labels = Masked(int.from_bytes(b"\1" * 16, "big"), (1 << 128) - 1)
    assert steps == (Ct(5, True, True, Masked(2, 3), labels, offload=True), Goto(4))


def test_a_clear_forgets_whatever_else_it_says() -> None:
    steps, (listed,) = parsed(ct(ta.TCA_CT_ACT_CLEAR | ta.TCA_CT_ACT_NAT, zone=5, mark=2))
    assert steps[0] == CtClear()
    assert [name for name, _ in listed.options] == ["action", "parms"]


@pytest.mark.parametrize(
    ("what", "options", "nat"),
    [
        (ta.TCA_CT_ACT_NAT, {"nat_ipv4_min": b"\x0a\0\0\1"}, Nat(None)),
        (
            ta.TCA_CT_ACT_NAT | ta.TCA_CT_ACT_NAT_SRC,
            {"nat_ipv4_min": b"\x0a\0\0\1"},
            Nat(NatKind.SRC, b"\x0a\0\0\1", b"\x0a\0\0\1"),
        ),
        (
            ta.TCA_CT_ACT_NAT | ta.TCA_CT_ACT_NAT_DST,
            {"nat_ipv6_min": bytes(16), "nat_ipv6_max": b"\1" * 16, "nat_port_min": 80, "nat_port_max": 90},
            Nat(NatKind.DST, bytes(16), b"\1" * 16, 80, 90),
        ),
        (ta.TCA_CT_ACT_NAT_SRC, {"nat_port_min": 80}, None),
    ],
)
def test_what_is_translated(what: int, options: dict[str, Any], nat: Nat | None) -> None:
    step = parsed(ct(what, **options))[0][0]
    assert isinstance(step, Ct)
    assert step.nat == nat


def test_what_cannot_be_is_refused_in_the_kernels_words() -> None:
    both = ta.TCA_CT_ACT_NAT | ta.TCA_CT_ACT_NAT_SRC | ta.TCA_CT_ACT_NAT_DST
    assert refusal(what=both) == (errno.EOPNOTSUPP, "act_ct: dnat and snat can't be enabled at the same time")
    assert refusal(verdict=9) == (errno.EINVAL, "invalid control action")
    assert refusal(helper_name="quake") == (errno.EINVAL, "act_ct: Failed to add helper")
    assert refusal(helper_name="ftp", helper_proto=socket.IPPROTO_UDP) == (errno.EINVAL, "act_ct: Failed to add helper")
    with pytest.raises(NetlinkError, match="act_ct: Missing required ct parameters"):
        parsed(flagged({"kind": "ct", "options": {"zone": 5}}))
    with pytest.raises(NetlinkError, match="NLA_F_NESTED is missing"):
        parsed({"kind": "ct", "options": {"zone": 5, "parms": ta.Generic()}})
    with pytest.raises(NetlinkError, match="act_ct: Ct requires attributes to be passed"):
        parsed({"kind": "ct"})


def test_an_action_comes_back_in_the_kernels_order_with_what_was_left_out() -> None:
    what = ta.TCA_CT_ACT_COMMIT | ta.TCA_CT_ACT_NAT | ta.TCA_CT_ACT_NAT_SRC
    _, listed = parsed(
        ct(what, nat_port_min=80, nat_ipv4_min=b"\x0a\0\0\1", zone=5, labels=bytes(16), labels_mask=bytes(16), mark=2)
    )
    state = tc_actions.ActionState(Counted(), 0, 0, False, False)
    options = ACTION.decode(ACTION.encode(tc_actions.dump(listed, state, terse=False)[0]))["options"]
    options.pop("tm")
    assert list(options.items()) == [
        ("action", what),
        ("mark", 2),
        ("mark_mask", 0xFFFFFFFF),
        ("zone", 5),
        ("nat_ipv4_min", b"\x0a\0\0\1"),
        ("nat_ipv4_max", b"\x0a\0\0\1"),
        ("nat_port_min", 80),
        ("nat_port_max", 80),
        ("parms", ta.Generic(1, 0, ta.TC_ACT_PIPE, 1, 1)),
    ]


def test_a_helper_is_softwares_alone() -> None:
    steps, (listed,) = parsed(ct(ta.TCA_CT_ACT_COMMIT, helper_name="ftp"))
    assert steps[0] == tc_actions.Beyond(None)
    assert steps[1] == Ct(0, True, helper="ftp", family=socket.AF_INET, offload=True)
    assert [pair for pair in listed.options if pair[0].startswith("helper")] == [
        ("helper_name", "ftp"),
        ("helper_family", socket.AF_INET),
        ("helper_proto", socket.IPPROTO_TCP),
    ]
