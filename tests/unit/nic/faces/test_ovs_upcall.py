# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of devices, whatever they are called."""

from __future__ import annotations

import os

import pytest

from asap2.nic.faces.ovs.upcall import counters_in

HEAD = (
    b"Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs ...\n"
)
FIGURES = b" 100 1 2 3 0 0 0 0 200 4 5 6 0 0 0 0\n"


@pytest.mark.parametrize("name", [b"eth0", b"t-in\x1e1", b"\xff\xfe", "\u2028x\x85".encode(), b"\x1c"])
def test_counters_are_read_whatever_a_device_is_called(name: bytes) -> None:
    table = HEAD + b"    lo:" + FIGURES + b"  " + name + b":" + FIGURES
    found = counters_in(table)
    assert list(found) == ["lo", os.fsdecode(name)]
    assert found[os.fsdecode(name)] == (1, 4, 100, 200, 2, 5, 3, 6)
