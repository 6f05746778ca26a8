# SPDX-License-Identifier: Apache-2.0
"""The kernel's test cases of TC: which there are, what they need, and what became of them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.suites_of_others import Outcome

_TOLD: Final = re.compile(r"^(not ok|ok) \d+ (\w+) - (.*)$", re.MULTILINE)
_ROOT: Final = re.compile(r"qdisc add dev \S+ root handle \S+ (\w+)")
_DIRECTORIES: Final = ("actions", "filters")
_ALONE: Final = ("qdiscs/ingress",)
"""Of the other directories, those whose qdiscs are the node's."""


@dataclass(frozen=True, slots=True)
class Case:
    """A test case: its *file* ("actions/gact"), *id* and *name*, and the kind of qdisc that it sets up, if any."""

    file: str
    id: str
    name: str
    qdisc: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """Why files and cases are not run, and why cases fail."""

    files: Mapping[str, str]
    cases: Mapping[str, str]
    fails: Mapping[str, str]

    def left_out(self, case: Case) -> str:
        """Why a case is not run; empty: it is."""
        return self.files.get(case.file) or self.cases.get(case.id, "")

    def of(self, case: Case) -> Outcome:
        """What is expected of a case that is run."""
        return Outcome.FAILED if case.id in self.fails else Outcome.OK


def expectations(path: Path) -> Expected:
    """What *path* says. ValueError for an exception without a reason."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(path.read_text())
    for name, table in tables.items():
        for what, why in table.items():
            if not why or not isinstance(why, str):
                raise ValueError(f"{path}: {name}: {what}: say why")
    return Expected(**{name: tables.get(name, {}) for name in ("files", "cases", "fails")})


def cases_in(directory: Path) -> list[Case]:
    """The cases of *directory* (``tc-tests``) that are of a node's own qdiscs, but for those that the kernel skips."""
    paths = [path for name in _DIRECTORIES for path in sorted((directory / name).glob("*.json"))]
    paths += [directory / f"{name}.json" for name in _ALONE]
    found = []
    for path in paths:
        name = f"{path.parent.name}/{path.stem}"
        for case in json.loads(path.read_text()):
            if case.get("skip") != "yes":
                kind = _ROOT.search(json.dumps(case["setup"]))
                found.append(Case(name, case["id"], case["name"], kind[1] if kind else ""))
    return found


def outcomes_in(output: str) -> dict[str, Outcome]:
    """The outcomes by id, from what a run of tdc prints."""
    return {
        number: Outcome.FAILED if word != "ok" else Outcome.SKIPPED if " # skipped - " in rest else Outcome.OK
        for word, number, rest in _TOLD.findall(output)
    }


def compare(
    cases: Iterable[Case], outcomes: Mapping[str, Outcome], expected: Expected
) -> list[tuple[Case, Outcome, Outcome]]:
    """The cases of which something else became than was expected: what became of them, and what was expected."""
    found = ((case, outcomes.get(case.id, Outcome.MISSING)) for case in cases)
    return [(case, outcome, expected.of(case)) for case, outcome in found if outcome is not expected.of(case)]
