# SPDX-License-Identifier: Apache-2.0
"""Neighbour solicitations as octets."""

from __future__ import annotations

from asap2.nic.underlay.ndisc import message


def test_a_solicitation_names_its_target_and_who_asks() -> None:
    target = bytes.fromhex("fd000016000000000000000000000002")
    sent = message(target, b"\x02\0\0\0\0\1")
    assert sent == bytes((135, 0, 0, 0, 0, 0, 0, 0)) + target + bytes((1, 1)) + b"\x02\0\0\0\0\1"
