# SPDX-License-Identifier: Apache-2.0
"""Every topology that comes with the program does, as soon as it is up, what its first line says."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.lab import gallery
from asap2.lab.execute import run
from asap2.lab.lab import Lab
from asap2.lab.layout import MOST_NODES, Layout
from asap2.lab.topology import Topology

BARE = {"one-node", "two-nodes"}
"""Those whose switches are left to the user."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab's place of this test's own."""
    made = Lab(Layout(Path(f"/run/t-gallery-{os.getpid()}")))
    yield made
    made.down()


def reach(lab: Lab, topology: Topology) -> int:
    """Have the first guest of each network ping the others; the number of pings that had answers."""
    networks: dict[object, list[tuple[str, str]]] = {}
    for guest in topology.guests:
        interface = ipaddress.ip_interface(guest.address or "")
        networks.setdefault(interface.network, []).append((guest.name, str(interface.ip)))
    done = 0
    for (first, _), *others in networks.values():
        for _, address in others:
            run(lab.layout.bundle(first), "ping", "-q", "-c", "5", "-i", "0.1", "-W", "5", address)
            done += 1
    return done


@pytest.mark.parametrize("name", [name for name in gallery.names() if name not in BARE])
def test_guests_reach_each_other_and_flows_are_in_hardware(lab: Lab, name: str) -> None:
    topology = gallery.named(name)
    lab.up(topology)
    assert reach(lab, topology) >= 1
    for node in topology.nodes:
        flows = "ovs-appctl dpctl/dump-flows type=offloaded"
        assert not node.openvswitch or run(lab.layout.bundle(node.name), *flows.split())


@pytest.mark.parametrize("name", sorted(BARE))
def test_what_is_left_to_the_user_comes_up(lab: Lab, name: str) -> None:
    lab.up(gallery.named(name))
    assert (lab.describe() or {})["state"] == "up"


def test_the_most_nodes_that_can_be_asked_for_reach_each_other(lab: Lab) -> None:
    topology = gallery.rack(MOST_NODES)
    lab.up(topology)
    assert reach(lab, topology) == MOST_NODES - 1
