# SPDX-License-Identifier: Apache-2.0
"""What ``make test-openvswitch`` makes of a testsuite's output, and of the table of what is expected."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests import openvswitch
from tests.openvswitch.__main__ import alone
from tests.openvswitch.suite import (
    Difference,
    Expected,
    compare,
    expectations,
    outcomes_in,
    titles_in,
    with_defaults,
)
from tests.suites_of_others import Outcome

LISTING = """
 NUM: FILE-NAME:LINE     TEST-GROUP-NAME
      KEYWORDS

   1: system-traffic.at:3 datapath - ping between two ports
 129: system-traffic.at:5982 conntrack - FTP SNAT postrecirc seqadj
      ipsec libreswan
"""
OUTPUT = """
  1: datapath - ping between two ports               ok
 10: datapath - ping over bond                       FAILED (system-traffic.at:277)
 55: conntrack - get_nconns and get/set_maxconns     skipped (system-traffic.at:2560)
"""
TABLE = Path(openvswitch.__file__).with_name("expected.toml")


def test_tests_and_outcomes_are_read() -> None:
    assert titles_in(LISTING) == {
        1: "datapath - ping between two ports",
        129: "conntrack - FTP SNAT postrecirc seqadj",
    }
    assert outcomes_in(OUTPUT) == {1: Outcome.OK, 10: Outcome.FAILED, 55: Outcome.SKIPPED}


def test_what_is_not_as_expected_is_told() -> None:
    tests = {1: "one", 2: "two", 3: "three", 4: "four"}
    outcomes = {1: Outcome.OK, 2: Outcome.FAILED, 3: Outcome.OK}
    expected = Expected({}, {}, {"two": "it is hard", "three": "it was hard"}, {})
    assert compare(tests, outcomes, expected, tests) == [
        Difference("three", Outcome.OK, Outcome.FAILED),
        Difference("four", Outcome.MISSING, Outcome.OK),
    ]


def test_of_ovns_variants_the_defaults_run_and_all_are_one_test_in_the_table() -> None:
    variants = {
        number: f"BFD -- ovn-northd -- parallelization={parallel} -- ovn_monitor_all={everything}"
        for number, (parallel, everything) in enumerate(itertools.product(("yes", "no"), repeat=2))
    }
    assert list(with_defaults({9: "datapath - ping", **variants})) == [9, 3]
    expected = Expected({}, {"BFD": "there is no bfdd"}, {}, {})
    assert compare(variants, dict.fromkeys(variants, Outcome.SKIPPED), expected, variants) == []
    assert {expected.reason(title) for title in variants.values()} == {"there is no bfdd"}


@pytest.mark.parametrize("suite", ["kernel", "offloads", "ovn"])
def test_each_exception_has_its_reason(suite: str) -> None:
    expected = expectations(TABLE, suite)
    assert not expected.skips.keys() & expected.fails.keys()


@pytest.mark.parametrize(
    "text", ['[kernel.fails]\n"one" = ""', '[kernel.wrong]\n"one" = "x"', "[kernel.needs]\none = 1"]
)
def test_a_table_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    table = tmp_path / "table.toml"
    table.write_text(text)
    with pytest.raises(ValueError, match="kernel"):
        expectations(table, "kernel")


def test_one_run_at_a_time_uses_the_testsuites_directory(tmp_path: Path) -> None:
    for _ in range(2):
        with alone(tmp_path), pytest.raises(SystemExit, match="running in this checkout already"), alone(tmp_path):
            pass


def test_a_test_of_speed_may_fail_but_not_be_missing() -> None:
    expected = Expected({}, {}, {}, {"two": "it waits half a second"})
    for outcome, differs in ((Outcome.OK, 0), (Outcome.FAILED, 0), (Outcome.SKIPPED, 1), (Outcome.MISSING, 1)):
        assert len(compare({2: "two"}, {2: outcome}, expected, [2])) == differs
    assert expected.reason("two") == "it waits half a second"
