# SPDX-License-Identifier: Apache-2.0
"""pytest's plugin in the runs of those who do not use it, and without root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import open_the_root, open_to_all

UNUSED = """
import sys
def test_imports_nothing_of_the_lab():
    assert not [name for name in sys.modules if name.startswith(("asap2.lab", "asap2.testing", "asap2.host"))]
    assert "asap2.pytest_plugin" in sys.modules
"""
USED = """
def test_in_a_lab(asap2_lab):
    pass
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can enter."""
    with open_to_all() as directory:
        yield directory


def pytest_run(directory: Path, test: str, *options: str) -> str:
    """The output of pytest with *test*, by a user who is not root."""
    root = os.geteuid() == 0
    if root:
        open_the_root()
    (directory / "test_it.py").write_text(test)
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *options]
    user = 65534 if root else None
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, user=user)
    return done.stdout + done.stderr


def test_it_is_inert_where_no_test_uses_it(place: Path) -> None:
    assert "1 passed" in pytest_run(place, UNUSED)


@pytest.mark.parametrize(("options", "outcome"), [((), "1 error"), (("--asap2-skip",), "1 skipped")])
def test_without_root_a_test_says_so_in_one_sentence(place: Path, options: tuple[str, ...], outcome: str) -> None:
    output = pytest_run(place, USED, *options)
    assert "asap2: this needs root: it makes network namespaces and loads eBPF programs" in output
    assert outcome in output
    assert "Traceback" not in output
