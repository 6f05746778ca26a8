# SPDX-License-Identifier: Apache-2.0
"""pytest's plugin in the runs of those who do not use it, and without root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def pytest_run(directory: Path, test: str, *options: str) -> str:
    """The output of pytest with *test*, by a user who is not root: in a user namespace root has no name, and may still
    enter directories that are closed to others."""
    (directory / "test_it.py").write_text(test)
    prefix = ["unshare", "--user"] if os.geteuid() == 0 else []
    command = [*prefix, sys.executable, "-B", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_it_is_inert_where_no_test_uses_it(tmp_path: Path) -> None:
    assert "1 passed" in pytest_run(tmp_path, UNUSED)


@pytest.mark.parametrize(("options", "outcome"), [((), "1 error"), (("--asap2-skip",), "1 skipped")])
def test_without_root_a_test_says_so_in_one_sentence(tmp_path: Path, options: tuple[str, ...], outcome: str) -> None:
    output = pytest_run(tmp_path, USED, *options)
    assert "asap2: this needs root: it makes network namespaces and loads eBPF programs" in output
    assert outcome in output
    assert "Traceback" not in output
