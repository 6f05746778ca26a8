# SPDX-License-Identifier: Apache-2.0
"""The page on fidelity says what the recorded runs gave, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fidelity
from tests.docs.blocks import TOP
from tests.openvswitch.suite import expectations
from tests.results import Result, record, recorded

TEXT = (TOP / "docs/fidelity.md").read_text()


def test_the_page_is_current() -> None:
    assert fidelity.page(recorded()) == TEXT, "run `python -m tests.fidelity`"


@pytest.mark.parametrize("suite", ["kernel", "offloads"])
def test_each_test_that_does_not_pass_is_named_with_its_reason(suite: str) -> None:
    expected = expectations(TOP / "tests/openvswitch/expected.toml", suite)
    for tests in (expected.fails, expected.skips, expected.timing, expected.needs):
        for test, why in tests.items():
            assert any(why in line and test in line for line in TEXT.splitlines())


def test_a_recorded_run_is_kept_beside_the_others(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert recorded(path) == {}
    record("one", {"cases": 3, "differences": 0}, of="Linux 6.1", path=path)
    record("two", {"cases": 4}, path=path)
    record("one", {"cases": 5, "differences": 1}, path=path)
    assert {name: dict(result.counts) for name, result in recorded(path).items()} == {
        "one": {"cases": 5, "differences": 1},
        "two": {"cases": 4},
    }


def test_a_suite_that_was_not_recorded_is_said_to_be() -> None:
    text = fidelity.page({})
    assert text.count("no run is recorded") == len(fidelity.SUITES) + len(fidelity.CAMPAIGNS)


def test_a_difference_that_a_run_found_is_told() -> None:
    counts = {"packets": 7, "differences": 2}
    found = Result(command="python -m x", counts=counts, of="", kernel="6.1", version="0.1", day="2026-01-02")
    assert "| 7 packets | 2 differences | 2026-01-02, asap2 0.1, Linux 6.1: `python -m x` |" in fidelity.page(
        {"silicon": found}
    )
