# SPDX-License-Identifier: Apache-2.0
"""A lab of the test's own, away from the machine's, and what the machine looked like before."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from asap2.lab.execute import run
from asap2.lab.lab import Lab
from asap2.lab.layout import ROOT_VARIABLE, Layout
from tests.system.patience import PATIENCE

STANDIN = Path(__file__).with_name("standin.py")


@dataclass(frozen=True)
class Machine:
    """What of ours could stay behind: processes, mounts, network namespaces, links, BPF programs and links."""

    processes: frozenset[str]
    mounts: frozenset[str]
    namespaces: frozenset[str]
    links: str

    @classmethod
    def look(cls, mark: str) -> Machine:
        """The machine now; only processes and mounts that carry *mark* count, others come and go."""
        processes, namespaces = set(), set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                if mark in (entry / "cmdline").read_text(errors="replace"):
                    processes.add(entry.name)
                if mark in (entry / "environ").read_text(errors="replace"):
                    namespaces.add(os.readlink(entry / "ns" / "net"))
            except OSError:
                continue
        mounts = {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line}
        links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
        return cls(
            frozenset(processes - {str(os.getpid())}),
            frozenset(mounts),
            frozenset(namespaces - {os.readlink("/proc/self/ns/net")}),
            links,
        )


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """A lab's layout of this test's own, also for the commands; whatever is there at the end is taken down."""
    root = Path(f"/run/t-lab-{os.getpid()}")
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    layout = Layout(root)
    yield layout
    Lab(layout).down()


@pytest.fixture
def lab(place: Layout) -> Lab:
    """A lab, not up yet, whose daemons are stand-ins."""
    return Lab(place, [sys.executable, str(STANDIN)])


Asap2 = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def asap2(place: Layout) -> Asap2:
    """Runs the command ``asap2`` on the test's lab."""
    return asap2_on(place)


def asap2_on(place: Layout) -> Asap2:
    """Runs the command ``asap2`` on the lab at *place*."""
    environment = os.environ | {ROOT_VARIABLE: str(place.root)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "asap2.cli.main", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)

    return run


def sh(lab: Lab, name: str, script: str) -> str:
    """The output of a shell script in a node or guest."""
    return run(lab.layout.bundle(name), "bash", "-c", script).strip()


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return when *condition* holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
