# SPDX-License-Identifier: Apache-2.0
"""Frames through the silicon of one NIC: defaults, rules, actions, counters."""

from __future__ import annotations

import errno

import pytest

from asap2.nic.rules import (
    VLAN_PRESENT,
    Action,
    Drop,
    Goto,
    Masked,
    Match,
    ModifyVlan,
    Output,
    PopVlan,
    PushVlan,
    Rule,
)
from asap2.nic.silicon import maps
from asap2.nic.silicon.pipeline import Pipeline
from tests.system.nic.silicon.conftest import MAC, REP1, REP2, VF1, VF2, WIRE, WIRE_REP, Nic
from tests.system.nic.silicon.network import ethernet, eventually

FULL48 = (1 << 48) - 1
BROADCAST = b"\xff" * 6


def to(mac: bytes) -> Match:
    """Matches frames for *mac*."""
    return Match(eth_dst=Masked(int.from_bytes(mac, "big"), FULL48))


def vlan(vid: int) -> Match:
    """Matches frames with the VLAN *vid*."""
    return Match(vlan_tci=Masked(VLAN_PRESENT | vid, VLAN_PRESENT | 0xFFF))


def rule(in_port: int, *actions: Action, match: Match | None = None, priority: int = 1, table: int = 0) -> Rule:
    """A rule of table 0, for any packet."""
    return Rule(table, in_port, priority, match or Match(), actions)


@pytest.mark.parametrize(
    ("sender", "receiver"), [(VF1, REP1), (REP1, VF1), (VF2, REP2), (WIRE, WIRE_REP), (WIRE_REP, WIRE)]
)
@pytest.mark.parametrize("destination", [MAC[VF1], MAC[WIRE], BROADCAST])
def test_without_rules_a_device_and_its_representor_reach_each_other(
    lasting_nic: Nic, sender: int, receiver: int, destination: bytes
) -> None:
    tap = lasting_nic.tap(receiver)
    frame = ethernet(destination, MAC[VF2], b"hello", tags=((0x8100, 57),))
    lasting_nic.tap(sender).send(frame)
    assert tap.receive() == frame


def test_a_rule_takes_its_packets_past_the_representor(nic: Nic) -> None:
    seen, host = nic.tap(VF2), nic.tap(REP1)
    handle = nic.pipeline.add(rule(VF1, Output(VF2), match=to(MAC[VF2])))
    one, other = ethernet(MAC[VF2], MAC[VF1], b"one"), ethernet(BROADCAST, MAC[VF1], b"other")
    nic.tap(VF1).send(one, other)
    assert seen.receive() == one
    assert host.receive() == other
    counters = nic.pipeline.counters([handle])[0]
    assert (counters.packets, counters.bytes) == (1, 60)
    assert counters.used_ns


def test_a_tag_is_pushed_towards_the_wire_and_popped_from_it(nic: Nic) -> None:
    nic.pipeline.add(rule(VF1, PushVlan(57, 3), Output(WIRE)))
    back = nic.pipeline.add(rule(WIRE, PopVlan(), Output(VF1), match=vlan(57)))
    far, guest = nic.tap(WIRE), nic.tap(VF1)
    guest.send(ethernet(MAC[WIRE], MAC[VF1], b"out"))
    assert far.receive() == ethernet(MAC[WIRE], MAC[VF1], b"out", tags=((0x8100, 3 << 13 | 57),)).ljust(64, b"\0")
    far.send(ethernet(MAC[VF1], MAC[WIRE], b"in" * 30, tags=((0x8100, 57),)))
    assert guest.receive() == ethernet(MAC[VF1], MAC[WIRE], b"in" * 30)
    assert nic.pipeline.counters([back])[0].bytes == 18 + 60


def test_a_tag_is_modified_in_place(nic: Nic) -> None:
    nic.pipeline.add(rule(VF1, ModifyVlan(100, 5), Output(VF2)))
    seen = nic.tap(VF2)
    nic.tap(VF1).send(ethernet(MAC[VF2], MAC[VF1], b"q" * 50, tags=((0x8100, 57), (0x8100, 9))))
    assert seen.receive() == ethernet(MAC[VF2], MAC[VF1], b"q" * 50, tags=((0x8100, 5 << 13 | 100), (0x8100, 9)))


def test_a_second_tag_goes_outside_the_first(nic: Nic) -> None:
    nic.pipeline.add(rule(VF1, PushVlan(200, tpid=0x88A8), Output(VF2)))
    seen = nic.tap(VF2)
    nic.tap(VF1).send(ethernet(MAC[VF2], MAC[VF1], b"q" * 50, tags=((0x8100, 57),)))
    assert seen.receive() == ethernet(MAC[VF2], MAC[VF1], b"q" * 50, tags=((0x88A8, 200), (0x8100, 57)))


@pytest.mark.parametrize("actions", [(), (Drop(),)])
def test_a_dropped_packet_reaches_nobody_and_is_counted(nic: Nic, actions: tuple[Action, ...]) -> None:
    nic.pipeline.add(rule(VF1, *actions, match=to(MAC[VF2])))
    host = nic.tap(REP1)
    last = ethernet(BROADCAST, MAC[VF1])
    nic.tap(VF1).send(ethernet(MAC[VF2], MAC[VF1]), last)
    assert host.receive_all(last) == []
    assert nic.pipeline.drops()["rule"] == 1


def test_several_outputs_each_get_the_packet_as_it_then_is(nic: Nic) -> None:
    nic.pipeline.add(rule(VF1, Output(REP2), PushVlan(5), Output(WIRE), PopVlan(), Output(VF2)))
    taps = [nic.tap(REP2), nic.tap(WIRE), nic.tap(VF2)]
    plain = ethernet(BROADCAST, MAC[VF1], b"flood" * 20)
    nic.tap(VF1).send(plain)
    assert [tap.receive() for tap in taps] == [
        plain,
        ethernet(BROADCAST, MAC[VF1], b"flood" * 20, tags=((0x8100, 5),)),
        plain,
    ]


def test_goto_looks_the_changed_packet_up_in_another_chain(nic: Nic) -> None:
    first = nic.pipeline.add(rule(VF1, PopVlan(), Goto(7), match=vlan(57)))
    second = nic.pipeline.add(rule(VF1, Output(VF2), table=7, match=Match(vlan_tci=Masked(0, 0xFFFF))))
    seen = nic.tap(VF2)
    nic.tap(VF1).send(ethernet(MAC[VF2], MAC[VF1], b"x" * 60, tags=((0x8100, 57),)))
    assert seen.receive() == ethernet(MAC[VF2], MAC[VF1], b"x" * 60)
    assert [c.packets for c in nic.pipeline.counters([first, second])] == [1, 1]


def test_a_chain_that_leads_to_itself_ends(nic: Nic) -> None:
    nic.pipeline.add(rule(VF1, Goto(0), match=to(MAC[VF2])))
    host = nic.tap(REP1)
    last = ethernet(BROADCAST, MAC[VF1])
    nic.tap(VF1).send(ethernet(MAC[VF2], MAC[VF1]), last)
    assert host.receive_all(last) == []
    assert nic.pipeline.drops()["loop"] == 1


def test_the_smaller_priority_number_comes_first(nic: Nic) -> None:
    nic.pipeline.add(rule(VF1, Output(WIRE), priority=2, match=to(MAC[VF2])))
    nic.pipeline.add(rule(VF1, Output(REP2), priority=3))
    seen = nic.tap(VF2)
    chosen = nic.pipeline.add(rule(VF1, Output(VF2), priority=1))
    nic.tap(VF1).send(ethernet(MAC[VF2], MAC[VF1]))
    seen.receive()
    assert nic.pipeline.remove(chosen).packets == 1


def test_replaced_actions_count_on(nic: Nic) -> None:
    handle = nic.pipeline.add(rule(VF1, Output(VF2)))
    vf2, far, guest = nic.tap(VF2), nic.tap(WIRE), nic.tap(VF1)
    frame = ethernet(MAC[VF2], MAC[VF1])
    guest.send(frame)
    vf2.receive()
    nic.pipeline.replace(handle, (Output(WIRE),))
    guest.send(frame)
    far.receive()
    assert nic.pipeline.counters([handle])[0].packets == 2
    assert nic.pipeline.rules[handle].actions == (Output(WIRE),)


def test_output_to_a_port_that_is_not_there_is_a_counted_drop_until_it_comes(nic: Nic) -> None:
    port = nic.port(VF2)
    nic.pipeline.add(rule(VF1, Output(VF2)))
    nic.pipeline.remove_port(VF2)
    guest, seen = nic.tap(VF1), nic.tap(VF2)
    first, second = ethernet(MAC[VF2], MAC[VF1], b"1"), ethernet(MAC[VF2], MAC[VF1], b"2")
    guest.send(first)
    assert eventually(lambda: nic.pipeline.drops()["out_port"] == 1)
    nic.pipeline.set_port(port)
    guest.send(second)
    assert seen.receive_all(second) == []
    assert nic.pipeline.drops()["out_port"] == 1


def test_a_second_rule_for_the_same_packets_is_refused(nic: Nic) -> None:
    nic.pipeline.add(rule(VF1, Output(VF2), match=to(MAC[VF2])))
    with pytest.raises(OSError, match="such a rule already") as e:
        nic.pipeline.add(rule(VF1, Drop(), match=to(MAC[VF2])))
    assert e.value.errno == errno.EEXIST
    assert len(nic.pipeline.rules) == 1


def test_rules_are_added_by_the_pattern_of_another(nic: Nic) -> None:
    pipeline, match = nic.pipeline, to(MAC[VF2])
    model, like = (rule(VF1, Output(VF2), match=match.but(ip_dst=Masked(n, 0xFFFFFFFF))) for n in (1, 2))
    first = pipeline.add(model)
    pattern, key = pipeline.pattern(first), maps.encode_match(like.match)[1]
    second = pipeline.add_like(pattern, key)
    assert second is not None
    assert pipeline.rules == {first: model, second: like}
    with pytest.raises(OSError, match="such a rule already"):
        pipeline.add_like(pattern, key)
    pipeline.remove(first)
    third = pipeline.add_like(pattern, pattern.key)
    assert third is not None
    assert pipeline.rules == {second: like, third: model}
    guest, seen = nic.tap(VF1), nic.tap(VF2)
    frame = ethernet(MAC[VF2], MAC[VF1], bytes.fromhex("45000014000000004011") + bytes(9) + b"\2", ethertype=0x0800)
    guest.send(frame)
    assert seen.receive() == frame
    assert [pipeline.remove(handle).packets for handle in (second, third)] == [1, 0]
    pipeline.add(model)  # the mask and the actions, but not those of the pattern
    assert pipeline.add_like(pattern, key) is None
    assert list(pipeline.rules.values()) == [model]


def test_a_rule_that_is_gone_leaves_its_packets_to_the_representor(nic: Nic) -> None:
    handle = nic.pipeline.add(rule(VF1, Output(VF2)))
    guest, seen, host = nic.tap(VF1), nic.tap(VF2), nic.tap(REP1)
    frame = ethernet(MAC[VF2], MAC[VF1])
    guest.send(frame)
    seen.receive()
    assert nic.pipeline.remove(handle).packets == 1
    guest.send(frame)
    assert host.receive() == frame


def test_a_pipeline_opened_again_goes_on(nic: Nic) -> None:
    rules = [rule(VF1, Output(VF2), match=to(MAC[VF2])), rule(VF1, PushVlan(7), Output(REP1), Output(WIRE), priority=9)]
    handles = [nic.pipeline.add(r) for r in rules]
    guest, seen = nic.tap(VF1), nic.tap(VF2)
    frame = ethernet(MAC[VF2], MAC[VF1])
    guest.send(frame)
    seen.receive()
    nic.pipeline.close()
    guest.send(frame)
    seen.receive()
    again = Pipeline.open(nic.pipeline.directory)
    assert again.rules == dict(zip(handles, rules, strict=True))
    assert again.ports == {n: nic.port(n) for n in nic.devices}
    assert again.counters(handles)[0].packets == 2
    nic.pipeline = again
    again.remove(handles[0])
    far = nic.tap(WIRE)
    guest.send(frame)
    assert far.receive() == ethernet(MAC[VF2], MAC[VF1], tags=((0x8100, 7),)).ljust(64, b"\0")
