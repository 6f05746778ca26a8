# SPDX-License-Identifier: Apache-2.0
"""Filters made from a template are made and told of as if each were translated in full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.tc import RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWTFILTER
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc.qdiscs import PARENT_INGRESS
from asap2.nic.function import EswitchMode
from tests.unit.nic.faces.tc_node import (
    ACK,
    DUMP,
    NEW,
    OTHER,
    REPRESENTOR,
    REQUEST,
    UPLINK,
    Node,
)
from tests.unit.nic.faces.tc_requests import gact, mirred, pop, push

ELSEWHERE = 13


class All(set[int]):
    """Has everything: each template has come before."""

    def __contains__(self, _item: object) -> bool:
        return True


@pytest.fixture(scope="module", autouse=True)
def standing_clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic_ns", lambda: 1_000_000_000_000)
        patch.setattr("socket.if_indextoname", lambda ifindex: f"eth{ifindex}")
        yield


MAC, V4, V6 = st.binary(min_size=6, max_size=6), st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)
PORT = st.integers(0, 65535)


ACTIONS = [
    [mirred(OTHER)],
    [push(57), mirred(UPLINK)],
    [push(58), mirred(UPLINK)],
    [mirred(OTHER, ta.TC_ACT_PIPE), push(5), mirred(UPLINK)],
    [pop(), mirred(OTHER)],
    [mirred(ELSEWHERE)],
    [gact(ta.TC_ACT_SHOT)],
    [gact(ta.TC_ACT_SHOT, 3)],
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """RTM_NEWTFILTER's payload, as Open vSwitch builds it: few templates."""
    mac_mask = draw(st.sampled_from([b"\xff" * 6, b"\xff\xff\xff\0\0\0"]))
    few = draw(st.booleans())
    keys: dict[str, Any] = {"key_eth_dst": b"\2\0\0\0\0\1" if few else draw(MAC), "key_eth_dst_mask": mac_mask}
    protocol = draw(st.sampled_from([0x0800, 0x86DD, 0x0806, 0x8100]))
    keys["key_eth_type"] = protocol
    if protocol == 0x0800:
        keys |= {"key_ipv4_src": draw(V4), "key_ipv4_src_mask": draw(st.sampled_from([b"\xff" * 4, b"\xff\xff\0\0"]))}
        keys |= {"key_ip_proto": 17, "key_udp_dst": draw(PORT), "key_udp_dst_mask": 0xFFF0, "key_ip_tos": 4}
    elif protocol == 0x86DD:
        keys |= {"key_ipv6_dst": draw(V6), "key_ipv6_dst_mask": b"\xff" * 16, "key_ip_proto": 6}
        keys |= {"key_tcp_flags": draw(PORT) & 0xFFF, "key_tcp_flags_mask": 0xFFF, "key_tcp_src": draw(PORT)}
    elif protocol == 0x8100:
        keys |= {"key_vlan_id": draw(st.sampled_from([1, 2])), "key_vlan_eth_type": 0x0800, "key_ipv4_dst": draw(V4)}
    actions = [dict(action) for action in draw(st.sampled_from(ACTIONS))]
    if draw(st.booleans()):
        for action in actions:
            action["cookie"] = draw(st.binary(min_size=16, max_size=16))
    keys |= {"act": actions, "flags": draw(st.sampled_from([0, 0, 2]))}
    prio = draw(st.sampled_from([0, 1])) and protocol & 0xFF
    header = tables.Tcmsg(0, REPRESENTOR, 0, PARENT_INGRESS, tables.info(prio, protocol))
    attrs: dict[str, Any] = {"kind": "flower", "options": keys}
    return tables.TC.encode(header, attrs | draw(st.sampled_from([{}, {"chain": 3}])))


STEPS = st.lists(
    st.one_of(requests(), st.sampled_from(["dump", "terse", "delete", "off", "on", "swapped"])), max_size=40
)


@settings(max_examples=150)
@given(steps=STEPS)
def test_a_template_saves_work_and_changes_nothing(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    directory = tmp_path_factory.mktemp("journal")
    quick, slow = Node(directory, True), Node(directory, False)
    quick.face._templates._once = All()
    for step in steps:
        said = [node_does(node, step) for node in (quick, slow)]
        assert said[0] == said[1]
        assert quick.silicon.rules == slow.silicon.rules
        assert quick.pipeline.rules == slow.pipeline.rules


def node_does(node: Node, step: bytes | str) -> list[bytes]:
    if isinstance(step, bytes):
        return node.ask(RTM_NEWTFILTER, NEW, step)
    everything = tables.Tcmsg(0, REPRESENTOR, 0, PARENT_INGRESS, 0)
    if step in ("dump", "terse"):
        flags = {"dump_flags": ta.Bitfield32(1, 1)} if step == "terse" else {}
        return node.ask(RTM_GETTFILTER, REQUEST | DUMP, tables.TC.encode(everything, flags))
    if step == "delete":
        for proto, one in list(node.filters.all())[::2]:
            info = tables.info(proto.prio, proto.protocol)
            header = tables.Tcmsg(0, proto.block.ifindex, one.handle, PARENT_INGRESS, info)
            node.ask(RTM_DELTFILTER, REQUEST | ACK, tables.TC.encode(header, {"kind": "flower", "chain": proto.chain}))
        return node.told
    if step == "swapped":
        node.swap()
    else:
        node.pf.mode = EswitchMode.SWITCHDEV if step == "on" else EswitchMode.LEGACY
    return []


def to(last: int, *actions: dict[str, Any]) -> bytes:
    """A request for a filter on an address that ends in *last*."""
    keys = {"key_eth_type": 0x0800, "key_ipv4_dst": bytes((10, 0, last >> 8, last & 0xFF)), "act": list(actions)}
    header = tables.Tcmsg(0, REPRESENTOR, 0, PARENT_INGRESS, tables.info(1, 0x0800))
    return tables.TC.encode(header, {"kind": "flower", "options": keys})


def test_the_third_of_a_template_is_not_translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path, True)
    for number in (1, 2):
        node.ask(RTM_NEWTFILTER, NEW, to(number, mirred(OTHER)))

    def refuse(*_: Any) -> Any:
        raise AssertionError("translated again")

    monkeypatch.setattr("asap2.nic.faces.tc.filters.parse_flower", refuse)
    monkeypatch.setattr(tc_actions, "parse", refuse)
    node.ask(RTM_NEWTFILTER, NEW, to(3, mirred(OTHER)))
    assert {rule.match.ip_dst.value & 0xFF for rule in node.silicon.rules.values()} == {1, 2, 3}


def test_templates_of_one_request_are_not_kept(tmp_path: Path) -> None:
    node = Node(tmp_path, True)
    for vid in range(1, 300):
        node.ask(RTM_NEWTFILTER, NEW, to(vid, push(vid), mirred(UPLINK)))
    assert len(node.silicon.rules) == 299
    assert not node.face._templates._seen


def test_a_priority_forgets_where_filters_went_whose_template_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asap2.nic.faces.tc.templates.MOST_TEMPLATES", 8)
    node = Node(tmp_path, True)
    node.ask(RTM_NEWTFILTER, NEW, to(0, mirred(OTHER)))
    ((proto, first),) = node.filters.all()
    for vid in range(1, 100):
        for number in (1, 2, 3):
            node.ask(RTM_NEWTFILTER, NEW, to(number, push(vid), mirred(UPLINK)))
        for one in list(proto.filters.values()):
            if one is not first:
                node.filters.remove(proto, one.handle)
    assert len(proto.places) <= 8


def test_header_rewrite_that_no_packet_meets_is_told_as_it_was_asked_for(tmp_path: Path) -> None:
    """Keys without TCA_PEDIT_KEYS_EX behind a drop: no matter that neither hardware nor software takes them."""
    node = Node(tmp_path, True)
    node.face._templates._once = All()
    parms = ta.Pedit(action=ta.TC_ACT_PIPE, nkeys=1, keys=(ta.PeditKey(0, 0xFFFF, 0),))
    node.ask(RTM_NEWTFILTER, NEW, to(1, ACTIONS[6][0], {"kind": "pedit", "options": {"parms": parms}}))
    (message,) = [message for message in node.told if message[:2] == RTM_NEWTFILTER.to_bytes(2, "big")]
    _, attrs = tables.TC.decode(message[2:])
    assert attrs["options"]["act"][2]["options"]["parms"].keys == parms.keys
