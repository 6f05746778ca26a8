# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a cloud: the reason reaches the user, and nothing is left of it."""

from __future__ import annotations

import os
import signal

import pytest

from asap2.lab.background import Program
from asap2.openstack.plan import CONTROLLER
from asap2.openstack.settings import AGENT_DOWN_SECONDS
from tests.e2e.openstack.operator import Operator, RefusedError, address, wait_for


def test_no_host_has_enough_vfs(operator: Operator) -> None:
    ports = [operator.port() for _ in operator.nodes[0].vlan_vfs]
    server = operator.boot("vm0", [*ports, operator.port()], node=None)
    assert "No valid host was found" in operator.fault(server)
    operator.delete(server)
    operator.server("vm1", ports)


def test_the_host_that_was_asked_for_has_not_enough_vfs(operator: Operator) -> None:
    server = operator.boot("vm0", [operator.port() for _ in range(len(operator.nodes[0].vlan_vfs) + 1)])
    assert "Claim pci failed" in operator.fault(server)


def test_a_port_without_the_capability_is_not_bound(operator: Operator) -> None:
    port = operator.port(profile={})
    server = operator.boot("vm0", [port])
    assert f"Binding failed for port {port['id']}" in operator.fault(server)


def test_a_port_that_is_not_direct_is_refused(operator: Operator) -> None:
    port = operator.port(vnic="normal", profile={})
    server = operator.boot("vm0", [port])
    assert "create its ports with --vnic-type direct" in operator.fault(server)


def test_a_wrong_physical_network(operator: Operator) -> None:
    with pytest.raises(RefusedError, match="physical_network 'other' unknown"):
        operator.network("wrong", "10.59.0", "vlan", "other", 58)


def test_a_physical_network_that_no_vf_belongs_to(operator: Operator) -> None:
    """neutron knows it, and no host's ``[pci] device_spec`` does."""
    file = operator.cloud.directory / "etc" / CONTROLLER / "ml2_conf.ini"
    text = file.read_text()
    file.write_text(text.replace("network_vlan_ranges = ", "network_vlan_ranges = spare:200:299,"))
    operator.restart_neutron()
    try:
        operator.network("elsewhere", "10.59.0", "vlan", "spare", 200)
        server = operator.boot("vm0", [operator.port("elsewhere")], node=None)
        assert "No valid host was found" in operator.fault(server)
    finally:
        operator.clear()
        operator.forget_network("elsewhere")
        file.write_text(text)
        operator.restart_neutron()


def test_an_agent_that_is_down(operator: Operator) -> None:
    port = operator.port()
    with operator.without("neutron-openvswitch-agent"):
        wait_for(lambda: not operator.agent_is_alive(), AGENT_DOWN_SECONDS * 3)
        server = operator.boot("vm0", [port])
        assert f"Binding failed for port {port['id']}" in operator.fault(server)
    wait_for(operator.agent_is_alive)
    operator.delete(server)
    operator.server("vm1", [operator.port()])


def test_a_spawn_that_fails_gives_everything_back(operator: Operator) -> None:
    port = operator.port()
    agent = operator.cloud.processes.pid(operator.service("neutron-openvswitch-agent"))
    assert agent
    os.kill(agent, signal.SIGSTOP)
    try:
        server = operator.boot("vm0", [port])
        wait_for(lambda: operator.representor(0, port))
        assert "Failed to allocate the network" in operator.fault(server)
        node = operator.traces()[operator.nodes[0].host]
        assert node == operator.untouched[operator.nodes[0].host]
    finally:
        os.kill(agent, signal.SIGCONT)
        with operator.without("neutron-openvswitch-agent"):
            pass  # RabbitMQ has given it up meanwhile: it would wait for answers that do not come
    wait_for(operator.agent_is_alive)


def test_compute_restarted_with_guests_running(operator: Operator) -> None:
    ports = [operator.port(), operator.port()]
    servers = [operator.server(f"vm{number}", [port], number) for number, port in enumerate(ports)]
    before = operator.show_port(ports[0])["binding:profile"]["pci_slot"]
    bundle = operator.cloud.lab.layout.bundle("vm1")
    with Program(bundle, ["ping", "-i", "0.1", address(ports[0])]) as ping:
        ping.read_until("icmp_seq=3 ")
        with operator.without("nova-compute"):
            ping.read_until_quiet(0)
        wait_for(operator.compute_is_up)
        wait_for(lambda: "guests of" in log_since_restart(operator))
        ping.interrupt()
    assert " 0% packet loss" in ping.output
    assert operator.show(servers[0])["status"] == "ACTIVE"
    assert operator.show_port(ports[0])["binding:profile"]["pci_slot"] == before
    operator.action(servers[0], reboot={"type": "HARD"})
    operator.wait_for_status(servers[0], "ACTIVE")
    operator.ping("vm1", ports[0])


def log_since_restart(operator: Operator) -> str:
    """What nova-compute of the first node wrote since its last start."""
    log = operator.cloud.processes.log(operator.service("nova-compute")).with_suffix(".log").read_text()
    return log.rsplit("Starting compute node", 1)[1]


def test_delete_during_boot(operator: Operator) -> None:
    for _ in range(3):
        server = operator.boot("vm0", [operator.port()])
        assert operator.show(server)["status"] == "BUILD"
        operator.delete(server)
        wait_for(lambda: operator.traces()[operator.nodes[0].host] == operator.untouched[operator.nodes[0].host])
        operator.clear()
