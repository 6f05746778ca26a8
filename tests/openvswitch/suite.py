# SPDX-License-Identifier: Apache-2.0
"""A testsuite of Open vSwitch (autotest): which tests it has, what became of them, and what is expected.

``expected.toml`` has for each testsuite four tables of titles: ``needs``, kinds of links that a test needs; ``skips``
and ``fails``, tests that do not pass; ``timing``, tests that need a machine of some speed and may fail on a busy one.
The last three say why. All others should pass. A title may be of one version of Open vSwitch only.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.suites_of_others import Outcome

_LISTED: Final = re.compile(r"^ *(\d+): \S+ +(.+?)\s*$", re.MULTILINE)
_VARIANT: Final = re.compile(r" -- ovn-northd -- parallelization=(?:yes|no)(?: -- ovn_monitor_all=(?:yes|no))?$")
_DEFAULTS: Final = ("parallelization=no -- ovn_monitor_all=no", "parallelization=no")
_TOLD: Final = re.compile(
    r"^ *(\d+): .*?(ok|skipped|FAILED|expected failure|UNEXPECTED PASS)\s*(\([^)]*\))?$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a testsuite's tests need, by title, and why some are skipped or fail, always or on a busy machine."""

    needs: Mapping[str, str]
    skips: Mapping[str, str]
    fails: Mapping[str, str]
    timing: Mapping[str, str]

    def of(self, title: str) -> Outcome:
        """What is expected of a test."""
        title = without_variant(title)
        return Outcome.FAILED if title in self.fails else Outcome.SKIPPED if title in self.skips else Outcome.OK

    def explains(self, title: str, outcome: Outcome) -> bool:
        """Whether it is known that a test may end so."""
        return outcome is self.of(title) or (outcome is Outcome.FAILED and without_variant(title) in self.timing)

    def reason(self, title: str) -> str:
        """Why it does not pass; empty where it should."""
        title = without_variant(title)
        return self.fails.get(title) or self.skips.get(title) or self.timing.get(title, "")


class Difference(NamedTuple):
    """A test of which something else became than was expected."""

    title: str
    outcome: Outcome
    expected: Outcome


def titles_in(listing: str) -> dict[int, str]:
    """The titles by number, from what ``--list`` prints."""
    return {int(number): title for number, title in _LISTED.findall(listing)}


def without_variant(title: str) -> str:
    """The *title* of a test of OVN without the words that say which variant it is; another's as it is."""
    return _VARIANT.sub("", title)


def with_defaults(tests: Mapping[int, str]) -> dict[int, str]:
    """The *tests* without OVN's variants that are not its programs' defaults."""
    return {number: title for number, title in tests.items() if not _VARIANT.search(title) or title.endswith(_DEFAULTS)}


def outcomes_in(output: str) -> dict[int, Outcome]:
    """The outcomes by number, from what a run prints."""
    words = {"ok": Outcome.OK, "skipped": Outcome.SKIPPED, "expected failure": Outcome.OK}
    return {int(number): words.get(word, Outcome.FAILED) for number, word, _where in _TOLD.findall(output)}


def expectations(path: Path, suite: str) -> Expected:
    """What is expected of *suite*. ValueError for a table that is not one, and for an exception without a reason."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(path.read_text()).get(suite, {})
    unknown = tables.keys() - {"needs", "skips", "fails", "timing"}
    if unknown:
        raise ValueError(f"{path}: {suite} has no table {', '.join(sorted(unknown))}")
    for name, table in tables.items():
        for title, why in table.items():
            if not why or not isinstance(why, str):
                raise ValueError(f"{path}: {suite}.{name}: {title}: say what for")
    return Expected(*(tables.get(name, {}) for name in ("needs", "skips", "fails", "timing")))


def compare(
    tests: Mapping[int, str], outcomes: Mapping[int, Outcome], expected: Expected, chosen: Iterable[int]
) -> list[Difference]:
    """The *chosen* tests of which something else became than was expected."""
    found = ((tests[number], outcomes.get(number, Outcome.MISSING)) for number in chosen)
    return [
        Difference(title, outcome, expected.of(title))
        for title, outcome in found
        if not expected.explains(title, outcome)
    ]
