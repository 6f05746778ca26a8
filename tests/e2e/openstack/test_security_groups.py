# SPDX-License-Identifier: Apache-2.0
"""Security groups of direct ports, by neutron's own Open vSwitch firewall."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from asap2.lab.background import Program
from tests.e2e.openstack.operator import Operator, address, wait_for
from tests.e2e.openstack.test_config_in_use import ASAP2

ALLOWED, REFUSED = 5201, 5202


@dataclass(frozen=True)
class Pair:
    """Two servers on two nodes, with a security group that has a rule for one port; the second listens at two."""

    operator: Operator
    ports: list[dict[str, Any]]
    rule: str

    def connect(self, port: int = ALLOWED, options: str = "-n 100M") -> str:
        """What iperf3 prints in the first server."""
        return self.operator.sh("sg0", f"iperf3 -c {address(self.ports[1])} -p {port} {options} 2>&1 || true")

    def carried(self) -> int:
        """Packets of established connections from the first server, as offloaded flows count them."""
        flows = self.operator.sh(self.operator.nodes[0].node, "ovs-appctl dpctl/dump-flows type=offloaded")
        found = re.findall(rf"ct_state\(\+est.*src={self.ports[0]['mac_address']}.*packets:(\d+)", flows)
        return max(map(int, found), default=0)

    def at_the_host(self) -> int:
        """Packets from the first server that its node's CPU has seen."""
        device = self.operator.representor(0, self.ports[0])
        shown = self.operator.sh(
            self.operator.nodes[0].node, f"ip -j stats show dev {device} group offload subgroup cpu_hit"
        )
        found = re.search(r'"rx":\{[^}]*"packets":(\d+)', shown)
        assert found, shown
        return int(found[1])


@pytest.fixture(scope="module")
def pair(prepared: Operator) -> Iterator[Pair]:
    group = prepared.security_group("secured")
    rule = prepared.security_rule(group, "tcp", ALLOWED)
    prepared.security_rule(group, "icmp")
    ports = [prepared.port(security_groups=[group]) for _ in prepared.nodes]
    servers = [prepared.boot(f"sg{number}", [port], number) for number, port in enumerate(ports)]
    for server in servers:
        prepared.wait_for_status(server, "ACTIVE")
    for number in (ALLOWED, REFUSED):
        prepared.sh("sg1", f"iperf3 -s -D -p {number} >/dev/null")
    yield Pair(prepared, ports, rule)
    prepared.clear()
    prepared.call("network", "DELETE", f"/v2.0/security-groups/{group}")
    assert prepared.traces() == prepared.untouched


def test_hardware_carries_a_connection_through_security_groups(pair: Pair) -> None:
    assert "iperf Done" in pair.connect(options="-n 64K")
    counted, seen = pair.carried(), pair.at_the_host()
    assert "iperf Done" in pair.connect()
    wait_for(lambda: pair.carried() - counted > 60000, 20)
    assert pair.at_the_host() - seen < 100


def test_a_port_without_a_rule_is_refused(pair: Pair) -> None:
    assert "unable to connect" in pair.connect(REFUSED, "--connect-timeout 1000")


def test_a_ping_stays_in_software_and_is_explained(pair: Pair) -> None:
    seen = pair.at_the_host()
    pair.operator.ping("sg0", pair.ports[1])
    assert pair.at_the_host() - seen >= 5
    said = pair.operator.sh(pair.operator.nodes[0].node, f"{ASAP2} host explain")
    assert "ICMP is never in hardware" in said


def test_a_rule_that_is_deleted_ends_the_connections_that_hardware_carries(pair: Pair) -> None:
    bundle = pair.operator.cloud.lab.layout.bundle("sg0")
    command = ["iperf3", "-c", address(pair.ports[1]), "-p", str(ALLOWED), "-t", "300", "-b", "10M"]
    node = pair.operator.nodes[1].node
    find = f"conntrack -L -p tcp --dport {ALLOWED} 2>/dev/null"
    with Program(bundle, command) as running:
        running.read_until(r"\n\[ +\d+\] +0\.00-1\.")
        wait_for(lambda: "HW_OFFLOAD" in pair.operator.sh(node, find))
        before = pair.carried()
        wait_for(lambda: pair.carried() > before + 100)
        pair.operator.call("network", "DELETE", f"/v2.0/security-group-rules/{pair.rule}")
        running.read_until(r" 0\.00 bits/sec .*\n(.*\n)?.* 0\.00 bits/sec")  # two seconds without a packet
