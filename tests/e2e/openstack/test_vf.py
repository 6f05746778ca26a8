# SPDX-License-Identifier: Apache-2.0
"""A VF handed to a guest and taken back by the virt driver's own code, on a NIC in legacy mode, which takes VLANs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.system.offload.labs import Bench

MAC = "fa:16:3e:00:00:57"
TOPOLOGY = '[[node]]\nname = "hv1"\nopenvswitch = false\n[[node.nic]]\nvfs = 2\n'


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """One node with two VFs."""
    with Bench.running(TOPOLOGY) as running:
        yield running


def on_vf(bench: Bench, call: str) -> str:
    words = f"from asap2.openstack.virt.pci import Vf; print(Vf('0000:03:00.3').{call})"
    return bench.ok("hv1", f'{sys.executable} -c "{words}"').strip()


def test_mac_and_vlan_are_set_and_cleared(bench: Bench) -> None:
    netdev = on_vf(bench, f"claim('{MAC}', 57)")
    shown = bench.ok("hv1", "ip link show enp3s0f0")
    assert f"vf 1     link/ether {MAC}" in shown
    assert "vlan 57" in shown
    assert MAC in bench.ok("hv1", f"ip link show {netdev}")
    on_vf(bench, "release()")
    shown = bench.ok("hv1", "ip link show enp3s0f0")
    assert MAC not in shown
    assert "vlan" not in shown


def test_the_device_comes_back_from_a_guest(bench: Bench) -> None:
    netdev = on_vf(bench, f"claim('{MAC}')")
    bench.ok("hv1", f"ip netns add guest && ip link set {netdev} netns guest")
    assert bench.run("hv1", f"ip link show {netdev}").returncode != 0
    on_vf(bench, "release()")
    assert MAC not in bench.ok("hv1", f"ip link show {netdev}")
    bench.ok("hv1", "ip netns delete guest")
