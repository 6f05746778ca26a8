# SPDX-License-Identifier: Apache-2.0
"""What ``make test-tdc`` makes of the kernel's test cases, of their output, and of the table of what is expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.suites_of_others import Outcome
from tests.tdc import suite
from tests.tdc.suite import Case, Expected

GOOD, BAD, ROOTED = (
    Case("actions/gact", "e89a", "a"),
    Case("actions/gact", "a02c", "b"),
    Case("filters/u32", "afa9", "c"),
)
OUTPUT = """Test e89a: Add valid pass action
1..3
ok 1 e89a - Add valid pass action
not ok 2 a02c - Add valid pipe action
\tCommand exited with 255, expected 0
ok 3 afa9 - Add u32 # skipped - previous setup failed 2 a02c
"""


def test_the_outcomes_are_those_that_tdc_tells() -> None:
    assert suite.outcomes_in(OUTPUT) == {"e89a": Outcome.OK, "a02c": Outcome.FAILED, "afa9": Outcome.SKIPPED}


def test_cases_are_read_but_for_those_that_the_kernel_skips(tmp_path: Path) -> None:
    for name in ("actions/gact", "filters/matchall", "qdiscs/ingress", "qdiscs/htb"):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        setup = [["$TC actions flush action gact", 0, 1], "$TC qdisc add dev $DUMMY root handle 1: prio"]
        case = {"id": path.stem[:4], "name": "n", "setup": setup if path.stem == "matchall" else []}
        path.write_text(json.dumps([case, case | {"id": "0000", "skip": "yes"}]))
    assert suite.cases_in(tmp_path) == [
        Case("actions/gact", "gact", "n"),
        Case("filters/matchall", "matc", "n", "prio"),
        Case("qdiscs/ingress", "ingr", "n"),
    ]


def test_what_is_not_as_expected_is_told_and_what_tdc_does_not_tell_of_too() -> None:
    expected = Expected({"filters/u32": "why"}, {}, {"a02c": "why"})
    assert expected.left_out(ROOTED) == "why"
    assert suite.compare([GOOD, BAD], suite.outcomes_in(OUTPUT), expected) == []
    assert suite.compare([GOOD, BAD], {"a02c": Outcome.OK}, expected) == [
        (GOOD, Outcome.MISSING, Outcome.OK),
        (BAD, Outcome.OK, Outcome.FAILED),
    ]


def test_the_table_gives_a_reason_for_each_exception(tmp_path: Path) -> None:
    assert suite.expectations(Path(suite.__file__).with_name("expected.toml")).files
    (tmp_path / "expected.toml").write_text('[cases]\n"e89a" = ""\n')
    with pytest.raises(ValueError, match="say why"):
        suite.expectations(tmp_path / "expected.toml")
