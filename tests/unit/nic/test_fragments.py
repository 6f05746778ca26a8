# SPDX-License-Identifier: Apache-2.0
"""IP packets in fragments: put together, and cut."""

from __future__ import annotations

import struct
from random import Random

import pytest

from asap2.nic.fragments import TIMEOUT_NS, Fragments, cut

ETHERNET = bytes(range(12))
TAG = b"\x81\0\0\x05"
PAYLOAD = bytes(i % 251 for i in range(4000))


def ipv4(payload: bytes = PAYLOAD, options: bytes = b"", place: int = 0, ident: int = 7, tos: int = 0) -> bytes:
    head = bytearray(20 + len(options))
    struct.pack_into("!BBHHHBB", head, 0, 0x45 + len(options) // 4, tos, len(head) + len(payload), ident, place, 64, 17)
    head[12:20] = b"\x0a\0\0\1\x0a\0\0\2"
    head[20:] = options
    total = sum(struct.unpack(f"!{len(head) // 2}H", head))
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", head, 10, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    return b"\x08\0" + bytes(head) + payload


def ipv6(payload: bytes = PAYLOAD, extensions: bytes = b"", following: int = 17) -> bytes:
    size = len(extensions) + len(payload)
    return b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, size, following, 64) + bytes(31) + b"\1" + extensions + payload


FRAMES = {
    "ipv4": ETHERNET + ipv4(),
    "tagged": ETHERNET + TAG + ipv4(),
    "two tags": ETHERNET + b"\x88\xa8\0\x06" + TAG + ipv4(),
    "options": ETHERNET + ipv4(options=b"\x94\x04\0\0"),
    "ipv6": ETHERNET + ipv6(),
    "extension": ETHERNET + ipv6(extensions=b"\x11\0\1\4\0\0\0\0", following=60),
}


def together(frames: list[bytes], now: int = 0, user: int = 0) -> list[bytes]:
    """What comes of fragments, in this order."""
    fragments = Fragments()
    found = [fragments.add(frame, user, now) for frame in frames]
    return [whole.frame for whole in found if whole]


@pytest.mark.parametrize("name", FRAMES)
def test_what_is_cut_comes_together_again_in_any_order(name: str) -> None:
    frame = FRAMES[name]
    parts = cut(frame, 1500, 0xABCD)
    assert len(parts) == 3
    for seed in range(6):
        order = Random(seed).sample(parts, len(parts))
        assert together(order) == [frame]


def test_fragments_are_as_large_as_the_largest_was() -> None:
    parts = cut(FRAMES["ipv4"], 1400, 0)
    assert [len(part) for part in parts] == [14 + 1396, 14 + 1396, 14 + 20 + 4000 - 2 * 1376]
    fragments = Fragments()
    whole = [fragments.add(part, 0, 0) for part in parts][-1]
    assert whole is not None
    assert whole.mru == 1396
    assert cut(whole.frame, whole.mru, 0) == parts


def test_ipv6_is_not_cut_below_its_least_mtu() -> None:
    assert max(len(part) for part in cut(FRAMES["ipv6"], 600, 1)) == 14 + 1280


def test_options_of_the_first_fragment_alone_are_in_no_other() -> None:
    stays, goes = b"\x94\x04\0\0", b"\x07\x04\x04\0"
    first, *others = cut(ETHERNET + ipv4(options=stays + goes), 1500, 0)
    assert first[34:42] == stays + goes
    assert {other[34:42] for other in others} == {stays + b"\1" * 4}


def test_a_fragment_that_comes_twice_changes_nothing() -> None:
    one, two, three = cut(FRAMES["ipv4"], 1500, 0)
    assert together([one, one, three, three, two]) == [FRAMES["ipv4"]]


def test_fragments_that_overlap_are_the_end_of_the_packet() -> None:
    one, two, three = cut(FRAMES["ipv4"], 1500, 0)
    overlapping = ETHERNET + ipv4(bytes(1480), place=0x2000 | 184)
    assert together([one, overlapping, two, three]) == []


def test_a_fragment_within_what_has_come_in_order_changes_nothing() -> None:
    one, two, three = cut(FRAMES["ipv4"], 1500, 0)
    across = ETHERNET + ipv4(b"?" * 16, place=0x2000 | 184)  # the last octets of the first and the first of the second
    assert together([one, two, across, three]) == [FRAMES["ipv4"]]
    assert together([two, one, across, three]) == []  # there it overlaps two


@pytest.mark.parametrize("octets", [0, 5])
def test_a_fragment_of_ipv4_without_eight_octets_is_the_end_of_the_packet(octets: int) -> None:
    one, two, three = cut(FRAMES["ipv4"], 1500, 0)
    assert together([one, ETHERNET + ipv4(bytes(octets), place=0x2000 | 185), two, three]) == []
    assert together([one, ETHERNET + ipv4(PAYLOAD[1480:1495], place=0x2000 | 185), two, three]) == []


def test_a_fragment_of_ipv6_that_ends_elsewhere_is_not_the_end_of_the_packet() -> None:
    parts = cut(FRAMES["ipv6"], 1500, 1)
    assert len(parts) > 2
    shorter = cut(ETHERNET + ipv6(PAYLOAD[:2000]), 1500, 1)[-1]
    assert together([parts[-1], shorter, *parts[:-1]]) == [FRAMES["ipv6"]]


def test_a_last_fragment_that_ends_elsewhere_is_the_end_of_the_packet() -> None:
    one, two, three = cut(FRAMES["ipv4"], 1500, 0)
    other = ETHERNET + ipv4(bytes(8), place=1000)
    assert together([three, other, one, two]) == []


def test_fragments_of_other_packets_and_zones_are_not_taken_together() -> None:
    parts = cut(FRAMES["ipv4"], 1500, 0)
    other = cut(ETHERNET + ipv4(ident=8), 1500, 0)
    assert together([parts[0], other[1], parts[2]]) == []
    fragments = Fragments()
    assert [fragments.add(part, zone, 0) for zone, part in enumerate(parts)] == [None] * 3
    assert len(fragments) == 3


def test_those_of_ipv6_can_be_forgotten_alone() -> None:
    fragments = Fragments()
    parts = {version: cut(FRAMES[version], 1500, 1) for version in ("ipv4", "ipv6")}
    for first, *_ in parts.values():
        fragments.add(first, 0, 0)
    fragments.forget_ipv6()
    whole = {version: [fragments.add(part, 0, 0) for part in rest][-1] for version, (_, *rest) in parts.items()}
    assert whole["ipv6"] is None
    assert whole["ipv4"] is not None


def test_a_packet_that_is_not_complete_in_time_is_given_up() -> None:
    fragments = Fragments()
    one, two, three = cut(FRAMES["ipv4"], 1500, 0)
    fragments.add(one, 0, 0)
    fragments.add(two, 0, 0)
    assert fragments.add(three, 0, TIMEOUT_NS) is None
    assert len(fragments) == 1


def test_congestion_that_one_fragment_met_the_packet_has_met() -> None:
    one, two, three = cut(ETHERNET + ipv4(tos=2), 1500, 0)
    two = two[:15] + b"\3" + two[16:]
    (frame,) = together([one, two, three])
    assert frame == ETHERNET + ipv4(tos=3)


def test_fragments_without_end_do_not_fill_the_memory() -> None:
    fragments = Fragments()
    for ident in range(5000):
        fragments.add(ETHERNET + ipv4(bytes(1480), place=0x2000, ident=ident), 0, 0)
    assert 2000 < len(fragments) < 3000


def test_damaged_frames_harm_nothing() -> None:
    random, fragments = Random(1), Fragments()
    for _ in range(5000):
        frame = bytearray(
            random.choice([*FRAMES.values(), *cut(FRAMES["ipv6"], 1500, 1), *cut(FRAMES["ipv4"], 1500, 1)])
        )
        for _ in range(random.randrange(4)):
            frame[random.randrange(min(len(frame), 70))] = random.choice((0, 0xFF, random.randrange(256)))
        frame = frame[: random.choice((len(frame), random.randrange(len(frame))))]
        fragments.add(bytes(frame), 0, 0)
        cut(bytes(frame), random.choice((0, 28, 68, 1280, 1500)), 1)
