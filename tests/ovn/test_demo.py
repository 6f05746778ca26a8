# SPDX-License-Identifier: Apache-2.0
"""`asap2 demo --ovn`, as `make demo-ovn` runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asap2.lab.layout import ROOT_VARIABLE
from asap2.ovn.traffic import LEAST_SHARE

SOFTWARE = {"gateway MTU, ping"}
"""Traffic that Open vSwitch does not offload."""


@pytest.mark.parametrize("options", [[], ["--encapsulation", "vxlan"]])
def test_the_demo_shows_what_it_says(tmp_path: Path, options: list[str]) -> None:
    place, file = Path(f"/run/t-ovn-demo-{os.getpid()}"), tmp_path / "report.json"
    words = ["demo", "--ovn", *options, "--report", str(file)]
    environment = os.environ | {ROOT_VARIABLE: str(place)}
    done = subprocess.run(
        [sys.executable, "-m", "asap2.cli.main", *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert report["ok"]
    assert all(step["ok"] for step in report["steps"])
    shares = {one["kind"]: 1 - one["at_host"] / one["packets"] for one in report["carried"]}
    assert {kind for kind, share in shares.items() if share < LEAST_SHARE} == SOFTWARE
    assert len(shares) == 14
    assert not place.exists()
