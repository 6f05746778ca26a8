# SPDX-License-Identifier: Apache-2.0
"""A lab of two hypervisors set up as the page says, driven by the real programs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.offload.labs import LASTING, Bench

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
    bench.ok(node, "systemctl reset-failed openvswitch && systemctl restart openvswitch.service")
    bench.ok(node, f"ovs-vsctl set Open_vSwitch . {LASTING}")
    bench.ok(node, f"ovs-vsctl add-br br-int -- add-port br-int {PF} -- add-port br-int eth3 tag=57")
    bench.ok(node, f"ip link set {PF} up && ip link set eth3 up")
    number = guest.removeprefix("vm")
    bench.ok(node, f"ip link set {PF}v3 netns {guest}")
    bench.ok(guest, f"ip link set {PF}v3 name eth0 && ip addr add 10.57.0.{number}/24 dev eth0 && ip link set eth0 up")


@pytest.fixture(scope="module")
def empty() -> Iterator[Bench]:
    """A lab as it is after ``asap2 lab up``: no VFs, no Open vSwitch running."""
    with Bench.running(TOPOLOGY) as bench:
        yield bench


@pytest.fixture(scope="module")
def lab(empty: Bench) -> Bench:
    """Two hypervisors, offloading, a guest on VF 3 of each, VLAN 57."""
    for node, guest in (("hv1", "vm1"), ("hv2", "vm2")):
        set_up(empty, node, guest)
    return empty


@pytest.fixture
def idle(lab: Bench) -> Bench:
    """The lab without a flow of IPv4 in the datapath."""
    for node in ("hv1", "hv2"):
        lab.forget(node)
    return lab
