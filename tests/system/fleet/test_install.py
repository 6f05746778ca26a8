# SPDX-License-Identifier: Apache-2.0
"""The role installs asap2 on a host that lacks it, from a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.system.fleet.fleet import NODES, Fleet
from tests.system.host.conftest import REPOSITORY

VENV = "/usr/local/offload"
ONE = ("--limit", NODES[7])
INSTALL = (*ONE, "--tags", "install")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """asap2 as a wheel, built from a copy of this tree."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, place)
    shutil.copytree(REPOSITORY / "src", place / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*pip, "--wheel-dir", str(place), str(place)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = place.glob("asap2-*.whl")
    return built


def hosts(wheel: Path, *more: str) -> dict[str, Any]:
    """The variables of a host that gets the wheel, and no dependencies: there is no package index here."""
    pip = ["--no-deps", "--no-index", "--no-compile", *more]
    settings = {"offload_wheel": str(wheel), "offload_venv": VENV, "offload_pip_arguments": pip}
    return {NODES[7]: {**settings, "offload_python": "/usr/bin/python3"}}


def test_a_host_without_asap2_is_told_what_to_do(fleet: Fleet) -> None:
    fleet.inventory({}, installed=False)
    play = fleet.play("check", *ONE, "-e", "offload_program=/nowhere/asap2")
    assert play.status == 2
    (result,) = play.failed.values()
    assert result["msg"].startswith("there is no program /nowhere/asap2 on this host; install asap2 there")


def test_an_installation_that_fails_is_told_and_done_again(fleet: Fleet, wheel: Path) -> None:
    fleet.inventory(hosts(wheel, "--no-such-option"), installed=False)
    play = fleet.play("setup", *INSTALL)
    assert play.status == 2
    assert any(
        result["msg"].startswith(f"asap2 cannot be installed in {VENV}: ") and "no such option" in result["msg"]
        for result in play.failed.values()
    )
    fleet.inventory(hosts(wheel), installed=False)
    play = fleet.play("setup", *INSTALL)
    assert play.status == 0, play.output
    assert play.touched == {NODES[7]}
    again = fleet.play("setup", *INSTALL)
    assert (again.status, again.touched) == (0, set())


def test_what_was_installed_is_what_runs(fleet: Fleet, wheel: Path) -> None:
    """What asap2 depends on comes from the environment of the tests."""
    fleet.inventory(hosts(wheel), installed=False)
    site = fleet.ok(NODES[7], f"echo {VENV}/lib/python3*/site-packages").strip()
    fleet.ok(NODES[7], f"echo {sysconfig.get_path('purelib')} > {site}/dependencies.pth")
    where = fleet.ok(NODES[7], f"cd / && {VENV}/bin/python -c 'import asap2; print(asap2.__file__)'")
    assert where.startswith(f"{site}/asap2/")
    play = fleet.play("check", *ONE)
    (result,) = play.of("check").values()
    assert result["msg"].startswith("hardware offload is not ready here: ")
