# SPDX-License-Identifier: Apache-2.0
"""Upcalls that wait: who comes next, and how much a receiver is given."""

from __future__ import annotations

from asap2.nic.faces.ovs.receivers import Receivers, receiver_of
from asap2.nic.faces.ovs.turns import Turns


def order(turns: Turns[str]) -> list[str]:
    """All that waits, in turn."""
    taken = []
    while (item := turns.take(lambda _item, _new: True)) is not None:
        taken.append(item)
    return taken


def test_owners_are_served_in_turn_and_each_in_order() -> None:
    turns: Turns[str] = Turns()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        turns.put(ord(item[0]), item)
    assert order(turns) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert not turns


def test_who_had_nothing_waiting_comes_first_but_once() -> None:
    turns: Turns[str] = Turns()
    for number in range(4):
        turns.put(1, f"a{number}")
    assert turns.take(lambda _item, _new: True) == "a0"
    turns.put(2, "b0")
    turns.put(2, "b1")
    assert order(turns) == ["b0", "a1", "b1", "a2", "a3"]


def test_an_owner_whose_first_item_is_not_ready_is_passed_over() -> None:
    turns: Turns[str] = Turns()
    for item in ("a1", "a2", "b1"):
        turns.put(ord(item[0]), item)
    assert turns.take(lambda item, _new: item != "a1") == "b1"
    assert turns.take(lambda item, _new: item != "a1") is None
    assert order(turns) == ["a1", "a2"]


def test_whether_an_owner_is_new_is_told() -> None:
    turns: Turns[str] = Turns()
    turns.put(1, "a1")
    turns.put(1, "a2")
    assert turns.take(lambda _item, new: not new) is None
    assert turns.take(lambda _item, new: new) == "a1"
    assert turns.take(lambda _item, new: new) is None


def test_a_receiver_is_given_no_more_than_fits_beside_what_it_has_not_read() -> None:
    sockets = {7: 0}
    receivers = Receivers(lambda: dict(sockets))
    receivers.begin()
    for _ in range(2):
        assert receivers.has_room(7, 2048)
        receivers.sent(7, 200)
    assert not receivers.has_room(7, 2048)
    assert receivers.has_room(7, 8192)
    sockets[7] = 2560
    receivers.begin()
    assert not receivers.has_room(7, 2048)
    sockets[7] = 0
    assert not receivers.has_room(7, 2048)  # looked at once a round
    receivers.begin()
    assert receivers.has_room(7, 2048)


def test_a_receiver_that_is_gone_or_cannot_be_looked_at_is_sent_to() -> None:
    for waiting in ({8: 10_000}, None):
        receivers = Receivers(lambda waiting=waiting: waiting)  # type: ignore[misc]
        receivers.begin()
        for _ in range(100):
            assert receivers.has_room(7, 2048)
            receivers.sent(7, 200)


def test_while_ports_compete_one_receiver_is_kept_for_those_with_nothing_else_waiting() -> None:
    def receivers(portids: tuple[int, ...], *, shared: bool, new: bool) -> set[int]:
        return {receiver_of(portids, packet_hash, shared=shared, new=new) for packet_hash in range(12)}

    assert receivers((7, 8, 9), shared=False, new=True) == receivers((7, 8, 9), shared=False, new=False) == {7, 8, 9}
    assert receivers((7, 8, 9), shared=True, new=False) == {7, 8}
    assert receivers((7, 8, 9), shared=True, new=True) == {9}
    assert receivers((7,), shared=True, new=False) == receivers((7,), shared=True, new=True) == {7}
    assert receivers((), shared=True, new=True) == {0}
