# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess

import pytest

from asap2.ovn import network
from asap2.ovn.demo import topology
from asap2.ovn.network import PORTS

COMMANDS = [
    *network.switches(),
    *network.router(),
    *network.physical("hv1"),
    *network.stateless_acls(),
    *network.stateful_acls(),
    *network.load_balancers(),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shell_takes_each_command(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)
    assert "ovn-nbctl " in command


def test_the_ports_are_those_of_the_labs_guests() -> None:
    guests = {guest.name: guest for guest in topology().guests}
    assert {port.guest: port.mac for port in PORTS} | {network.OUTSIDE_GUEST: "fa:16:3e:00:00:99"} == {
        name: guest.mac for name, guest in guests.items()
    }
    assert guests[network.OUTSIDE_GUEST].address == f"{network.OUTSIDE}/24"


def test_each_switch_has_a_guest_on_each_node() -> None:
    nodes = {guest.name: guest.node for guest in topology().guests}
    for switch in network.ROUTER_MACS:
        assert {nodes[port.guest] for port in PORTS if port.switch == switch} == {"hv1", "hv2"}


def test_a_port_knows_its_router() -> None:
    assert (network.VM4.gateway, network.VM4.gateway6) == ("10.0.1.1", "fd00:1::1")
