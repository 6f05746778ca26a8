# SPDX-License-Identifier: Apache-2.0
"""A lab of two hypervisors set up as the page says, driven by the real programs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asap2.lab.layout import ROOT_VARIABLE

TOPOLOGY = """
[[node]]
name = "hv1"
[[node.nic]]

[[node]]
name = "hv2"
[[node.nic]]

[[cable]]
ends = ["hv1/nic0", "hv2/nic0"]

[[guest]]
name = "vm1"
node = "hv1"
vf = 3
mac = "fa:16:3e:b9:b8:ce"
address = "10.57.0.1/24"

[[guest]]
name = "vm2"
node = "hv2"
vf = 3
mac = "fa:16:3e:0a:f4:71"
address = "10.57.0.2/24"
"""
PF = "enp3s0f0"
PCI = "0000:03:00.0"
VFS = 4


class Bench:
    """The lab: runs programs in nodes and guests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = os.environ | {ROOT_VARIABLE: str(root)}

    def asap2(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run the command ``asap2``."""
        command = [sys.executable, "-m", "asap2.cli.main", *words]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=timeout)

    def run(self, where: str, command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell command line in a node or guest."""
        return self.asap2("exec", where, "--", "bash", "-c", command, timeout=timeout)

    def ok(self, where: str, command: str, timeout: float = 60) -> str:
        """As :meth:`run`; its output, when it succeeds."""
        done = self.run(where, command, timeout)
        assert done.returncode == 0, f"{where}$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, where: str, *words: str) -> subprocess.Popen[str]:
        """Start a program in a node or guest."""
        command = [sys.executable, "-m", "asap2.cli.main", "exec", where, "--", *words]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment
        )

    def flows(self, node: str, kind: str = "offloaded") -> list[str]:
        """The datapath's flows of one type."""
        return self.ok(node, f"ovs-appctl dpctl/dump-flows -m type={kind}").splitlines()

    def flow(self, node: str, *parts: str, kind: str = "offloaded") -> str:
        """The one flow that holds every part; it may take a moment to be there."""
        found: list[str] = []

        def one() -> bool:
            found[:] = [flow for flow in self.flows(node, kind) if all(part in flow for part in parts)]
            return len(found) == 1

        until(one, 5, f"{node} has not one flow with {parts}")
        return found[0]

    def ping(self, guest: str, address: str, count: int = 3, options: str = "-i 0.01") -> str:
        """Ping without loss; its output."""
        output = self.ok(guest, f"ping -n -c {count} -W 5 {options} {address}")
        assert f"{count} received, 0% packet loss" in output
        return output

    def daemon(self, node: str) -> int:
        """The process id of the node's daemon; 0 while none serves."""
        try:
            return int((self.root / "nodes" / node / "ready").read_text() or 0)
        except FileNotFoundError:
            return 0


def packets_of(flow: str) -> int:
    """The packet count of a flow."""
    found = re.search(r"packets:(\d+)", flow)
    assert found
    return int(found[1])


def until(what: Callable[[], bool], seconds: float = 10, why: str = "it did not happen") -> None:
    """Wait for a condition that no event announces."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.02)


def set_up(bench: Bench, node: str, guest: str, *, offload: bool = True) -> None:
    """The page's procedure on one node, word for word; then the bridge and the guest."""
    bench.ok(node, f"echo {VFS} > /sys/class/net/{PF}/device/sriov_numvfs")
    functions = bench.ok(node, f"readlink /sys/class/net/{PF}/device/virtfn* | xargs -n1 basename").split()
    for function in functions:
        bench.ok(node, f"echo {function} > /sys/bus/pci/drivers/mlx5_core/unbind")
    bench.ok(node, f"devlink dev eswitch set pci/{PCI} mode switchdev")
    bench.ok(node, f"ethtool -K {PF} hw-tc-offload on")
    for function in functions:
        bench.ok(node, f"echo {function} > /sys/bus/pci/drivers/mlx5_core/bind")
    bench.ok(node, "systemctl enable openvswitch.service && systemctl start openvswitch.service")
    bench.ok(node, f"ovs-vsctl set Open_vSwitch . other_config:hw-offload={str(offload).lower()}")
    bench.ok(node, "systemctl restart openvswitch.service")
    bench.ok(node, "ovs-vsctl set Open_vSwitch . other_config:max-idle=30000")
    bench.ok(node, f"ovs-vsctl add-br br-int -- add-port br-int {PF} -- add-port br-int eth3 tag=57")
    bench.ok(node, f"ip link set {PF} up && ip link set eth3 up")
    number = guest.removeprefix("vm")
    bench.ok(node, f"ip link set {PF}v3 netns {guest}")
    bench.ok(guest, f"ip link set {PF}v3 name eth0 && ip addr add 10.57.0.{number}/24 dev eth0 && ip link set eth0 up")


@pytest.fixture(scope="module")
def empty() -> Iterator[Bench]:
    """A lab as it is after ``asap2 lab up``: no VFs, no Open vSwitch running."""
    if os.geteuid():
        pytest.fail("the system tests make namespaces and so need root")
    root = Path(f"/run/t-offload-{os.getpid()}")
    bench = Bench(root)
    topology = Path(f"/tmp/t-offload-{os.getpid()}.toml")
    topology.write_text(TOPOLOGY)
    try:
        up = bench.asap2("lab", "up", str(topology))
        assert up.returncode == 0, up.stderr
        yield bench
    finally:
        topology.unlink()
        down = bench.asap2("lab", "down")
        assert down.returncode == 0, down.stderr


@pytest.fixture(scope="module")
def lab(empty: Bench) -> Bench:
    """Two hypervisors, offloading, a guest on VF 3 of each, VLAN 57."""
    for node, guest in (("hv1", "vm1"), ("hv2", "vm2")):
        set_up(empty, node, guest)
    return empty


@pytest.fixture
def idle(lab: Bench) -> Bench:
    """The lab without a flow in the datapath."""
    for node in ("hv1", "hv2"):
        lab.ok(node, "ovs-appctl revalidator/purge")
        assert not lab.flows(node)
    return lab
