# SPDX-License-Identifier: Apache-2.0
"""The drawing of a packet's way says what captures and counters say."""

from __future__ import annotations

import io

from asap2.lab.packet_way import Passage, Way, draw, shares
from asap2.lab.reading import deeds, find_flow
from asap2.screen import Screen
from tests.unit.lab.test_proofs import FLOWS

SENT = 20


def passages(*, seen: tuple[int, ...] = (1,), counted: int = 19) -> tuple[Passage, Passage]:
    return (
        Passage("hv1", 3, "eth3", [1], 19, ["push_vlan 57"]),
        Passage("hv2", 2, "eth2", seen, counted, ["pop_vlan"]),
    )


def drawn(number: int, **second: object) -> list[str]:
    file = io.StringIO()
    Screen(file=file).print(*draw(number, SENT, ("vm1", "vm2"), passages(**second)))  # type: ignore[arg-type]
    return file.getvalue().splitlines()


def test_a_packet_that_both_hosts_saw_goes_up_and_down_twice() -> None:
    assert drawn(1) == [
        "                      hv1                           hv2",
        "  host      ┌ eth3 ▶ Open vSwitch ┐       ┌ Open vSwitch ▶ eth2 ┐",
        "  vm1 ─ VF 3┘       no rule       └p0 ═ p0┘       no rule       └VF 2 ─ vm2",
    ]


def test_a_packet_that_no_host_saw_and_both_rules_counted_goes_straight_through() -> None:
    assert drawn(2) == [
        "                      hv1                           hv2",
        "  vm1 ─ VF 3 ─── push_vlan 57 ──── p0 ═ p0 ───── pop_vlan ────── VF 2 ─ vm2",
    ]


def test_one_host_may_see_a_packet_that_the_other_does_not() -> None:
    assert drawn(2, seen=(1, 2), counted=18) == [
        "                      hv1                           hv2",
        "  host                                    ┌ Open vSwitch ▶ eth2 ┐",
        "  vm1 ─ VF 3 ─── push_vlan 57 ──── p0 ═ p0┘       no rule       └VF 2 ─ vm2",
    ]


def test_a_packet_that_nobody_saw_and_no_rule_counted_is_not_drawn_as_offloaded() -> None:
    assert passages(counted=17)[1].way(2, SENT) is Way.UNKNOWN
    assert drawn(2, counted=17)[1] == "  vm1 ─ VF 3 ─── push_vlan 57 ──── p0 ═ p0     seen nowhere      VF 2 ─ vm2"
    assert "seen nowhere" in drawn(2, counted=0)[1]


def test_all_drawings_fit_80_columns() -> None:
    for number in (1, 2):
        for seen, counted in (((1,), 19), ((1, 2), 18), ((), 20), ((1,), 3)):
            assert max(map(len, drawn(number, seen=seen, counted=counted))) <= 80


def test_the_bars_say_how_many_packets_went_which_way() -> None:
    file = io.StringIO()
    Screen(file=file).print(*shares(passages(), SENT))
    host, nic, *others = (line.split() for line in file.getvalue().splitlines())
    assert (host[:2], host[-3:]) == (["hv1,", "host"], ["1", "of", "20"])
    assert (nic[:2], nic[-3:]) == (["hv1,", "NIC"], ["19", "of", "20"])
    assert len(nic[2]) / len(host[2]) > 10
    assert [line[0] for line in others] == ["hv2,", "hv2,"]


def test_what_a_flow_does_is_read_from_its_actions() -> None:
    assert deeds(find_flow(FLOWS, "p0_0", "02:00:00:00:00:0a", "02:00:00:00:00:0c")) == ["push_vlan 100"]
    assert deeds(find_flow(FLOWS, "p0", "02:00:00:00:00:0c", "02:00:00:00:00:0a")) == ["pop_vlan"]
    assert deeds(None) == []
