# SPDX-License-Identifier: Apache-2.0
"""A lab whose packets are watched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.offload.labs import LASTING, Bench

TOPOLOGY = """
[[node]]
name = "hv1"
setup = [SETUP]
[[node.nic]]
vfs = 2
mode = "switchdev"

[[node]]
name = "hv2"
setup = [SETUP]
[[node.nic]]
vfs = 2
mode = "switchdev"

[[cable]]
ends = ["hv1/nic0", "hv2/nic0"]

[[guest]]
name = "vm1"
node = "hv1"
vf = 0
mac = "fa:16:3e:00:00:01"
address = "10.57.0.1/24"

[[guest]]
name = "vm2"
node = "hv2"
vf = 0
mac = "fa:16:3e:00:00:02"
address = "10.57.0.2/24"

[[guest]]
name = "vm3"
node = "hv1"
vf = 1
mac = "fa:16:3e:00:00:03"
address = "10.57.0.3/24"
"""
SETUP = (
    f'"ovs-vsctl set Open_vSwitch . other_config:hw-offload=true {LASTING}", "systemctl restart openvswitch", '
    '"ovs-vsctl add-br br-int -- add-port br-int enp3s0f0",'
    '"ovs-vsctl add-port br-int eth0 tag=52 -- add-port br-int eth1 tag=52",'
    '"ip link set enp3s0f0 up && ip link set eth0 up && ip link set eth1 up"'
)


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """Two nodes with Open vSwitch, VLAN 52 between them, and no flow of IPv4 yet."""
    with Bench.running(TOPOLOGY.replace("SETUP", SETUP)) as lab:
        for guest in ("vm2", "vm3"):
            lab.guest("vm1").ping(lab.guest(guest), 1)
        forget(lab)
        yield lab


def forget(lab: Bench) -> None:
    """Have no flows: the next packet is the first. Neighbours stay known."""
    for node in lab.nodes:
        lab.ok(node.name, "ovs-appctl revalidator/purge")
