# SPDX-License-Identifier: Apache-2.0
"""The wheel, and the one that the sdist makes: in an empty virtual environment, away from the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packages.conftest import ENVIRONMENT, PATH, Place, made, offloads

ROOT = Path(__file__).parents[2]


def installed(directory: Path, what: str) -> Place:
    """A virtual environment that has *what* alone."""
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    pip = [str(directory / "venv/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", what], check=True, cwd=directory, env=ENVIRONMENT, capture_output=True)
    return Place(directory, [], f"{directory}/venv/bin:{PATH}", f"/run/{directory.name}")


BLOCK = 4096
"""Octets of which a file takes a whole number on a disk."""


def size(place: Place) -> tuple[int, int, int]:
    """How many packages are installed beside pip's, the octets of their files, byte code included, and those that they
    take on a disk."""
    packages = place.run("python", "-m", "pip", "list", "--format", "freeze").split()
    own = [one.split("==")[0] for one in packages if one.split("==")[0] not in ("pip", "setuptools")]
    site = Path(place.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    others = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth", "__pycache__")
    paths = [path for top in site.iterdir() if top.name.split("-")[0] not in others for path in (top, *top.rglob("*"))]
    sizes = [path.lstat().st_size for path in paths]
    files = sum(path.lstat().st_size for path in paths if path.is_file())
    return len(own), files, sum(-each // BLOCK * -BLOCK for each in sizes)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return installed(tmp_path_factory.mktemp("operator"), str(made("*.whl")))


def test_the_operators_half_is_small(operator: Place) -> None:
    packages, files, on_disk = size(operator)
    assert packages < 10
    assert files < 15 * 10**6
    assert on_disk < 17 * 2**20


def test_the_operators_half_works_alone(operator: Place) -> None:
    assert operator.run("asap2", "--version").startswith("asap2 0.")
    checked = operator.try_("asap2", "host", "check", "--json")
    assert checked.returncode in (0, 1)
    assert '"verdict"' in checked.stdout


@pytest.mark.parametrize("words", [["lab", "up", "one-node"], ["bench", "--rounds", "1"]])
def test_what_needs_an_extra_names_it(operator: Place, words: list[str]) -> None:
    done = operator.try_("asap2", *words)
    assert done.returncode == 1
    assert "`pip install 'asap2[lab]'`" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_cloud_is_refused_in_one_sentence(operator: Place) -> None:
    for words in (["openstack", "up"], ["demo", "--openstack"]):
        done = operator.try_("asap2", *words)
        assert done.returncode == 1
        assert "an OpenStack cloud needs a checkout of asap2" in done.stderr or "asap2[lab]" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return installed(tmp_path_factory.mktemp("laboratory"), f"{made('*.whl')}[lab,test]")


def test_the_wheel_runs_a_lab(laboratory: Place) -> None:
    offloads(laboratory)


def test_the_wheel_runs_two_nodes_and_the_demo(laboratory: Place) -> None:
    shown = laboratory.run("sh", "-euc", "asap2 lab up two-nodes; trap 'asap2 lab down' EXIT; asap2 lab ls")
    assert "hv1/nic0/p0  hv2/nic0/p0" in shown
    assert "all passed" in laboratory.run("asap2", "demo")


def test_twenty_lines_of_pytest_with_two_guests_take_less_than_ten_seconds(laboratory: Place) -> None:
    """Those of docs/testing.md. Seconds of the processor: what else a machine does makes none of them."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.DOTALL)
    (first,) = [block for block in blocks if block.startswith("# test_offload.py")]
    assert first.count("\n") <= 20
    (laboratory.directory / "test_offload.py").write_text(first)
    before = os.times()
    assert "1 passed" in laboratory.run("python", "-m", "pytest", "-q", "test_offload.py")
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 10


def test_the_sdist_has_nothing_that_is_made_here_but_the_page() -> None:
    with tarfile.open(made("*.tar.gz")) as archive:
        files = [name.partition("/")[2] for name in archive.getnames()]
    assert "src/asap2/view/static/view.js" in files
    assert not [name for name in files if re.search(r"__pycache__/.|\.(o|so|pyc)$|node_modules|/redirectd$", name)]


def test_the_sdist_makes_the_same_wheel_by_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(made("*.tar.gz"))]
    subprocess.run(command, check=True, cwd=tmp_path, env=ENVIRONMENT, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    first = made("*.whl")
    assert wheel.name == first.name
    assert names(wheel) == names(first)


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_has_all_modules_but_the_one_that_writes_a_header() -> None:
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/asap2").rglob("*.py")}
    assert modules - names(made("*.whl")) == {"asap2/nic/silicon/generate.py"}


def test_without_a_compiler_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(made("*.tar.gz"))]
    environment = {**ENVIRONMENT, "CLANG": "no-clang-here"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no-clang-here is not installed; Debian and Ubuntu have what is needed" in done.stdout + done.stderr
