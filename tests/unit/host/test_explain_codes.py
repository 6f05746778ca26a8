# SPDX-License-Identifier: Apache-2.0
"""Each code of ``asap2 host explain`` is provoked by a system test, or it is said here why none can."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from asap2.host.explain.reasons import REASONS

WITHOUT_A_NODE = ("test_explain", "test_explain_evidence", "flow_texts")
TESTS = Path(__file__).resolve().parents[2] / "system/host"
UNPROVOKED = {
    "switch.not-in-force": "Open vSwitch since 2.8 takes hw-offload=true at once; an older one is not at hand",
    "action.ct": "Open vSwitch refuses it where TC has no connection tracking; a node's has",
    "action.check-length": "only Open vSwitch before 3.0 refuses it; 3.1 is at hand",
    "action.set-fragment": "Open vSwitch refuses it since 3.3.4; 3.1 is at hand",
    "match.incomplete": "Open vSwitch refuses it since 3.3.4; 3.1 is at hand",
    "match.recirculation": "Open vSwitch refuses it since 3.6; 3.1 is at hand",
    "nic.refused": "this NIC has a reason, or a place of its own in the explanation, for all that it refuses",
    "tc.no-priority": "where TC takes several masks a priority, Open vSwitch uses one for each Ethernet type, of which "
    "there are 64000, and of priorities 65530",
}
"""Codes that unit tests have only, and why: what Open vSwitch 3.1 cannot be brought to do."""


def modules() -> Iterator[ModuleType]:
    """The system tests of `explain`."""
    for path in sorted(TESTS.glob("test_explain*.py")):
        yield importlib.import_module(f"tests.system.host.{path.stem}")


def provoked() -> set[str]:
    """The codes that they are marked as provoking, or are given as the parameter ``code``."""
    found: set[str] = set()
    for module in modules():
        for name, test in vars(module).items():
            for mark in getattr(test, "pytestmark", []) if name.startswith("test_") else []:
                if mark.name == "provokes":
                    found |= set(mark.args)
                elif mark.name == "parametrize" and "code" in mark.args[0]:
                    place = list(mark.args[0]).index("code")
                    found |= {values[place] for values in mark.args[1]}
    return found


def test_each_code_is_provoked_or_said_why_not() -> None:
    assert provoked() <= REASONS.keys()
    assert REASONS.keys() - provoked() == UNPROVOKED.keys()


@pytest.mark.parametrize("code", sorted(UNPROVOKED))
def test_what_is_not_provoked_is_provoked_without_a_node(code: str) -> None:
    texts = [Path(__file__).with_name(f"{name}.py").read_text() for name in WITHOUT_A_NODE]
    assert any(f'"{code}"' in text for text in texts)
