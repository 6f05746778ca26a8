# SPDX-License-Identifier: Apache-2.0
"""A datagram whose checksum is wrong belongs to no connection."""

from __future__ import annotations

import pytest

from asap2.nic.checksums import checksum
from asap2.nic.conntrack.tracker import Tracker
from asap2.nic.rules import CtState
from tests.system.nic.silicon.conversations import unfinished
from tests.unit.nic.conntrack.packets import (
    CLIENT,
    CLIENT6,
    COMMIT,
    INV,
    NEW,
    SERVER,
    SERVER6,
    SYN,
    TRK,
    datagram,
    icmp,
    ports,
    udp,
)

_TCP = ports(1000, 80) + bytes(8) + bytes((0x50, SYN)) + bytes(6)
_UDPLITE = ports(1000, 80) + b"\0\x0c" + bytes(2) + b"data and more"
_DATAGRAMS = {
    "TCP": (datagram(CLIENT, SERVER, 6, _TCP), 36),
    "TCP over IPv6": (datagram(CLIENT6, SERVER6, 6, _TCP), 56),
    "UDP": (udp(CLIENT, SERVER, 1000, 80, b"odd"), 26),
    "ICMP": (icmp(CLIENT, SERVER, 8, 7), 22),
    "ICMPv6": (icmp(CLIENT6, SERVER6, 128, 7), 42),
}
"""Datagrams, and where their checksums are."""


def _state(data: bytes, *, checksums: bool = True) -> CtState:
    done = Tracker(checksums=checksums).execute(COMMIT, data, data[0] >> 4, {})
    return CtState(done.fields["ct_state"])


def _broken(name: str) -> bytes:
    data, at = _DATAGRAMS[name]
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


@pytest.mark.parametrize("name", _DATAGRAMS)
def test_with_a_wrong_checksum_it_is_invalid(name: str) -> None:
    assert _state(_DATAGRAMS[name][0]) == TRK | NEW
    assert _state(_broken(name)) == TRK | INV


@pytest.mark.parametrize("name", _DATAGRAMS)
def test_checksums_are_not_looked_at_if_the_setting_says_so(name: str) -> None:
    assert _state(_broken(name), checksums=False) == TRK | NEW


@pytest.mark.parametrize("name", ["TCP", "TCP over IPv6", "UDP"])
def test_a_checksum_that_the_nic_is_to_fill_in_is_right(name: str) -> None:
    data, _ = _DATAGRAMS[name]
    assert unfinished(data) != data
    assert _state(unfinished(data)) == TRK | NEW


def test_udp_may_have_no_checksum() -> None:
    data, at = _DATAGRAMS["UDP"]
    assert _state(data[:at] + b"\0\0" + data[at + 2 :]) == TRK | NEW


def test_udp_lite_covers_a_part() -> None:
    pseudo = datagram(CLIENT, SERVER, 136, _UDPLITE)[12:20] + len(_UDPLITE).to_bytes(4, "big") + b"\0\0\0\x88"
    right = checksum(pseudo + _UDPLITE[:12])
    data = datagram(CLIENT, SERVER, 136, _UDPLITE[:6] + right.to_bytes(2, "big") + _UDPLITE[8:])
    assert _state(data) == TRK | NEW
    assert _state(data[:-1] + b"!") == TRK | NEW
    assert _state(data[:29] + b"!" + data[30:]) == TRK | INV


def test_the_header_of_ipv4_counts() -> None:
    data, _ = _DATAGRAMS["UDP"]
    assert _state(data[:8] + bytes((data[8] ^ 1,)) + data[9:]) == TRK | INV
