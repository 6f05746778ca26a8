# SPDX-License-Identifier: Apache-2.0
"""`asap2 openstack down` of a cloud whose `up` was killed; what the commands say when there is nothing to do it to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.lab.layout import ROOT_VARIABLE

ASAP2 = [sys.executable, "-m", "asap2.cli.main"]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a lab of the test's own may be."""
    root = Path(f"/run/t-openstack-down-{os.getpid()}")
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    yield root
    asap2("lab", "down")


def asap2(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ASAP2, *words], capture_output=True, text=True, timeout=120)


def processes_of(root: Path) -> list[str]:
    """The command lines of all processes that were started with this lab's place in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes() if entry.name.isdecimal() else b""
            if f"{ROOT_VARIABLE}={root}".encode() in environment and entry.name != str(os.getpid()):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_down_after_up_was_killed(place: Path) -> None:
    with subprocess.Popen([*ASAP2, "openstack", "up"], stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout
        for line in up.stdout:
            if "✓ RabbitMQ" in line:
                break
        up.kill()
    assert any("beam" in words for words in processes_of(place))
    assert asap2("openstack", "down").returncode == 0
    deadline = time.monotonic() + 10
    while left := processes_of(place):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert not place.exists()
    assert str(place) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.usefixtures("place")
def test_no_cloud_is_up() -> None:
    down = asap2("openstack", "down")
    assert (down.returncode, down.stderr) == (0, "no cloud is up\n")
    listed = asap2("openstack", "ls")
    assert (listed.returncode, listed.stderr) == (1, "asap2: no cloud is up; `asap2 openstack up` makes one\n")


def test_a_node_that_cannot_compute(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('[[node]]\nname = "hv1"\n[[node.nic]]\n')
    up = asap2("openstack", "up", str(file))
    assert up.returncode == 1
    assert 'must have mode = "switchdev"' in up.stderr
    assert not place.exists()
