# SPDX-License-Identifier: Apache-2.0
"""The reference eSwitch: which rule, what it does, what it tells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asap2.nic.rules import (
    OVS_TABLE,
    Action,
    Counters,
    Decap,
    Drop,
    Encap,
    Enter,
    Goto,
    Masked,
    Match,
    Output,
    Pass,
    PopVlan,
    PushVlan,
    Rule,
    SetField,
    SetTunnel,
    Truncate,
    Upcall,
)
from asap2.nic.silicon.abi import LOOKUPS
from asap2.nic.silicon.events import Dropped, DropReason, LookupStats, Matched, Passed, Sent, Upcalled, UpcallKind
from asap2.nic.silicon.packet import parse, push_vlan
from asap2.nic.silicon.ports import Miss, Port, PortKind
from asap2.nic.silicon.reference import ReferenceSwitch
from asap2.nic.silicon.resumes import DELIVER
from asap2.nic.silicon.tunnel import encapsulate

A, B, GONE = 1, 2, 3
TO_1, TO_2 = (bytes.fromhex(f"02000000000{n}02000000000988b5") + bytes(46) for n in (1, 2))
VXLAN = Encap(
    "vxlan",
    77,
    bytes([172, 16, 0, 1]),
    bytes([172, 16, 0, 2]),
    eth_src=bytes.fromhex("0200000000aa"),
    eth_dst=bytes.fromhex("0200000000bb"),
)
KERNELS = SetTunnel(77, bytes([172, 16, 0, 1]), bytes([172, 16, 0, 2]))
DST_2 = Match(eth_dst=Masked(0x020000000002, 2**48 - 1))
ODD = Match(eth_dst=Masked(1, 1))


def made(*, tables: tuple[int, ...] = (0,), miss: Miss = Miss.REDIRECT, upcall: bool = True) -> ReferenceSwitch:
    """A switch with the ports A, whose misses go to B, and B."""
    switch = ReferenceSwitch(upcall=upcall)
    switch.set_port(Port(A, 101, PortKind.VF, tables=tables, miss=miss, miss_port=B))
    switch.set_port(Port(B, 102, PortKind.REP, tables=(), miss=Miss.REDIRECT, miss_port=A))
    return switch


def rule(*actions: Action, match: Match | None = None, table: int = 0, priority: int = 1) -> Rule:
    """A rule for packets of port A."""
    return Rule(table, A, priority, match or Match(), actions)


def test_a_miss_goes_to_the_miss_port() -> None:
    assert made().process(TO_1, A) == [Sent(B, TO_1)]
    assert made().process(TO_1, B) == [Sent(A, TO_1)]


@pytest.mark.parametrize(
    ("miss", "event"),
    [
        (Miss.DROP, Dropped(DropReason.MISS)),
        (Miss.PASS, Passed(TO_1)),
        (Miss.UPCALL, Upcalled(UpcallKind.MISS, A, 0, 0, 0, TO_1, parse(TO_1))),
    ],
)
def test_other_misses(miss: Miss, event: object) -> None:
    assert made(miss=miss).process(TO_1, A) == [event]


def test_a_rule_counts_what_it_matches_with_tags_and_segments() -> None:
    switch = made()
    handle = switch.add(rule(Output(B), match=ODD))
    assert switch.process(push_vlan(TO_1, 0x8100, 5), A, segments=10) == [
        Matched(handle, 0),
        Sent(B, push_vlan(TO_1, 0x8100, 5)),
    ]
    switch.process(TO_2, A)
    assert switch.counters(handle) == Counters(10, 64)
    assert switch.lookups(ovs=False) == LookupStats(hit=1, missed=1)


def test_the_smallest_priority_number_decides_then_the_oldest_mask() -> None:
    switch = made()
    last = switch.add(rule(Output(A), priority=9))
    older = switch.add(rule(Output(A), match=DST_2))
    newer = switch.add(rule(Output(A), match=Match()))
    assert switch.process(TO_2, A)[0] == Matched(older, 0)
    switch.remove(older)
    switch.add(rule(Output(A), match=DST_2))
    assert switch.process(TO_2, A)[0] == Matched(newer, 0)
    switch.remove(newer)
    assert switch.process(TO_1, A)[0] == Matched(last, 0)


def test_a_second_rule_for_the_same_packets_is_refused() -> None:
    switch = made()
    switch.add(rule(match=DST_2))
    with pytest.raises(FileExistsError):
        switch.add(rule(Drop(), match=DST_2))


def test_each_output_gets_the_packet_as_it_then_is() -> None:
    switch = made()
    switch.add(rule(Output(A), PushVlan(5, 1), Output(B), PopVlan(), Upcall(7), Truncate(20), Output(B)))
    assert switch.process(TO_1, A)[1:] == [
        Sent(A, TO_1),
        Sent(B, push_vlan(TO_1, 0x8100, 0x2005)),
        Upcalled(UpcallKind.ACTION, A, 0, 7, 0, TO_1, parse(TO_1)),
        Sent(B, TO_1[:20]),
    ]


def test_a_cut_does_not_count_the_outer_tag() -> None:
    switch = made()
    switch.add(rule(PushVlan(5), Truncate(20), Output(B)))
    assert switch.process(TO_1, A)[1:] == [Sent(B, push_vlan(TO_1[:20], 0x8100, 5))]


@pytest.mark.parametrize("actions", [(), (Drop(),), (PushVlan(1),)])
def test_a_packet_that_is_sent_nowhere_is_dropped_by_its_rule(actions: tuple[Action, ...]) -> None:
    switch = made()
    switch.add(rule(*actions))
    assert switch.process(TO_1, A)[1:] == [Dropped(DropReason.RULE)]
    assert switch.drops()["rule"] == 1


def test_goto_looks_the_changed_packet_up() -> None:
    switch = made()
    tagged = Match(vlan_tci=Masked(0x1005, 0x1FFF))
    first = switch.add(rule(PushVlan(5), Goto(3)))
    second = switch.add(rule(Output(B), match=tagged, table=3))
    assert switch.process(TO_1, A)[:2] == [Matched(first, 0), Matched(second, 3)]


def test_lookups_are_bounded() -> None:
    switch = made()
    handle = switch.add(rule(Goto(0)))
    assert switch.process(TO_1, A) == [Matched(handle, 0)] * LOOKUPS + [Dropped(DropReason.LOOP)]


def test_a_miss_in_a_chain_goes_on_in_the_next_stage_at_that_chain() -> None:
    switch = made(tables=(0, OVS_TABLE), miss=Miss.UPCALL)
    switch.add(rule(Goto(5)))
    assert switch.process(TO_1, A)[-1] == Upcalled(UpcallKind.MISS, A, OVS_TABLE | 5, 0, 0, TO_1, parse(TO_1))


def test_pass_goes_to_the_next_stage_and_after_the_last_to_the_network_stack() -> None:
    switch = made(tables=(0, OVS_TABLE))
    switch.add(rule(Goto(5)))
    switch.add(rule(Pass(), table=5))
    switch.add(rule(Pass(), table=OVS_TABLE))
    assert switch.process(TO_1, A)[-1] == Passed(TO_1)


def test_what_one_stage_passes_and_the_next_does_not_know_is_a_miss() -> None:
    switch = made(tables=(0, OVS_TABLE), miss=Miss.UPCALL)
    switch.add(rule(Pass()))
    assert switch.process(TO_1, A)[1:] == [Upcalled(UpcallKind.MISS, A, OVS_TABLE, 0, 0, TO_1, parse(TO_1))]


def test_what_cannot_be_delivered_is_dropped_for_a_reason() -> None:
    switch = made(upcall=False)
    switch.add(rule(Output(GONE), Upcall(1), Output(B), match=DST_2))
    assert switch.process(TO_2, A)[1:] == [
        Dropped(DropReason.OUT_PORT),
        Dropped(DropReason.UPCALL),
        Sent(B, TO_2),
    ]
    switch.set_port(Port(A, 101, PortKind.VF, enabled=False))
    assert switch.process(TO_1, A) == [Dropped(DropReason.IN_PORT)]
    assert switch.process(TO_1, B) == [Dropped(DropReason.OUT_PORT)]
    assert switch.process(TO_1[:13], B) == [Dropped(DropReason.SHORT)]


def test_a_tag_that_cannot_be_popped_drops_the_packet() -> None:
    switch = made()
    switch.add(rule(PopVlan(), Output(B)))
    assert switch.process(TO_1[:12] + b"\x81\0\0\5\x08", A)[1:] == [Dropped(DropReason.ACTION)]


def test_replaced_actions_count_on() -> None:
    switch = made()
    handle = switch.add(rule(Output(B)))
    switch.process(TO_1, A)
    switch.replace(handle, (Drop(),))
    switch.process(TO_1, A)
    assert switch.remove(handle) == Counters(2, 120)


def in_tunnel(number: int) -> Match:
    """Packets of a network."""
    return Match(tun_id=Masked(number, 0xFFFFFF))


def wire(*rules: Rule) -> ReferenceSwitch:
    """A switch whose port A is the wire."""
    switch = made()
    switch.set_port(Port(A, 101, PortKind.UPLINK, miss=Miss.REDIRECT, miss_port=B))
    for one in rules:
        switch.add(one)
    return switch


def test_a_packet_in_a_tunnel_meets_the_rules_for_tunnels_first_then_the_others() -> None:
    switch = wire(rule(Output(A), match=in_tunnel(77)), rule(Output(B), priority=0))
    assert switch.process(encapsulate(TO_1, VXLAN, 0), A)[0] == Matched(1, 0)
    assert switch.process(encapsulate(TO_1, replace(VXLAN, tun_id=78), 0), A)[0] == Matched(2, 0)
    assert switch.lookups(ovs=False) == LookupStats(hit=2)


def test_rules_for_tunnels_see_what_is_inside_and_others_what_is_outside() -> None:
    inner, outside = (Match(eth_dst=Masked(int.from_bytes(mac, "big"), 2**48 - 1)) for mac in (TO_1[:6], VXLAN.eth_dst))
    switch = wire(rule(Output(A), match=inner.but(tun_id=Masked(1, 1))), rule(Output(B), match=outside))
    assert switch.process(encapsulate(TO_1, VXLAN, 0), A)[0] == Matched(1, 0)
    assert switch.process(encapsulate(TO_2, VXLAN, 0), A)[0] == Matched(2, 0)


def test_only_the_wire_is_looked_into_for_tunnels() -> None:
    switch = made()
    switch.add(rule(Output(A), match=in_tunnel(77)))
    assert switch.process(encapsulate(TO_1, VXLAN, 0), A) == [Sent(B, encapsulate(TO_1, VXLAN, 0))]


def test_each_copy_can_have_its_own_tunnel_and_tag() -> None:
    switch = made()
    other = replace(VXLAN, tun_id=78)
    switch.add(rule(VXLAN, Output(B), Decap(), other, PushVlan(5), Output(A), PopVlan(), Decap(), Output(B)))
    assert switch.process(TO_1, A, flow_hash=9)[1:] == [
        Sent(B, encapsulate(TO_1, VXLAN, 9)),
        Sent(A, push_vlan(encapsulate(TO_1, other, 9), 0x8100, 5)),
        Sent(B, TO_1),
    ]


def test_what_came_out_of_a_tunnel_can_be_in_another() -> None:
    twice = encapsulate(encapsulate(TO_1, replace(VXLAN, tun_id=78), 0), VXLAN, 0)
    switch = wire(rule(Decap(), Goto(0), match=in_tunnel(77)), rule(Decap(), Output(B), match=in_tunnel(78)))
    assert switch.process(twice, A) == [Matched(1, 0), Matched(2, 0), Sent(B, TO_1)]


def test_a_tunnel_device_tells_the_tunnel_and_the_next_one_is_told() -> None:
    switch = made()
    switch.set_port(Port(A, 101, PortKind.NODE, miss=Miss.UPCALL, metadata=True))
    switch.add(rule(KERNELS, Output(B), match=in_tunnel(77)))
    came_in = replace(KERNELS, src=bytes([172, 16, 0, 9]))
    assert switch.process(TO_1, A, came_in=came_in)[1:] == [Sent(B, TO_1, replace(KERNELS, tp_dst=0))]
    told = switch.process(TO_1, A, came_in=replace(came_in, tun_id=78))[0]
    assert isinstance(told, Upcalled)
    assert (told.fields["tun_id"], told.fields["tun_src"]) == (78, 0xAC100009)
    assert switch.process(TO_1, A) == [Upcalled(UpcallKind.MISS, A, 0, 0, 0, TO_1, parse(TO_1))]


def test_after_decap_nothing_is_known_of_the_kernels_tunnel() -> None:
    switch = made()
    switch.set_port(Port(A, 101, PortKind.NODE, miss=Miss.DROP, metadata=True))
    switch.add(rule(Decap(), Goto(0), match=in_tunnel(77)))
    assert switch.process(TO_1, A, came_in=KERNELS) == [Matched(1, 0), Dropped(DropReason.MISS)]


def test_a_field_is_rewritten() -> None:
    switch = made()
    switch.add(rule(SetField("eth_src", Masked(0xFF, 0xFF)), Output(B)))
    assert switch.process(TO_1, A)[1:] == [Sent(B, TO_1[:11] + b"\xff" + TO_1[12:])]


def test_the_node_is_told_where_the_nic_gave_up() -> None:
    switch = made()
    switch.add(rule(Output(B, 9), Goto(5, 7)))
    assert switch.process(TO_1, A)[1:] == [Sent(B, TO_1, resume=9), Sent(B, TO_1, resume=7)]


def test_the_node_goes_on_there() -> None:
    switch = made()
    switch.set_port(Port(B, 102, PortKind.NODE, tables=(0,), miss=Miss.PASS, resumes=True))
    for number, place in enumerate(((5, 0), (5, A), (DELIVER, A)), 1):
        switch.set_resume(number, *place)
    switch.add(Rule(5, B, 1, actions=(Output(A),)))
    switch.add(rule(Drop(), table=5))
    assert switch.process(TO_1, B) == [Passed(TO_1)]
    assert switch.process(TO_1, B, resume=1) == [Matched(1, 5), Sent(A, TO_1)]
    assert switch.process(TO_1, B, resume=2) == [Matched(2, 5), Dropped(DropReason.RULE)]
    assert switch.process(TO_1, B, resume=3) == [Sent(A, TO_1)]
    assert switch.process(TO_1, B, resume=4) == [Passed(TO_1)]


def test_what_goes_to_a_port_behind_a_device_says_whose_it_is() -> None:
    switch = made()
    switch.set_port(Port(GONE, 102, PortKind.NODE, tables=(), miss=Miss.DROP, tell=9))
    switch.add(rule(Output(GONE, 5), Output(GONE), Output(B)))
    assert switch.process(TO_1, A)[1:] == [Sent(GONE, TO_1, resume=9), Sent(GONE, TO_1, resume=9), Sent(B, TO_1)]


def test_a_packet_enters_by_another_port() -> None:
    switch = made()
    switch.set_port(Port(GONE, 103, PortKind.INTERNAL, tables=(3,), miss=Miss.DROP))
    switch.add(rule(PushVlan(5), Enter(GONE)))
    switch.add(Rule(3, GONE, 1, actions=(Output(B),)))
    assert switch.process(TO_1, A)[1:] == [Matched(2, 3), Sent(B, push_vlan(TO_1, 0x8100, 5))]
    switch.set_port(Port(GONE, 103, PortKind.INTERNAL, tables=()))
    assert switch.process(TO_1, A)[1:] == [Dropped(DropReason.OUT_PORT)]
