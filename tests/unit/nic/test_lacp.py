# SPDX-License-Identifier: Apache-2.0
"""LACP in virtual time: two bonds, and cables between their ports that work or do not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from asap2.nic.kinds.lacp import DEFAULTED, EXPIRED, SLOW_PERIOD, SYNC, Negotiation, Options, Participant, pdu, read_pdu

LEFT, RIGHT = Options("020000000001", key=15), Options("020000000002", key=15)


@dataclass
class Cables:
    """Port 1 of each with port 1 of the other, and so on; each side with its options."""

    options: dict[str, Options] = field(default_factory=lambda: {"left": LEFT, "right": RIGHT})
    sides: dict[str, Negotiation] = field(default_factory=lambda: {"left": Negotiation(), "right": Negotiation()})
    cut: set[int] = field(default_factory=set)
    now: float = 100.0
    sent: int = 0

    def run(self, seconds: float) -> None:
        """Let time pass, a tenth of a second at a time."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            for name, side in self.sides.items():
                side.follow((1, 2), self.options[name])
                for port, data in side.tick(self.now, self.options[name]):
                    self.sent += 1
                    other = "right" if name == "left" else "left"
                    if port not in self.cut:
                        self.sides[other].received(port, data, self.now, self.options[other])

    def used(self) -> list[list[int]]:
        return [sorted(side.used()) for side in self.sides.values()]


def test_two_bonds_agree_to_use_both_cables() -> None:
    cables = Cables()
    cables.run(1)
    assert all(len(used) <= 1 for used in cables.used())
    cables.run(4)
    assert cables.used() == [[1, 2], [1, 2]]
    port = cables.sides["left"].ports["1"]
    assert (port.partner.system, port.state & 0x3F, port.partner.state & 0x3F) == (RIGHT.system, 0x3D, 0x3D)


def test_agreed_bonds_say_little() -> None:
    cables = Cables()
    cables.run(10)
    before = cables.sent
    cables.run(SLOW_PERIOD)
    assert cables.sent - before == 4


def test_a_port_whose_partner_is_silent_is_used_no_more() -> None:
    fast = {"left": Options(LEFT.system, key=15, fast=True), "right": Options(RIGHT.system, key=15, fast=True)}
    cables = Cables(fast)
    cables.run(5)
    cables.cut = {2}
    cables.run(5)
    assert cables.used() == [[1], [1]]
    assert cables.sides["left"].ports["2"].state & EXPIRED
    cables.run(5)
    assert cables.sides["left"].ports["2"].state & DEFAULTED
    cables.cut = set()
    cables.run(5)
    assert cables.used() == [[1, 2], [1, 2]]


def test_without_a_partner_one_port_is_used() -> None:
    cables = Cables(cut={1, 2})
    cables.run(5)
    assert cables.used() == [[1], [1]]
    assert cables.sides["left"].ports["1"].state & (SYNC | DEFAULTED) == SYNC | DEFAULTED


def test_ports_to_two_other_systems_are_not_one() -> None:
    side, now = Negotiation(), 50.0
    for _ in range(50):
        now += 0.1
        side.follow((1, 2), LEFT)
        for port, data in side.tick(now, LEFT):
            found = read_pdu(data)
            assert found is not None
            actor, _ = found
            other = Participant(1, f"02000000001{port}", 7, 255, 1, 0x3D)
            side.received(port, pdu(other, actor), now, LEFT)
    assert (list(side.used()), side.ports["2"].aggregator) == ([1], 2)


def test_what_is_kept_is_what_there_was() -> None:
    cables = Cables()
    cables.run(5)
    side = cables.sides["left"]
    assert Negotiation.kept(json.loads(json.dumps(side.as_json()))) == side


@pytest.mark.parametrize("data", [b"", b"\x01\x01", bytes(110), b"\x01\x01\x01\x13" + bytes(110)])
def test_what_is_no_pdu_changes_nothing(data: bytes) -> None:
    side = Negotiation()
    side.follow((1,), LEFT)
    before = side.as_json()
    side.received(1, data, 1.0, LEFT)
    assert side.as_json() == before
