# SPDX-License-Identifier: Apache-2.0
"""VF LAG: when the two ports of a NIC are one, and by which of them each eSwitch sends."""

from __future__ import annotations

import pytest

from asap2.nic import eswitch
from asap2.nic.eswitch import End
from asap2.nic.function import EswitchMode, Nic, Pf, Role
from asap2.nic.lag import ACTIVE_BACKUP, LACP, XOR, Bond, Lag, Lags, lag_of
from asap2.nic.netdevs import NetDev, reaches
from asap2.nic.silicon.ports import PortKind
from tests.unit.nic.backend import nic

BOND, ROUND_ROBIN = 9, 0


@pytest.fixture
def card() -> Nic:
    """Two ports in switchdev mode, with ifindexes 2 and 3."""
    card = nic(ports=2)
    for pf in card.pfs:
        pf.bound, pf.mode = True, EswitchMode.SWITCHDEV
    return card


def of(card: Nic, *bonds: Bond) -> Lag | None:
    return lag_of(card, bonds, dict(zip((2, 3), card.pfs, strict=True)))


@pytest.mark.parametrize("mode", [XOR, LACP])
def test_each_eswitch_sends_by_its_own_port_while_that_can(card: Nic, mode: int) -> None:
    assert of(card, Bond(BOND, mode, {2: True, 3: True})) == Lag(BOND, (0, 1))
    assert of(card, Bond(BOND, mode, {2: False, 3: True})) == Lag(BOND, (1, 1))
    assert of(card, Bond(BOND, mode, {2: True, 3: False})) == Lag(BOND, (0, 0))
    assert of(card, Bond(BOND, mode, {2: False, 3: False})) == Lag(BOND, (0, 1))


def test_a_backup_sends_nothing_and_nothing_comes_from_it(card: Nic) -> None:
    assert of(card, Bond(BOND, ACTIVE_BACKUP, {2: True, 3: False})) == Lag(BOND, (0, 0), frozenset({1}))
    assert of(card, Bond(BOND, ACTIVE_BACKUP, {2: False, 3: False})) == Lag(BOND, (0, 1))


def test_a_bond_of_both_ports_and_no_other_makes_one(card: Nic) -> None:
    assert of(card) is None
    assert of(card, Bond(BOND, XOR, {2: True})) is None
    assert of(card, Bond(BOND, XOR, {2: True, 3: True, 4: True})) is None
    assert of(card, Bond(BOND, ROUND_ROBIN, {2: True, 3: True})) is None
    card.pfs[1].mode = EswitchMode.LEGACY
    assert of(card, Bond(BOND, XOR, {2: True, 3: True})) is None


class Netdevs:
    """The netdevs of a card's PFs; writes down which eSwitches are programmed."""

    def __init__(self, card: Nic) -> None:
        self.card = card
        self.told: list[int] = []

    def all(self) -> list[NetDev]:
        return [NetDev(2 + pf.index, pf.netdev, Role.PF, pf) for pf in self.card.pfs]

    def program(self, pf: Pf) -> None:
        self.told.append(pf.index)


def test_the_silicon_learns_of_each_change_and_of_the_end(card: Nic) -> None:
    bonds, netdevs = [Bond(BOND, XOR, {2: True, 3: True})], Netdevs(card)
    lags = Lags([card], lambda: bonds, netdevs)
    assert lags.follow()
    assert not lags.follow()
    bonds[:] = [Bond(BOND, XOR, {2: False, 3: True})]
    assert not lags.follow()  # the same bond, by another port
    assert (card.bond, card.lag and card.lag.ways, netdevs.told) == (BOND, (1, 1), [0, 1, 0, 1])
    bonds.clear()
    assert lags.follow()
    assert (card.bond, card.lag and card.lag.ways) == (0, (0, 1))


def test_the_way_out_follows_the_bond_and_reads_nothing(card: Nic) -> None:
    ends = {"p0": End(20), "p1": End(21)}
    assert eswitch.bonded(card.pfs[0], ends) is None
    card.lag = Lag(BOND, (1, 1), frozenset({0}))
    way = eswitch.bonded(card.pfs[0], ends)
    assert way is not None
    assert (way.id, way.ifindex, way.kind) == (card.pfs[0].bonded_port, 21, PortKind.BONDED)
    found = [eswitch.ports(pf, ends, None)[pf.wire].tables for pf in card.pfs]
    assert found == [(), (0,)]


def test_while_bonded_both_eswitches_are_one(card: Nic) -> None:
    first, second = card.pfs
    other = NetDev(3, "enp3s0f1", Role.PF, second)
    assert not reaches(first, other)
    card.lag = Lag(BOND, (0, 1))
    assert not reaches(first, other)  # from wire to wire
    assert first.out_port == first.bonded_port
