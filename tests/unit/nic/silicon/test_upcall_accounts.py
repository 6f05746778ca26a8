# SPDX-License-Identifier: Apache-2.0
"""The accounts of upcalls: what the numbers that the program gives them say about losses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from asap2.nic.silicon import maps
from asap2.nic.silicon.events import UpcallContext, UpcallKind
from asap2.nic.silicon.upcall_accounts import UpcallAccounts, UpcallCounts

PORT = 5


class Program:
    """The program's part: one port, and the numbers of what it backend over."""

    def __init__(self) -> None:
        self.record = maps.PortRecord(id=PORT, given=100, taken=100)
        self.config = maps.ConfigRecord()
        ports: Any = SimpleNamespace(
            ports={PORT: None}, record=lambda port_id: self.record if port_id == PORT else None
        )
        self.accounts = UpcallAccounts(cast(Any, SimpleNamespace(config=self.config)), ports)

    def give(self, units: int = 1) -> UpcallContext:
        """Hand a packet over."""
        self.record.given += units
        return UpcallContext(UpcallKind.MISS, PORT, 0, 0, 0, 60, 0, units, self.record.given, b"")

    @property
    def on_their_way(self) -> int:
        """Units that the program takes to be on their way."""
        return self.record.given - self.record.taken


@pytest.fixture
def program() -> Program:
    """A program that has handed over 100 units, all of them done with."""
    return Program()


def test_room_comes_back_when_user_space_is_done(program: Program) -> None:
    accounts = program.accounts
    one, two = program.give(), program.give(3)
    assert [accounts.arrived(each) for each in (one, two)] == [1, 3]
    assert program.on_their_way == 4
    accounts.done(PORT, 1, True)
    assert program.on_their_way == 3
    accounts.done(PORT, 3, False)
    assert program.on_their_way == 0
    assert accounts.counts(PORT) == UpcallCounts(delivered=1, lost=1)


def test_a_port_floods_when_half_of_what_it_may_have_waits(program: Program) -> None:
    accounts = program.accounts
    accounts.arrived(program.give(3))
    assert not accounts.floods(PORT)  # there is no limit
    accounts.limit = 8
    assert not accounts.floods(PORT)
    accounts.arrived(program.give())
    assert accounts.floods(PORT)
    accounts.done(PORT, 1, True)
    assert not accounts.floods(PORT)
    assert not accounts.floods(PORT + 1)


def test_a_gap_is_a_loss(program: Program) -> None:
    accounts = program.accounts
    accounts.arrived(program.give())
    program.give(2)
    accounts.arrived(program.give())
    assert accounts.counts(PORT).lost == accounts.failed == 2
    accounts.done(PORT, 1, True)
    accounts.done(PORT, 1, True)
    assert program.on_their_way == 0


def test_packets_in_another_order_are_no_loss(program: Program) -> None:
    accounts = program.accounts
    one, two, three = program.give(), program.give(2), program.give()
    for each in (three, one, two):
        accounts.arrived(each)
    assert accounts.counts(PORT).lost == accounts.failed == 0


def test_segments_of_one_packet_count_once(program: Program) -> None:
    accounts = program.accounts
    large, small = program.give(3), program.give()
    assert [accounts.arrived(each) for each in (large, small, large, large)] == [3, 1, 0, 0]
    assert accounts.counts(PORT).lost == 0


def test_what_an_earlier_receiver_was_given_is_lost_and_may_still_come(program: Program) -> None:
    accounts = program.accounts
    late = program.give(2)
    accounts.restart()
    assert accounts.counts(PORT).lost == 2
    assert program.on_their_way == 0
    assert accounts.arrived(late) == 0
    assert accounts.counts(PORT).lost == 2


def test_the_last_ones_lost_are_counted_once_they_should_have_come(program: Program) -> None:
    accounts = program.accounts
    accounts.arrived(program.give())
    program.give()
    program.record.since = 2**63  # handed over a moment ago
    accounts.settle()
    assert accounts.counts(PORT).lost == 0
    program.record.since = 0
    accounts.settle()
    assert accounts.counts(PORT).lost == 1
    assert program.on_their_way == 1


def test_a_port_that_is_gone_has_no_account(program: Program) -> None:
    accounts = program.accounts
    gone = UpcallContext(UpcallKind.MISS, PORT + 1, 0, 0, 0, 60, 0, 1, 1, b"")
    assert accounts.arrived(gone) == 0
    accounts.done(PORT + 1, 1, True)
    assert accounts.counts(PORT + 1) == UpcallCounts()
