# SPDX-License-Identifier: Apache-2.0
"""TC actions that the kernel offers to no driver: what they do in software, refuse, and give back."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import software_actions as sa
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.layer_actions import Congest, PopEthernet, PushEthernet, SetEthertype, SwapEthernet
from asap2.nic.rules import Drop, Masked, SetField
from tests.unit.nic.faces.tc_requests import flagged, parsed

MAC, OTHER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
WHOLE = (1 << 48) - 1


def skbmod(flags: int = 0, **options: Any) -> dict[str, Any]:
    return {"kind": "skbmod", "options": {"parms": sa.Skbmod(action=ta.TC_ACT_PIPE, flags=flags), **options}}


def in_software(action: Any) -> tuple[Any, ...]:
    steps, _ = parsed(action)
    return tc_actions.to_rule(steps, lambda step: step.ifindex, Drop, prio=1)[:-1]


def refusal(action: Any) -> tuple[int | None, str | None]:
    with pytest.raises(NetlinkError) as refused:
        in_software(action)
    return refused.value.errno, refused.value.strerror


def test_skbmod_sets_addresses_and_type() -> None:
    done = in_software(skbmod(dmac=MAC, smac=OTHER, etype=0x88B5))
    assert done == (
        SetField("eth_dst", Masked(int.from_bytes(MAC, "big"), WHOLE)),
        SetField("eth_src", Masked(int.from_bytes(OTHER, "big"), WHOLE)),
        SetEthertype(0x88B5),
    )


@pytest.mark.parametrize(("flags", "does"), [(8, SwapEthernet()), (16, Congest()), (24, Congest())])
def test_of_skbmod_an_exchange_or_a_mark_is_all_that_is_done(flags: int, does: Any) -> None:
    assert in_software(skbmod(flags, dmac=MAC)) == (does,)
    (_, (listed,)) = parsed(skbmod(flags, dmac=MAC))
    back = dict(listed.options)
    assert "dmac" not in back
    assert back["parms"].flags == (16 if flags & 16 else flags)


def test_skbmod_that_does_nothing_is_refused() -> None:
    assert refusal(skbmod())[0] == errno.EINVAL


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("nat", {"parms": sa.Nat()}),
        ("connmark", {"parms": sa.Connmark(zone=7)}),
        ("ctinfo", {"parms": ta.Generic(), "cpmark_mask": 1}),
        ("ife", {"parms": sa.Ife(flags=1), "metalst": {"skbmark": b""}}),
        ("bpf", {"parms": ta.Generic(), "ops_len": 1, "ops": struct.pack("=HBBI", 6, 0, 0, 0)}),
    ],
)
def test_what_the_pipeline_cannot_do_can_be_made_and_no_filter_can_have_it(kind: str, options: Any) -> None:
    action = flagged({"kind": kind, "options": options})
    (_, (listed,)) = parsed(action)
    assert listed.kind == kind
    assert refusal(action) == (errno.EOPNOTSUPP, f"TC action {kind} is not supported in filters")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dscp_mask": 0xF8000000}, "act_ctinfo: dscp mask must be 6 contiguous bits"),
        ({"dscp_mask": 0}, "act_ctinfo: dscp mask must be 6 contiguous bits"),
        ({"dscp_mask": 0x3F, "dscp_statemask": 1}, "act_ctinfo: dscp statemask must not overlap dscp mask"),
    ],
)
def test_ctinfo_takes_the_mask_of_a_dscp_alone(options: Any, text: str) -> None:
    action = flagged({"kind": "ctinfo", "options": {"parms": ta.Generic(), **options}})
    assert refusal(action) == (errno.EINVAL, text)


@pytest.mark.parametrize(
    ("metadata", "number"),
    [({"skbmark": b"\0\0"}, errno.EINVAL), ({"tcindex": bytes(4)}, errno.EINVAL), ({"hashid": b""}, errno.ENOENT)],
)
def test_ife_carries_what_it_knows_the_size_of(metadata: dict[str, bytes], number: int) -> None:
    action = {"kind": "ife", "options": {"parms": sa.Ife(flags=1), "metalst": metadata}}
    assert refusal(action)[0] == number


@pytest.mark.parametrize(
    "code", [b"", bytes(8), struct.pack("=HBBI", 0xFF, 0, 0, 12), struct.pack("=HBBI", 5, 0, 0, 9)]
)
def test_the_kernel_looks_at_a_program(code: bytes) -> None:
    action = {"kind": "bpf", "options": {"parms": ta.Generic(), "ops_len": len(code) // 8, "ops": code}}
    assert refusal(action)[0] == errno.EINVAL


def test_a_program_of_ebpf_is_not_supported() -> None:
    assert refusal({"kind": "bpf", "options": {"parms": ta.Generic(), "fd": 3}})[0] == errno.EOPNOTSUPP
    assert refusal({"kind": "bpf", "options": {"parms": ta.Generic()}})[0] == errno.EINVAL


def test_an_ethernet_header_comes_and_goes() -> None:
    pop = {"kind": "vlan", "options": {"parms": ta.Vlan(action=ta.TC_ACT_PIPE, v_action=ta.TCA_VLAN_ACT_POP_ETH)}}
    assert in_software(pop) == (PopEthernet(),)
    parms = ta.Vlan(action=ta.TC_ACT_PIPE, v_action=ta.TCA_VLAN_ACT_PUSH_ETH)
    push = {"kind": "vlan", "options": {"parms": parms, "push_eth_dst": MAC, "push_eth_src": OTHER}}
    assert in_software(push) == (PushEthernet(MAC, OTHER),)
    assert refusal({"kind": "vlan", "options": {"parms": parms, "push_eth_dst": MAC}})[0] == errno.EINVAL
