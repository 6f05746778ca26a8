# SPDX-License-Identifier: Apache-2.0
"""The Bloom filter of keys: it never hides a key that is there, and forgets those that have gone."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from asap2.nic.fields import KEY_SIZE
from asap2.nic.silicon.bloom import BITS_FOR_EACH_KEY, Bloom, place, words_for


def shows(words: list[int], node: int, key: bytes) -> bool:
    """What the program asks."""
    at, *bits = place(node, key)
    return all(words[at % len(words)] >> bit & 1 for bit in bits)


def keys(count: int, seed: int) -> list[tuple[int, bytes]]:
    chance = Random(seed)
    return [(chance.randrange(1, 9), chance.randbytes(KEY_SIZE)) for _ in range(count)]


@given(st.lists(st.integers(0, 19), max_size=60), st.integers(0, 2**32))
def test_what_is_there_is_shown_whatever_came_and_went(toggled: list[int], seed: int) -> None:
    known = keys(20, seed)
    words = [0, 0]
    bloom = Bloom(words)
    there: set[int] = set()
    for number in toggled:
        (bloom.discard if number in there else bloom.add)(*known[number])
        there ^= {number}
        assert all(shows(words, *known[each]) for each in there)
    for number in there:
        bloom.discard(*known[number])
    assert words == [0, 0]


def test_a_key_counted_too_often_stays() -> None:
    words = [0]
    bloom = Bloom(words)
    key = (1, bytes(KEY_SIZE))
    for _ in range(300):
        bloom.add(*key)
    for _ in range(300):
        bloom.discard(*key)
    assert shows(words, *key)


def test_a_full_filter_shows_few_that_are_not_there() -> None:
    room = 4096
    words = [0] * words_for(room)
    assert len(words) * 64 == room * BITS_FOR_EACH_KEY
    bloom = Bloom(words)
    for key in keys(room, 1):
        bloom.add(*key)
    assert sum(shows(words, *key) for key in keys(10_000, 2)) < 300


def test_neighbouring_addresses_spread() -> None:
    room = 4096
    words = [0] * words_for(room)
    bloom = Bloom(words)
    for number in range(room):
        bloom.add(1, bytes(44) + number.to_bytes(4, "big") + bytes(KEY_SIZE - 48))
    others = range(room, 3 * room)
    seen = sum(shows(words, 1, bytes(44) + n.to_bytes(4, "big") + bytes(KEY_SIZE - 48)) for n in others)
    assert seen < len(others) * 0.05


def test_restoring_leaves_only_what_is_there_and_never_hides_it() -> None:
    known = keys(8, 3)
    words = [0, 0, 0, 0]
    before = Bloom(words)
    for key in known:
        before.add(*key)
    after = Bloom(words)
    after.restore(known[:4])
    fresh = [0, 0, 0, 0]
    expected = Bloom(fresh)
    for key in known[:4]:
        expected.add(*key)
    assert words == fresh
