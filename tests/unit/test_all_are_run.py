# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


SCRIPT = runpy.run_path(str(ROOT / "scripts/test"))


def files_of(words: list[str]) -> list[Path]:
    """The test files that pytest runs, given these words."""
    ignored = {word.removeprefix("--ignore=") for word in words if word.startswith("--ignore=")}
    paths = [ROOT / word for word in words if not word.startswith("-")]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("test_*.py"))]
    return [file for file in files if str(file.relative_to(ROOT)) not in ignored]


def test_the_parts_of_make_test_are_all_tests_once() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    everything = files_of(settings["tool"]["pytest"]["ini_options"]["testpaths"])
    assert sorted(file for part in SCRIPT["PARTS"] for file in files_of(part)) == sorted(everything)
    assert set(everything) == {*(ROOT / "tests/unit").rglob("test_*.py"), *(ROOT / "tests/system").rglob("test_*.py")}


def test_the_parts_of_make_test_openstack_are_all_tests() -> None:
    paths = [word for part in SCRIPT["OPENSTACK_PARTS"] for word in part]
    assert sorted(paths) == sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/e2e").rglob("test_*.py"))
