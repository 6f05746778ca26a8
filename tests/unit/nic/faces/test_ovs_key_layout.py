# SPDX-License-Identifier: Apache-2.0
"""Where the table of fields puts a key's fields, against the structures of the datapath protocol."""

from __future__ import annotations

import pytest

from asap2.netlink.codec import Table
from asap2.netlink.tables.ovs import KEY, NSH_KEY, TUNNEL_KEY
from asap2.netlink.wire import attribute
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.key import layout, numbers
from asap2.nic.faces.ovs.key.layout import Layout

TABLES = (KEY, layout.LAYOUTS), (TUNNEL_KEY, layout.TUNNEL_LAYOUTS), (NSH_KEY, layout.NSH_LAYOUTS)
PADDING = {"arp": 2, "ct_orig_tuple_ipv4": 3, "ct_orig_tuple_ipv6": 3}
"""Octets at the end of a structure that carry nothing."""
LAYOUTS = [(table, number, made) for table, layouts in TABLES for number, made in layouts.items()]


def values(decoded: object) -> list[int]:
    members = decoded if isinstance(decoded, tuple) else (decoded,)
    return [int.from_bytes(member) if isinstance(member, bytes) else member for member in members]


@pytest.mark.parametrize(("table", "number", "made"), LAYOUTS, ids=lambda value: getattr(value, "name", ""))
def test_fields_lie_where_the_protocol_has_them(table: Table, number: int, made: Layout) -> None:
    name, kind = table.fields[number]
    assert kind.size
    padding = PADDING.get(name, 0)
    payload = bytes(range(1, kind.size - padding + 1)) + bytes(padding)
    found: dict[str, int] = {}
    made.read(payload, found, False)
    assert sorted(found.values()) == sorted(values(table.decode(attribute(number, payload))[name]))
    assert made.emit(found) == attribute(number, payload)


def test_every_attribute_of_a_fixed_length_carries_fields() -> None:
    for table, layouts in TABLES:
        fixed = {number for number, (_name, kind) in table.fields.items() if kind.size}
        assert fixed - layouts.keys() <= ({numbers.PACKET_TYPE} if table is KEY else set())


def test_of_two_network_headers_the_wider_ones_fields_are_cut() -> None:
    ipv4, ipv6 = bytes([1] * 8 + [17, 0, 64, 0]), bytes([2] * 32 + [0] * 4 + [17, 0, 64, 0])
    both = attribute(numbers.IPV4, ipv4) + attribute(numbers.IPV6, ipv6) + attribute(numbers.UDP, bytes(4))
    key = attribute(numbers.ETHERNET, bytes(12)) + attribute(numbers.ETHERTYPE, b"\x08\0") + both
    whole = ovs_key.match_of(key, b"").key
    told = dict(ovs_key.walk(ovs_key.emit(whole, whole)))
    assert told[numbers.IPV4] == bytes([2] * 8) + ipv4[8:]
