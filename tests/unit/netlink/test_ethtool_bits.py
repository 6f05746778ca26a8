# SPDX-License-Identifier: Apache-2.0
"""Compact bitsets of ethtool: words of 32 bits in the machine's byte order."""

from __future__ import annotations

import struct
import sys

import pytest

from asap2.netlink.tables.ethtool import number_of, words_of


@pytest.mark.parametrize("order", ["little", "big"])
def test_bits_are_in_words_of_the_machines_byte_order(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    monkeypatch.setattr(sys, "byteorder", order)
    bits = struct.pack("<2I" if order == "little" else ">2I", 0x0000_0001, 0x8000_0000)
    assert number_of(bits) == 1 | 1 << 63
    assert words_of(1 | 1 << 63, 8) == bits


def test_a_bitset_that_is_cut_short_is_read_as_far_as_it_goes() -> None:
    assert number_of(words_of(1, 4) + b"\0") == 1
