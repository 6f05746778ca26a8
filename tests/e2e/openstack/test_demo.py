# SPDX-License-Identifier: Apache-2.0
"""`asap2 demo --openstack`, as `make demo-openstack` runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from asap2.lab.layout import ROOT_VARIABLE
from asap2.openstack.demo_ovn import ROUTED
from asap2.openstack.demo_page import PINGS
from asap2.openstack.mechanism import Mechanism

NETWORKS = {"private", "tunnelled"}
CONNECTIONS = {"VLAN", "VXLAN", ROUTED, "floating IP"}


def test_the_demo_shows_what_it_says(tmp_path: Path) -> None:
    place, file = Path(f"/run/t-openstack-demo-{os.getpid()}"), tmp_path / "report.json"
    command = [sys.executable, "-m", "asap2.cli.main", "demo", "--openstack", "--report", str(file)]
    environment = os.environ | {ROOT_VARIABLE: str(place)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert report["ok"]
    assert all(step["ok"] for step in report["steps"])
    assert report["ping_loss_percent"] == dict.fromkeys(NETWORKS, 0)
    assert report["representor_packets"] == dict.fromkeys(NETWORKS, 1)
    assert report["offloaded_packets"] == dict.fromkeys(NETWORKS, PINGS - 1)
    assert set(report["tracked_in_hardware"]) == CONNECTIONS
    for what, carried in report["tracked_in_hardware"].items():
        assert 0 < report["tracked_at_the_host"][what] * 100 <= carried
    assert set(report["up_seconds"]) == set(Mechanism)
    assert not place.exists()
