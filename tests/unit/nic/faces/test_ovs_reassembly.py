# SPDX-License-Identifier: Apache-2.0
"""Fragments that the pipeline gives to the daemon: what comes back, and how it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from asap2.nic.faces.ovs.reassembly import Reassembly
from asap2.nic.fragments import cut
from asap2.nic.rules import OVS_TABLE, Ct, Output, SetTunnel
from asap2.nic.silicon import maps
from asap2.nic.silicon.events import UpcallContext, UpcallKind
from asap2.nic.silicon.handing_in import HandedIn
from tests.unit.nic.test_fragments import FRAMES

FRAME = FRAMES["ipv4"]
PARTS = cut(FRAME, 1500, 0)
MRU = 1500
TUNNEL = SetTunnel(7, bytes(4), b"\x0a\0\0\2")


class Place:
    """Stands for the program's memory and the packet socket: remembers what is handed in, and how."""

    def __init__(self, *kept: Ct | SetTunnel) -> None:
        self.slots = dict(enumerate(kept, 1))
        self.way: tuple[HandedIn, int] | None = None
        self.seen: list[tuple[bytes, HandedIn, int]] = []

    def kept(self, slot: int) -> Any:
        return self.slots.get(slot)

    def port_of(self, cookie: int) -> int:
        return cookie + 100

    @contextlib.contextmanager
    def hand_on(self, way: HandedIn, cookie: int) -> Iterator[int]:
        self.way = way, cookie
        yield 9

    def hand_in(self, *args: Any) -> Any:
        if len(args) == 1:
            return self.hand_on(args[0], 0)
        assert self.way is not None
        return self.seen.append((args[0], *self.way))


def context(kind: UpcallKind, cookie: int, *, mru: int = 0, tunnel: int = 0, zone: int = 0) -> UpcallContext:
    key = maps.encode_fields({"eth_type": 0x0800, "skb_mark": 5, "ct_zone": zone})
    return UpcallContext(kind, 3, OVS_TABLE | 8, cookie, 0, 0, 0, 1, 0, key, mru, tunnel)


def take(place: Any, reassembly: Reassembly, of: UpcallContext, frame: bytes) -> bool:
    return reassembly.take(place, place, of, frame)


def test_a_whole_packet_goes_on_as_its_last_fragment_would() -> None:
    place, reassembly = Place(Ct(zone=4)), Reassembly()
    for number, part in enumerate(PARTS):
        assert take(place, reassembly, context(UpcallKind.FRAGMENT, 1 << 32 | number, zone=6), part)
    ((frame, way, cookie),) = place.seen
    assert frame == FRAME
    assert (way.port, way.table, way.mark, way.mru, way.tracked["ct_zone"]) == (3, OVS_TABLE | 8, 5, MRU, 6)
    assert cookie == 1 << 32 | len(PARTS) - 1


def test_zones_have_fragments_of_their_own() -> None:
    place, reassembly = Place(Ct(zone=4), Ct(zone=5)), Reassembly()
    for number, part in enumerate(PARTS):
        take(place, reassembly, context(UpcallKind.FRAGMENT, (1 + number % 2) << 32), part)
    assert not place.seen


def test_a_fragment_of_an_action_that_is_no_more_is_lost() -> None:
    place, reassembly = Place(), Reassembly()
    for part in PARTS:
        assert take(place, reassembly, context(UpcallKind.FRAGMENT, 1 << 32), part)
    assert not place.seen


@pytest.mark.parametrize("tunnel", [None, TUNNEL])
def test_a_packet_leaves_in_fragments(tunnel: SetTunnel | None) -> None:
    place, reassembly = Place(*([tunnel] if tunnel else [])), Reassembly()
    assert take(place, reassembly, context(UpcallKind.CUT, 12, mru=MRU, tunnel=1), FRAME)
    assert [frame for frame, _way, _cookie in place.seen] == PARTS
    assert {(way.actions, way.tunnel) for _frame, way, _cookie in place.seen} == {((Output(112),), tunnel)}


@pytest.mark.parametrize("kind", [UpcallKind.MISS, UpcallKind.ACTION])
def test_what_is_for_user_space_is_left_to_others(kind: UpcallKind) -> None:
    assert not take(Place(), Reassembly(), context(kind, 0), FRAME)
