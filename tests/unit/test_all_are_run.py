# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


SCRIPT = runpy.run_path(str(ROOT / "scripts/test"))


def test_the_parts_of_make_test_are_all_tests() -> None:
    paths = [word for part in SCRIPT["PARTS"] for word in part]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(paths) == sorted(settings["tool"]["pytest"]["ini_options"]["testpaths"])
    directories = {path.relative_to(ROOT) for path in (ROOT / "tests/system").glob("*/") if [*path.rglob("test_*.py")]}
    assert {str(path) for path in directories} <= set(paths)


def test_the_parts_of_make_test_openstack_are_all_tests() -> None:
    paths = [word for part in SCRIPT["OPENSTACK_PARTS"] for word in part]
    assert sorted(paths) == sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/e2e").rglob("test_*.py"))
