# SPDX-License-Identifier: Apache-2.0
"""What the compiled eBPF program and user space hold to be true of their shared memory is the same."""

from __future__ import annotations

import ctypes

import pytest

from asap2.nic.fields import FIELDS, IN_TUNNEL_AT, KEY_SIZE, NO_ETHERNET_AT
from asap2.nic.silicon import abi, generate, map_sizes, maps
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
}


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf(map_sizes.OBJECT)


def test_the_generated_header_is_current() -> None:
    assert generate.HEADER.read_text() == generate.header(), "run python -m asap2.nic.silicon.generate"


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_lies_as_the_program_has_it(btf: Btf, name: str) -> None:
    record, members = RECORDS[name], btf.members(name)
    ours = {field[0]: getattr(record, field[0]) for field in record._fields_}
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
    records = {kind for kind in vars(maps).values() if isinstance(kind, type) and issubclass(kind, ctypes.Structure)}
    assert records - {maps.Constants} == set(RECORDS.values())


def test_a_key_is_hashed_by_all_its_words() -> None:
    assert len(set(abi.HASH_FACTORS)) == KEY_SIZE // 8
    assert all(factor % 2 for factor in abi.HASH_FACTORS)
