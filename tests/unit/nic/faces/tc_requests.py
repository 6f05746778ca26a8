# SPDX-License-Identifier: Apache-2.0
"""TC actions as requests have them, for tests of the TC face, and the steps that they become."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import actions as ta
from asap2.netlink.tables.flower import FLOWER
from asap2.netlink.wire import NLA_F_NESTED
from asap2.nic.faces.tc import actions as tc_actions


def gact(verdict: int, index: int = 0) -> dict[str, Any]:
    return {"kind": "gact", "options": {"parms": ta.Generic(action=verdict, index=index)}}


def goto(chain: int) -> dict[str, Any]:
    return gact(ta.TC_ACT_GOTO_CHAIN | chain)


def mirred(ifindex: int, verdict: int = ta.TC_ACT_STOLEN) -> dict[str, Any]:
    how = ta.TCA_EGRESS_REDIR if verdict == ta.TC_ACT_STOLEN else ta.TCA_EGRESS_MIRROR
    return {"kind": "mirred", "options": {"parms": ta.Mirred(action=verdict, eaction=how, ifindex=ifindex)}}


def push(vid: int) -> dict[str, Any]:
    parms = ta.Vlan(action=ta.TC_ACT_PIPE, v_action=ta.TCA_VLAN_ACT_PUSH)
    return {"kind": "vlan", "options": {"parms": parms, "push_vlan_id": vid, "push_vlan_protocol": 0x8100}}


def pop(verdict: int = ta.TC_ACT_PIPE) -> dict[str, Any]:
    return {"kind": "vlan", "options": {"parms": ta.Vlan(action=verdict, v_action=ta.TCA_VLAN_ACT_POP)}}


def ct(what: int = 0, verdict: int = ta.TC_ACT_PIPE, **options: Any) -> dict[Any, Any]:
    return flagged({"kind": "ct", "options": {"action": what, **options, "parms": ta.Generic(action=verdict)}})


def flagged(action: dict[str, Any]) -> dict[Any, Any]:
    """*action*, whose options have NLA_F_NESTED, which some kinds demand."""
    attrs = Attrs(action)
    attrs.bits = {"options": NLA_F_NESTED}
    return attrs


def parsed(
    *actions: Mapping[Any, Any], index: int = 1
) -> tuple[tuple[tc_actions.Step, ...], tuple[tc_actions.Listed, ...]]:
    """The steps of these *actions*, each of which has that *index*, and the actions as they are listed."""
    options = FLOWER.decode(FLOWER.encode({"act": list(actions)}))
    return tc_actions.parse(options["act"], tc_actions.Given(repeat(index)))
