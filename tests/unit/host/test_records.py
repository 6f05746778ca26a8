# SPDX-License-Identifier: Apache-2.0
"""Captures and configurations are read strictly, and what is wrong is told in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asap2.errors import UsageError
from asap2.host import capture
from asap2.host.inventory import Host, Vf
from asap2.host.records import RecordError, from_data, to_data
from tests.unit.host.hosts import fresh, offloading


@pytest.mark.parametrize("host", [fresh(), offloading()])
def test_a_host_comes_back_as_it_was(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "capture.json"
    capture.write(host, path)
    assert capture.read(path) == host


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"index": 0}, "Vf has no 'address'"),
        ({"index": "0", "address": "x"}, "index is to be a whole number, not '0'"),
        ({"index": True, "address": "x"}, "index is to be a whole number, not True"),
        ({"index": 0, "address": "x", "colour": 1}, "unknown key 'colour'; known are index, address, driver"),
        ({"index": 0, "address": "x", "rates": [1]}, "rates is to have 2 items, not 1"),
        ({"index": 0, "address": "x", "rates": 1}, "rates is to be a list, not 1"),
        ({"index": 0, "address": "x", "trust": 1}, "trust is to be true or false, not 1"),
        ([], "Vf is to be a table, not []"),
    ],
)
def test_what_does_not_fit_is_named(data: object, sentence: str) -> None:
    with pytest.raises(RecordError) as told:
        from_data(Vf, data)
    assert str(told.value).startswith(sentence)


def test_what_is_wrong_deep_inside_is_named_by_its_place() -> None:
    data = to_data(offloading())
    data["pfs"][0]["vfs"][1]["mac"] = 7
    with pytest.raises(RecordError, match=r"^pfs\[0\]\.vfs\[1\]\.mac is to be a string, not 7$"):
        from_data(Host, data)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "asap2 host capture 1"}', "\x00"])
def test_another_file_is_no_capture(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(UsageError, match=str(path)):
        capture.read(path)


def test_a_capture_is_readable_json(tmp_path: Path) -> None:
    path = tmp_path / "capture.json"
    capture.write(offloading(), path)
    data = json.loads(path.read_text())
    assert data["format"] == capture.FORMAT
    assert data["openvswitch"]["other_config"] == [["hw-offload", "true"]]
