# SPDX-License-Identifier: Apache-2.0
"""What the compiled eBPF program and user space hold to be true of their shared memory is the same."""

from __future__ import annotations

import ctypes

import pytest

from asap2.nic.fields import FIELDS, IN_TUNNEL_AT, KEY_SIZE, NO_ETHERNET_AT
from asap2.nic.silicon import abi, connection_records, generate, map_sizes, maps
from tests.unit.nic.silicon.btf import Btf

RECORDS: dict[str, type[ctypes.Structure]] = {
    "port": maps.PortRecord,
    "continuation": maps.ContinuationRecord,
    "mask_list": maps.MaskListRecord,
    "node": maps.NodeRecord,
    "rule": maps.RuleRecord,
    "entry": maps.EntryRecord,
    "encap": maps.EncapRecord,
    "resume": maps.ResumeRecord,
    "count": maps.CountRecord,
    "meter": maps.MeterRecord,
    "stats": maps.StatsRecord,
    "upcall": maps.UpcallRecord,
    "config": maps.ConfigRecord,
    "trace": maps.TraceRecord,
    "tuple": connection_records.TupleRecord,
    "tcp_end": connection_records.TcpEndRecord,
    "tcp_connection": connection_records.TcpRecord,
    "sctp_connection": connection_records.SctpRecord,
    "connection": connection_records.ConnectionRecord,
    "tracker": connection_records.TrackerRecord,
    "expectation": connection_records.ExpectationRecord,
    "zone": connection_records.ZoneRecord,
    "policy": connection_records.PolicyRecord,
    "kept": connection_records.KeptRecord,
    "keeping": connection_records.KeepingRecord,
    "tracker_stats": connection_records.TrackerStatsRecord,
}


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf(map_sizes.OBJECT)


def test_the_generated_header_is_current() -> None:
    assert generate.HEADER.read_text() == generate.header(), "run python -m asap2.nic.silicon.generate"


def _names(kind: object) -> list[str]:
    assert isinstance(kind, type)
    assert issubclass(kind, ctypes.Union)
    return [field[0] for field in kind._fields_]


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_lies_as_the_program_has_it(btf: Btf, name: str) -> None:
    record, members = RECORDS[name], btf.members(name)
    nameless = getattr(record, "_anonymous_", ())
    names = [name for name, kind, *_ in record._fields_ for name in (_names(kind) if name in nameless else [name])]
    ours = {name: getattr(record, name) for name in names}
    assert {field: (place.offset, place.size) for field, place in ours.items()} == {
        field: members.get(field) for field in ours
    }
    assert ctypes.sizeof(record) == btf.size(name)


def test_match_fields_lie_as_the_program_has_them(btf: Btf) -> None:
    members = btf.members("fields")
    assert {field.name: (field.at, field.size) for field in FIELDS} == {
        field.name: members.get(field.name) for field in FIELDS
    }
    assert members["no_ethernet"] == (NO_ETHERNET_AT, 1)
    assert members["in_tunnel"] == (IN_TUNNEL_AT, 1)
    assert btf.size("fields") == KEY_SIZE


def test_every_array_of_the_layout_has_its_record_tested() -> None:
    kinds = (*vars(maps).values(), *vars(connection_records).values())
    records = {kind for kind in kinds if isinstance(kind, type) and issubclass(kind, ctypes.Structure)}
    assert records - {maps.Constants} == set(RECORDS.values())


def test_a_key_is_hashed_by_all_its_words() -> None:
    assert len(set(abi.HASH_FACTORS)) == KEY_SIZE // 8
    assert all(factor % 2 for factor in abi.HASH_FACTORS)
