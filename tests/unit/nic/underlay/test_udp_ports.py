# SPDX-License-Identifier: Apache-2.0
"""The driver's table of UDP ports that VXLAN comes to."""

from __future__ import annotations

import pytest

from asap2.nic.links import Link
from asap2.nic.underlay.udp_ports import UdpPorts


class _Node:
    """The vxlan devices of a node, and what the NICs were told."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.told: list[tuple[int, ...]] = []
        self.ports = UdpPorts(lambda: self.links, self.told.append)

    def have(self, *ports: int, up: bool = True) -> None:
        self.links = [Link(at, f"vx{at}", up, b"", 0, None, "vxlan", port) for at, port in enumerate(ports, 1)]
        self.ports.follow()


@pytest.fixture
def node() -> _Node:
    return _Node()


def test_a_device_that_is_up_brings_its_port_and_takes_it_along(node: _Node) -> None:
    assert not node.ports.has(8472)
    node.have(8472)
    assert node.ports.has(8472)
    node.have(8472, up=False)
    assert not node.ports.has(8472)
    assert node.told == [(8472, 0, 0, 0, 0, 0, 0), (0,) * 7]


def test_the_port_of_vxlan_is_always_there(node: _Node) -> None:
    assert node.ports.has(4789)
    node.have(4789)
    assert not node.told
    assert not node.ports.has(0)


def test_a_port_keeps_its_place_and_another_takes_a_free_one(node: _Node) -> None:
    node.have(1, 2, 3)
    node.have(3, 2, 5)
    assert node.told[-1] == (5, 2, 3, 0, 0, 0, 0)


def test_the_eighth_has_to_wait_until_another_goes(node: _Node) -> None:
    node.have(*range(1, 9))
    assert [node.ports.has(port) for port in range(1, 9)] == [True] * 7 + [False]
    node.have(*range(2, 9))
    assert node.ports.has(8)
    assert not node.ports.has(1)


def test_what_the_nics_have_from_an_earlier_run_stays_or_goes(node: _Node) -> None:
    ports = UdpPorts(lambda: node.links, node.told.append, (1, 0, 3))
    node.have(3)
    ports.follow()
    assert node.told[-1] == (0, 0, 3, 0, 0, 0, 0)


def test_who_asks_for_a_port_does_not_depend_on_a_notice(node: _Node) -> None:
    node.links = [Link(1, "vx", True, b"", 0, None, "vxlan", 8472)]
    assert node.ports.has(8472)
