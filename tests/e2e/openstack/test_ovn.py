# SPDX-License-Identifier: Apache-2.0
"""A cloud with OVN: what the demo does not show. Its programs are stopped and started while servers talk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from asap2.lab.background import Program
from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from asap2.lab.topology import parse
from asap2.openstack.cloud import Cloud
from asap2.openstack.mechanism import Mechanism
from asap2.openstack.plan import CONTROLLER
from asap2.openstack.services import OVN_WAIT_MILLISECONDS
from tests.e2e.openstack.conftest import links
from tests.e2e.openstack.operator import Operator, address, wait_for


@pytest.fixture(scope="module")
def prepared() -> Iterator[Operator]:
    """The operator of a cloud with OVN, with two servers that talk over VLAN."""
    root, before = Path(f"/run/t-openstack-ovn-{os.getpid()}"), links()
    cloud = Cloud(Lab(Layout(root)), print)
    cloud.up(parse(resources.files("asap2.openstack").joinpath("topology.toml").read_text()), Mechanism.OVN)
    try:
        operator = Operator(cloud)
        operator.prepare()
        yield operator
    finally:
        cloud.down()
    assert not root.exists()
    assert links() == before


def test_a_connection_in_hardware_loses_nothing_while_ovn_is_restarted(operator: Operator) -> None:
    group = operator.security_group("open")
    operator.security_rule(group, "tcp", 5201)
    operator.security_rule(group, "udp", 5201)
    ports = [operator.port(security_groups=[group]) for _ in operator.nodes]
    servers = [operator.boot(f"vm{number}", [port], number) for number, port in enumerate(ports)]
    for server in servers:
        operator.wait_for_status(server, "ACTIVE")
    node, layout = operator.nodes[0].node, operator.cloud.lab.layout
    command = ["iperf3", "-c", address(ports[1]), "-p", "5201", "-u", "-b", "2M", "-t", "300"]
    with (
        Program(layout.bundle("vm1"), ["iperf3", "-s", "-1", "-p", "5201"]) as server_side,
        Program(layout.bundle("vm0"), command) as running,
    ):
        wait_for(lambda: "HW_OFFLOAD" in operator.sh(node, "conntrack -L -p udp 2>/dev/null"))
        for name, host in (("ovn-controller", operator.nodes[0].host), ("ovn-central", CONTROLLER)):
            with operator.without(name, host):
                reports(server_side, 2)
            reports(server_side, 2 + OVN_WAIT_MILLISECONDS // 1000)  # it replaces the rules only then
        assert running.process.poll() is None
    lost = re.findall(r" (\d+)/\d+ \(", server_side.output)
    assert len(lost) >= 8
    assert set(lost) == {"0"}, server_side.output


def reports(server_side: Program, more: int) -> None:
    """Wait for so many *more* reports of ``iperf3 -s``, which come once a second."""
    wanted = server_side.output.count("/sec") + more
    server_side.read_until(rf"(?s)(/sec.*?){{{wanted}}}")


def test_a_server_on_a_node_without_its_controller_is_an_error(operator: Operator) -> None:
    port = operator.port()
    with operator.without("ovn-controller"):
        server = operator.boot("vm0", [port])
        fault = operator.fault(server)
        assert "Failed to allocate the network" in fault or f"Binding failed for port {port['id']}" in fault
    operator.delete(server)
    operator.server("vm1", [operator.port()])
