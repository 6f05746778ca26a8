# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_halves_of_make_test_are_all_tests() -> None:
    halves = runpy.run_path(str(ROOT / "scripts/test"))["HALVES"]
    paths = [word for half in halves for word in half if word.startswith("tests/")]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(paths) == sorted(settings["tool"]["pytest"]["ini_options"]["testpaths"])
    directories = {path.relative_to(ROOT) for path in (ROOT / "tests/system").glob("*/") if [*path.rglob("test_*.py")]}
    assert {str(path) for path in directories} <= set(paths)
