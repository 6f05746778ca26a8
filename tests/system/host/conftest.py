# SPDX-License-Identifier: Apache-2.0
"""A lab for the operator's half: a ConnectX-5 with a cable to a ConnectX-6 Dx of two ports, and a guest at each end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asap2.testing import Result
from tests.schemas import answer
from tests.system.offload.labs import Bench
from tests.system.patience import PATIENCE

TOPOLOGY = """
[[node]]
name = "hv1"
[[node.nic]]

[[node]]
name = "hv2"
[[node.nic]]
model = "ConnectX-6 Dx"
ports = 2

[[cable]]
ends = ["hv1/nic0", "hv2/nic0/p0"]

[[guest]]
name = "vm1"
node = "hv1"
vf = 1
mac = "fa:16:3e:b9:b8:ce"
address = "10.57.0.1/24"

[[guest]]
name = "vm2"
node = "hv2"
vf = 1
mac = "fa:16:3e:0a:f4:71"
address = "10.57.0.2/24"
"""
PF = "enp3s0f0"
ADDRESS = "0000:03:00.0"
REPOSITORY = Path(__file__).resolve().parents[3]


class Hosts(Bench):
    """The lab, and ``asap2 host`` inside its nodes."""

    def host(self, node: str, *words: str, timeout: float = 5 * PATIENCE) -> Result:
        """Run ``asap2 host WORDS`` in a node."""
        return self.run_words(node, sys.executable, "-m", "asap2.cli.main", "host", *words, timeout=timeout)

    def done(self, node: str, *words: str, timeout: float = 5 * PATIENCE) -> str:
        """As :meth:`host`; its output, when it succeeds."""
        done = self.host(node, *words, timeout=timeout)
        assert done.returncode == 0, f"{node}$ asap2 host {' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def data(self, node: str, *words: str) -> Any:
        """As :meth:`host` with --json; what it printed, whatever its exit status."""
        return answer(self.host(node, *words, "--json").stdout)

    def state(self, node: str) -> dict[str, Any]:
        """What the node is like, by its own programs."""
        script = str(Path(__file__).with_name("state.py"))
        found: dict[str, Any] = json.loads(self.ok(node, f"{sys.executable} {script}"))
        return found

    def killed(self, node: str, number: int, what: str, when: str) -> Result:
        """Have the node set up, or undone, and killed at a step. It may restart Open vSwitch each time: more often than
        systemd lets one."""
        command = f"cd {REPOSITORY} && {sys.executable} -m tests.system.host.killed {number} {what} {when}"
        return self.run(node, f"systemctl reset-failed openvswitch; {command}")

    def hand_over(self, node: str, guest: str, vf: int = 1) -> None:
        """Hand a VF of the first PF to a guest, as eth0 with the guest's address."""
        number = guest.removeprefix("vm")
        self.ok(node, f"ip link set {PF}v{vf} netns {guest}")
        setting = f"ip link set {PF}v{vf} name eth0 && ip addr add 10.57.0.{number}/24 dev eth0 && ip link set eth0 up"
        self.ok(guest, setting)

    def clear(self, node: str) -> None:
        """Bring the node back to how the lab made it, whatever a test left."""
        self.ok(
            node,
            f"[ ! -e /etc/asap2/undo.json ] || {sys.executable} -m asap2.cli.main host undo --force > /dev/null; "
            "rm -rf /etc/asap2; systemctl reset-failed openvswitch; "
            "{ ovs-appctl -T 9 version && ovs-vsctl -t 9 show; } > /dev/null 2>&1 || systemctl start openvswitch; "
            "for b in $(ovs-vsctl list-br); do ovs-vsctl del-br $b; done; "
            "[ $(ovs-vsctl get Open_vSwitch . other_config) = {} ] || "
            "{ ovs-vsctl clear Open_vSwitch . other_config; systemctl reset-failed openvswitch && "
            "systemctl restart openvswitch; }; "
            "for d in /sys/bus/pci/devices/*/sriov_totalvfs; do d=$(dirname $d); echo 0 > $d/sriov_numvfs; "
            "devlink dev eswitch set pci/$(basename $d) mode legacy; "
            "n=$(ls $d/net | head -1); tc qdisc del dev $n ingress 2>/dev/null; "
            "ethtool -K $n hw-tc-offload off; ip link set $n down mtu 1500; done; true",
        )


@pytest.fixture(scope="session")
def bench() -> Iterator[Hosts]:
    """The lab as ``asap2 lab up`` leaves it."""
    with Hosts.running(TOPOLOGY) as bench:
        yield bench


@pytest.fixture
def lab(bench: Hosts) -> Hosts:
    """The lab, with hv1 as it came."""
    bench.clear("hv1")
    return bench


@pytest.fixture
def both(lab: Hosts) -> Hosts:
    """The lab, with both nodes as they came."""
    lab.clear("hv2")
    return lab
