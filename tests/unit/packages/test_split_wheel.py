# SPDX-License-Identifier: Apache-2.0
"""The operator's half is a wheel with all that its commands import before they are asked for something of the lab."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src"
sys.path.insert(0, str(ROOT / "scripts"))
split_wheel = importlib.import_module("split_wheel")
sys.path.remove(str(ROOT / "scripts"))
FILES: dict[str, Path] = split_wheel.modules(SOURCE)
OPERATORS: set[str] = split_wheel.operators(FILES)


def at_once(text: str) -> Iterator[str]:
    yield from split_wheel.imports(text, at_once=True)


def test_what_is_imported_later_is_told_from_what_is_imported_at_once() -> None:
    text = "import a\nif TYPE_CHECKING:\n    import b\ndef f():\n    import c\nclass D:\n    import d\n"
    assert set(at_once(text)) == {"a", "d"}


def test_the_operators_half_is_whole_and_no_more() -> None:
    assert {name for name in FILES if name.startswith(("asap2.host", "asap2.cli.host"))} <= OPERATORS
    assert not {"asap2.lab.lab", "asap2.nic.daemon", "asap2.trace.run", "asap2.cli.lab", "asap2.testing"} & OPERATORS
    for name in OPERATORS:
        assert name.rpartition(".")[0] in {"", *OPERATORS}
        wanted = set(at_once(FILES[name].read_text())) & set(FILES)
        assert wanted <= OPERATORS, name


def test_each_file_has_its_wheel() -> None:
    for file in ("view/static/view.js", "py.typed", "host/check/__init__.py"):
        assert split_wheel.is_operators(Path("asap2", file))
    for file in ("netlink/redirectd", "nic/silicon/eswitch.bpf.o.gz", "lab/topologies/vlan.toml", "nic/daemon.py"):
        assert not split_wheel.is_operators(Path("asap2", file))


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--help"], 0, "Needs the extra `lab`."),
        (["host", "check", "--json"], 1, '"verdict"'),
        (["openstack", "config", "--help"], 0, "Generate OpenStack's settings"),
        (["lab", "up", "vlan"], 1, "the package asap2-lab is not installed: `pip install 'asap2[lab]'`"),
        (["trace", "--help"], 1, "the package asap2-lab is not installed"),
        (["openstack", "ls", "--json"], 1, "the package asap2-lab is not installed"),
    ],
)
def test_the_operators_half_works_alone(tmp_path: Path, words: list[str], status: int, said: str) -> None:
    """Where also what the lab needs of others is installed, as here."""
    for name in OPERATORS:
        target = tmp_path / FILES[name].relative_to(SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FILES[name], target)
    command = [sys.executable, "-m", "asap2.cli.main", *words]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "ASAP2_LAB": "none"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True), done.stderr
