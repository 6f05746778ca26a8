# SPDX-License-Identifier: Apache-2.0
"""The table of flows: what is in the way of a new one. tests/system/realkernel has it beside a real kernel's."""

from __future__ import annotations

import errno

import pytest

from asap2.netlink.wire import NetlinkError, attribute
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.flows import FlowTable, flow_of
from asap2.nic.faces.ovs.key import numbers

ONE, TWO = bytes([1] * 16), bytes([2] * 16)


def match(source: int, *, wild: bool = False) -> ovs_key.FlowMatch:
    """Frames of port 1 from *source*, or from anybody; of one Ethernet type."""
    port, kind = attribute(numbers.IN_PORT, b"\1\0\0\0"), attribute(numbers.ETHERTYPE, b"\x88\xb5")
    key = port + attribute(numbers.ETHERNET, bytes(5) + bytes([source]) + bytes(6)) + kind
    bits = bytes(12) if wild else b"\xff" * 12
    exact = attribute(numbers.IN_PORT, b"\xff" * 4) + attribute(numbers.ETHERTYPE, b"\xff\xff")
    return ovs_key.match_of(key, exact + attribute(numbers.ETHERNET, bits))


def refused(table: FlowTable, ufid: bytes | None, new: ovs_key.FlowMatch, *, modify: bool = False) -> int | None:
    with pytest.raises(NetlinkError) as error:
        table.to_change(ufid, new, modify=modify)
    return error.value.errno


def test_a_flow_is_changed_by_its_own_name_and_key() -> None:
    table = FlowTable()
    flow = flow_of(ONE, match(1), b"")
    table.add(flow)
    assert table.to_change(ONE, match(1), modify=True) is flow
    assert table.to_change(TWO, match(1), modify=True) is flow, "the key says which"
    assert refused(table, ONE, match(1)) == errno.EEXIST
    assert refused(table, ONE, match(2), modify=True) == errno.ENOENT
    assert table.to_change(TWO, match(2), modify=False) is None


def test_what_a_flow_takes_already_no_other_may_take() -> None:
    table = FlowTable()
    everything = flow_of(ONE, match(1, wild=True), b"")
    table.add(everything)
    assert refused(table, TWO, match(2)) == errno.EEXIST
    table.remove(everything)
    assert (len(table), table.masks) == (0, 0)
    assert table.to_change(TWO, match(2), modify=False) is None


def test_a_flow_without_a_name_is_found_by_its_whole_key_alone() -> None:
    table = FlowTable()
    flow = flow_of(None, match(1, wild=True), b"")
    table.add(flow)
    whole, other = (ovs_key.emit(key, key) for key in (match(1).key, match(2).key))
    assert table.of(None, whole) is flow
    assert table.of(None, other) is None
    assert refused(table, None, match(2), modify=True) == errno.ENOENT


def test_the_last_mask_takes_the_place_of_one_that_goes() -> None:
    table = FlowTable()
    narrow, wild = match(1), match(2, wild=True)
    both = [flow_of(bytes([n] * 16), m, b"") for n, m in enumerate((narrow, wild))]
    for flow in both:
        table.add(flow)
    table.remove(both[0])
    table.add(flow_of(TWO, match(1), b""))
    assert table.overlapping(ovs_key.number(narrow.key)) is both[1]
