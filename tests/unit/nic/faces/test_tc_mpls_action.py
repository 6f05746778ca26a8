# SPDX-License-Identifier: Apache-2.0
"""TC's action mpls: what it does in software, and why no NIC takes it."""

from __future__ import annotations

from typing import Any

from asap2.netlink.tables import actions as ta
from asap2.nic.faces.tc.mpls_action import settled
from asap2.nic.layer_actions import PopMpls, PushMpls
from asap2.nic.rules import Masked, Match, SetField
from tests.unit.nic.faces.tc_requests import flagged, parsed

UNICAST, MULTICAST = 0x8847, 0x8848


def mpls(what: int, **options: Any) -> dict[Any, Any]:
    return flagged({"kind": "mpls", "options": {**options, "parms": ta.Mpls(action=ta.TC_ACT_PIPE, m_action=what)}})


def software(*actions: dict[Any, Any], eth_type: int = 0x0800) -> list[Any]:
    steps = settled(parsed(*actions)[0], Match(eth_type=Masked(eth_type, 0xFFFF)))
    return [step for step in steps if isinstance(step, PushMpls | PopMpls | SetField)]


def test_the_first_label_is_the_bottom_of_the_stack_and_the_next_is_not() -> None:
    push = mpls(ta.TCA_MPLS_ACT_PUSH, label=16, ttl=64, tc=5)
    entry = 16 << 12 | 5 << 9 | 64
    assert software(push, push) == [PushMpls(entry | 0x100, UNICAST), PushMpls(entry, UNICAST)]
    assert software(push, eth_type=MULTICAST) == [PushMpls(entry, UNICAST)]
    pop = mpls(ta.TCA_MPLS_ACT_POP, proto=0x0800)
    assert software(pop, push, eth_type=UNICAST) == [PopMpls(0x0800), PushMpls(entry | 0x100, UNICAST)]


def test_a_bottom_that_is_given_is_kept_and_a_ttl_that_is_not_is_255() -> None:
    push = mpls(ta.TCA_MPLS_ACT_PUSH, label=1, bos=0, proto=MULTICAST)
    assert software(push) == [PushMpls(1 << 12 | 255, MULTICAST)]
    outside = mpls(ta.TCA_MPLS_ACT_MAC_PUSH, label=1)
    assert software(outside) == [PushMpls(1 << 12 | 0x100 | 255, UNICAST, outside=True)]


def test_parts_of_a_label_are_modified() -> None:
    found = software(mpls(ta.TCA_MPLS_ACT_MODIFY, label=7, ttl=9), eth_type=UNICAST)
    assert found == [
        SetField("mpls_lse1", Masked(7 << 12, 0xFFFFF000)),
        SetField("mpls_lse1", Masked(9, 0xFF)),
    ]
