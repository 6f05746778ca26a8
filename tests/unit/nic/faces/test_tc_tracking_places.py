# SPDX-License-Identifier: Apache-2.0
"""A filter that looks connections up goes into software and hardware, and packets that hardware leaves go on there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.tc import RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWTFILTER
from asap2.netlink.wire import split
from asap2.nic.faces.tc.qdiscs import PARENT_INGRESS
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import UNREACHED, Action, Ct, CtClear, CtHardware, Decap, Drop, Goto, Masked, Output, PopVlan, Rule
from tests.unit.nic.faces.tc_node import DUMP, NEW, OTHER, REPRESENTOR, REQUEST, TUNNEL, Node
from tests.unit.nic.faces.tc_requests import ct, gact, goto, mirred, pop

SKIP_HW, SKIP_SW = 1, 2
REPLACE = 0x100
NAT = ta.TCA_CT_ACT_NAT | ta.TCA_CT_ACT_NAT_SRC | ta.TCA_CT_ACT_COMMIT
ADDRESS = b"\x0a\0\0\1"


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.if_indextoname", lambda ifindex: f"eth{ifindex}")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def ask(
    node: Node,
    kind: int,
    flags: int,
    options: dict[str, Any] | None,
    chain: int = 0,
    tag: int = 0,
    device: int = REPRESENTOR,
) -> None:
    header = tables.Tcmsg(0, device, 1, PARENT_INGRESS, tables.info(3, tag or 0x0800))
    attrs: dict[str, Any] = {"kind": "flower", "chain": chain}
    told = node.ask(kind, flags, tables.TC.encode(header, attrs | ({} if options is None else {"options": options})))
    assert told
    (error,) = [int.from_bytes(m[17:21], "little", signed=True) for m in told if m[5:7] == b"\2\0"] or [0]
    assert not error, f"errno {-error}"


def add(node: Node, *actions: dict[str, Any], flags: int = 0, chain: int = 0, **more: Any) -> None:
    options = {"key_eth_type": 0x0800, **more.pop("keys", {}), "act": list(actions)} | (
        {"flags": flags} if flags else {}
    )
    ask(node, RTM_NEWTFILTER, more.pop("message", NEW), options, chain=chain, **more)


def rules(pipeline: Any) -> list[Rule]:
    return list(pipeline.rules.values())


def rest(node: Node, action: Action) -> tuple[Action, ...]:
    """What software does with a packet that hardware leaves at *action*."""
    assert isinstance(action, CtHardware)
    return node.pipeline.within[action.resume][1]


def test_a_lookup_is_in_both_and_what_hardware_does_not_carry_goes_on_at_it(node: Node) -> None:
    add(node, pop(), ct(zone=5), goto(2), keys={"key_eth_type": 0x8100, "key_vlan_eth_type": 0x0800}, tag=0x8100)
    (software,), (hardware,) = rules(node.pipeline), rules(node.silicon)
    assert software.actions == (PopVlan(), Ct(5, offload=True), Goto(2))
    assert hardware.actions[:2] == (PopVlan(), CtHardware(5, False, 1))
    assert hardware.actions[2] == Goto(2, 1002)
    assert rest(node, hardware.actions[1]) == software.actions[1:]


def test_each_lookup_has_a_place_of_its_own_to_go_on_at(node: Node) -> None:
    add(node, ct(ta.TCA_CT_ACT_COMMIT, zone=5), ct(NAT, zone=6, nat_ipv4_min=ADDRESS), mirred(OTHER))
    (software,), (hardware,) = rules(node.pipeline), rules(node.silicon)
    first, second, _ = hardware.actions
    assert [type(action) for action in hardware.actions] == [CtHardware, CtHardware, Output]
    assert (first, second) == (CtHardware(5, False, 1), CtHardware(6, True, 2))
    assert rest(node, first) == software.actions
    assert rest(node, second) == software.actions[1:]
    assert software.actions[1] == Ct(6, True, nat=Nat(NatKind.SRC, ADDRESS, ADDRESS), offload=True)


def test_a_clear_is_done_in_hardware_alone(node: Node) -> None:
    add(node, ct(ta.TCA_CT_ACT_CLEAR), mirred(OTHER))
    assert not rules(node.pipeline)
    (hardware,) = rules(node.silicon)
    assert hardware.actions[0] == CtClear()


def test_without_software_there_is_a_place_to_go_on_at_that_no_packet_finds(node: Node) -> None:
    add(node, ct(zone=5), goto(2), flags=SKIP_SW, chain=1)
    (beneath,), (hardware,) = rules(node.pipeline), rules(node.silicon)
    assert (beneath.table, hardware.table) == (UNREACHED | 1, 1)
    assert rest(node, hardware.actions[0]) == (Ct(5, offload=True), Goto(2))


def test_without_hardware_there_is_software_alone(node: Node) -> None:
    add(node, ct(zone=5), goto(2), flags=SKIP_HW)
    assert [rule.actions for rule in rules(node.pipeline)] == [(Ct(5, offload=True), Goto(2))]
    assert not rules(node.silicon)


def test_what_the_driver_refuses_stays_in_software(tmp_path: Path) -> None:
    node = Node(tmp_path, model="ConnectX-4 Lx")
    add(node, ct(zone=5), mirred(OTHER))
    assert len(rules(node.pipeline)) == 1
    assert not rules(node.silicon)
    assert not node.pipeline.within


def test_what_the_driver_refuses_is_refused_where_it_must_not_be_in_software(tmp_path: Path) -> None:
    node = Node(tmp_path, model="ConnectX-4 Lx")
    with pytest.raises(AssertionError, match="errno 95"):
        add(node, ct(zone=5), mirred(OTHER), flags=SKIP_SW)
    assert not rules(node.pipeline)


def test_the_other_filters_are_in_software_too_for_the_packets_that_go_on_there(node: Node) -> None:
    add(node, mirred(OTHER), chain=2)
    assert not rules(node.pipeline)
    add(node, ct(zone=5), goto(2))
    assert sorted(rule.table for rule in rules(node.pipeline)) == [0, 2]


def test_with_the_filter_its_places_go(node: Node) -> None:
    add(node, ct(zone=5), ct(zone=6), mirred(OTHER))
    assert len(node.pipeline.within) == 2
    ask(node, RTM_DELTFILTER, REQUEST | 4, None)
    assert not node.pipeline.within
    assert not rules(node.pipeline)
    assert not rules(node.silicon)


def test_a_filter_that_takes_the_place_of_another_has_its_own(node: Node) -> None:
    add(node, ct(zone=5), goto(2))
    add(node, ct(zone=6), goto(3), message=NEW & ~0x200 | REPLACE)
    (software,), (hardware,) = rules(node.pipeline), rules(node.silicon)
    assert len(node.pipeline.within) == 1
    assert rest(node, hardware.actions[0]) == software.actions == (Ct(6, offload=True), Goto(3))


def test_labels_and_zone_are_matched_on_as_a_whole_in_hardware(node: Node) -> None:
    keys = {"key_ct_labels": bytes(16), "key_ct_labels_mask": bytes(15) + b"\2"}
    add(node, gact(ta.TC_ACT_SHOT), keys=keys)
    (hardware,) = rules(node.silicon)
    assert hardware.match.ct_labels == Masked(0, (1 << 128) - 1)
    assert hardware.actions == (Drop(),)


def test_what_was_counted_tells_hardware_from_software(node: Node) -> None:
    add(node, mirred(OTHER))  # so that the next handles count something
    ask(node, RTM_DELTFILTER, REQUEST | 4, None)
    add(node, ct(zone=5), goto(2))
    add(node, ct(zone=5), goto(2), chain=1)
    for pipeline in (node.pipeline, node.silicon):
        assert len(rules(pipeline)) == 2
    header = tables.Tcmsg(0, REPRESENTOR, 0, PARENT_INGRESS, 0)
    told = node.ask(RTM_GETTFILTER, REQUEST | DUMP, tables.TC.encode(header, {}))
    filters = [message for each in told for message in split(each[1:]) if message.type == RTM_NEWTFILTER]
    options = [tables.TC.decode(message.payload)[1].get("options") for message in filters]
    stats = [[action["stats"] for action in one["act"].values()] for one in options if one]
    assert len(stats) == 2
    for one in stats[-1]:
        assert one["basic"].packets > one["basic_hw"].packets > 0


@pytest.fixture
def tunnelled(node: Node) -> Node:
    node.begin(TUNNEL)
    return node


FROM_TUNNEL = {
    "key_enc_key_id": 77,
    "key_enc_udp_dst_port": 4789,
    "key_enc_udp_dst_port_mask": 0xFFFF,
}


def unset() -> dict[str, Any]:
    parms = ta.TunnelKey(action=ta.TC_ACT_PIPE, t_action=ta.TCA_TUNNEL_KEY_ACT_RELEASE)
    return {"kind": "tunnel_key", "options": {"parms": parms}}


def from_tunnel(node: Node, *actions: dict[str, Any], chain: int = 0, flags: int = 0) -> None:
    add(node, *actions, keys=FROM_TUNNEL, device=TUNNEL, chain=chain, flags=flags)


def test_a_packet_that_is_looked_up_and_goes_on_stays_in_its_tunnel(tunnelled: Node) -> None:
    from_tunnel(tunnelled, ct(zone=5), goto(2))
    from_tunnel(tunnelled, unset(), mirred(OTHER), chain=2)
    hardware, last = rules(tunnelled.silicon)
    assert hardware.actions == (CtHardware(5, False, 0, inside=True), Goto(2))
    assert last.actions[0] == Decap()
    assert [rule.table for rule in rules(tunnelled.pipeline)] == [0, 2], "software can begin with any packet"
    assert not tunnelled.pipeline.within


def test_a_packet_that_is_looked_up_last_is_out_of_its_tunnel_before(tunnelled: Node) -> None:
    from_tunnel(tunnelled, ct(ta.TCA_CT_ACT_COMMIT, zone=5), unset(), mirred(OTHER))
    (software,), (hardware,) = rules(tunnelled.pipeline), rules(tunnelled.silicon)
    assert hardware.actions[:2] == (Decap(), CtHardware(5, False, 1))
    assert rest(tunnelled, hardware.actions[1]) == software.actions


def test_what_is_sent_on_without_a_lookup_is_in_both(tunnelled: Node) -> None:
    from_tunnel(tunnelled, goto(2))
    assert [rule.actions for rule in rules(tunnelled.silicon)] == [(Goto(2),)]
    assert len(rules(tunnelled.pipeline)) == 1


@pytest.mark.parametrize("before", [unset, pop])
def test_a_packet_that_has_changed_is_not_sent_on_in_hardware(
    tunnelled: Node, before: Callable[[], dict[str, Any]]
) -> None:
    with pytest.raises(AssertionError, match="errno 95"):
        from_tunnel(tunnelled, before(), ct(zone=5), goto(2), flags=SKIP_SW)
    assert not rules(tunnelled.silicon)
