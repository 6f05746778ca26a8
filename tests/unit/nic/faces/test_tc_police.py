# SPDX-License-Identifier: Apache-2.0
"""TC's action police: what it does with packets over the rate and within it, what hardware takes of it."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from asap2.netlink.tables import actions as ta
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc import capability
from asap2.nic.faces.tc.police_meters import in_hardware
from asap2.nic.rules import Action, Drop, Goto, Meter, Output, Pass, PopVlan
from asap2.nic.silicon.metering import Limit, Price
from tests.unit.nic.faces.tc_requests import mirred, parsed, pop

JUMP = ta.TC_ACT_JUMP
TABLE = bytes(1024)


def police(exceed: int, conform: int | None = None, index: int = 5, **more: Any) -> dict[str, Any]:
    tbf = ta.Police(action=exceed, burst=1000, mtu=more.pop("mtu", 0), rate=more.pop("rate", 0), rate_cell_log=3)
    result = {} if conform is None else {"result": conform}
    return {"kind": "police", "options": {"tbf": tbf._replace(index=index), **result, **more}}


def rule(*actions: dict[str, Any]) -> tuple[Action, ...]:
    return tc_actions.to_rule(parsed(*actions, index=5)[0], lambda step: step.ifindex, Pass)


def test_what_is_over_the_rate_has_a_verdict_of_its_own() -> None:
    assert rule(police(ta.TC_ACT_SHOT, ta.TC_ACT_PIPE), mirred(9)) == (Meter(5, (Drop(),)), Output(9))
    assert rule(police(ta.TC_ACT_PIPE, ta.TC_ACT_SHOT), mirred(9)) == (Meter(5, (Output(9),)), Drop())
    assert rule(police(ta.TC_ACT_GOTO_CHAIN | 3)) == (Meter(5, (Goto(3),)), Pass())
    assert rule(police(ta.TC_ACT_RECLASSIFY)) == (Meter(5, (Drop(),)), Pass())


def test_a_jump_goes_on_at_an_action_by_its_place_in_the_list() -> None:
    """As Open vSwitch has check_pkt_len: longer packets to one port, the others to another."""
    made = parsed(police(ta.TC_ACT_PIPE, JUMP | 2, mtu=1000), mirred(8), mirred(9), index=5)
    assert tc_actions.to_rule(made[0], lambda step: step.ifindex, Pass) == (Meter(5, (Output(8),)), Output(9))
    assert all(one.reached for one in made[1])
    assert rule(police(JUMP | 3, ta.TC_ACT_PIPE), pop(), mirred(8), mirred(9)) == (
        Meter(5, (Output(9),)),
        PopVlan(),
        Output(8),
    )


@pytest.mark.parametrize("to", [0, 4])
def test_a_jump_to_nowhere_lets_the_packet_pass(to: int) -> None:
    assert rule(police(ta.TC_ACT_SHOT, JUMP | to), mirred(8)) == (Meter(5, (Drop(),)), Pass())


def test_a_jump_back_is_refused() -> None:
    with pytest.raises(NetlinkError) as error:
        rule(pop(), police(ta.TC_ACT_SHOT, JUMP | 1), mirred(8))
    assert error.value.errno == errno.EOPNOTSUPP


def test_ways_through_the_list_may_not_be_too_many() -> None:
    with pytest.raises(NetlinkError) as error:
        parsed(*(police(ta.TC_ACT_PIPE, ta.TC_ACT_PIPE) for _ in range(20)))
    assert error.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({"rate": 1000}, errno.ERANGE),
        ({"avrate": 1}, errno.EINVAL),
        ({"pktrate64": 10}, errno.EINVAL),
        ({"pktrate64": 0, "pktburst64": 1}, errno.ERANGE),
    ],
)
def test_what_the_kernel_refuses(options: dict[str, Any], number: int) -> None:
    given = police(ta.TC_ACT_SHOT, **({"rate": 0} | {k: v for k, v in options.items() if k != "rate"}))
    if "rate" in options:
        given["options"]["rate"] = TABLE[:100]
    with pytest.raises(NetlinkError) as error:
        parsed(given)
    assert error.value.errno == number


def test_a_rate_needs_its_table() -> None:
    with pytest.raises(NetlinkError) as error:
        parsed(police(ta.TC_ACT_SHOT, rate=125_000))
    assert error.value.errno == errno.ENOMEM


def limit_of(**more: Any) -> Limit:
    step = parsed(police(ta.TC_ACT_SHOT, ta.TC_ACT_PIPE, **more), mirred(9))[0][0]
    assert isinstance(step, tc_actions.Police)
    return step.limit


def test_hardware_meters_by_the_rate_or_else_by_the_length() -> None:
    by_packets = limit_of(pktrate64=100, pktburst64=15_625_000)
    assert in_hardware(by_packets).rate == 100
    assert in_hardware(by_packets).packets
    assert in_hardware(by_packets).burst == Price.at(100).of(100)
    assert by_packets.empty, "as tcfp_pkttoks"
    by_length = limit_of(mtu=1000)
    assert (in_hardware(by_length).rate, in_hardware(by_length).most) == (0, 1000)
    assert limit_of().most == 0


def limit(*actions: dict[str, Any]) -> str | None:
    try:
        capability.check_limit(parsed(*actions)[0])
    except NetlinkError as error:
        return error.text
    return None


def test_a_representor_takes_one_limit_of_all_that_is_sent() -> None:
    assert limit(police(ta.TC_ACT_SHOT, ta.TC_ACT_UNSPEC)) is None
    texts = {
        "Offload not supported when conform action is not continue": (police(ta.TC_ACT_SHOT, ta.TC_ACT_OK),),
        "Offload not supported when exceed action is not drop": (police(ta.TC_ACT_OK, ta.TC_ACT_UNSPEC),),
        "mlx5 supports only police action for matchall": (mirred(9),),
        "matchall policing support only a single action": (police(ta.TC_ACT_SHOT, ta.TC_ACT_PIPE), mirred(9)),
    }
    for text, actions in texts.items():
        assert limit(*actions) == f"mlx5_core: {text}"
