# SPDX-License-Identifier: Apache-2.0
"""Central, controllers and chassis that go away: what is offloaded goes on, and what cannot go on is told."""

from __future__ import annotations

import pytest

from asap2.ovn.network import VM3, VM4
from asap2.ovn.programs import CTL
from tests.ovn.streams import pinging
from tests.system.offload.labs import Bench, until

SYNC = "ovn-nbctl --timeout=120 --wait=hv sync"
RUN = "/run/ovn"


def test_offloaded_flows_lose_nothing_while_a_controller_is_restarted(bench: Bench) -> None:
    with pinging(bench, VM3.guest, VM4.address) as stream:
        bench.ok("hv1", f"{CTL} restart_controller")
        bench.ok("hv1", SYNC)
    assert stream.sent > 100
    assert stream.received == stream.sent


def test_offloaded_flows_lose_nothing_while_a_controller_is_dead(bench: Bench) -> None:
    with pinging(bench, VM3.guest, VM4.address) as stream:
        bench.ok("hv1", f"kill -9 $(cat {RUN}/ovn-controller.pid)")
        bench.ok("hv1", f"{CTL} start_controller")
        bench.ok("hv1", SYNC)
    assert stream.sent > 100
    assert stream.received == stream.sent


def test_without_the_central_traffic_goes_on_and_afterwards_changes_do(bench: Bench) -> None:
    bench.ping(VM3.guest, VM4.address)
    try:
        with pinging(bench, VM3.guest, VM4.address) as stream:
            bench.ok("hv1", f"kill -9 $(cat {RUN}/ovn-northd.pid {RUN}/ovnnb_db.pid {RUN}/ovnsb_db.pid)")
            said = bench.ok("hv2", "asap2 host explain eth1")
    finally:
        bench.ok("hv1", f"{CTL} start_northd")
    assert stream.received == stream.sent
    drop = "ovn-nbctl --timeout=120 --wait=hv acl-{} sw1 to-lport 1500 'outport == \"vm4\" && icmp4'"
    bench.ok("hv1", drop.format("add") + " drop")
    assert bench.run(VM3.guest, f"ping -q -c 1 -W 1 {VM4.address}").returncode == 1
    bench.ok("hv1", drop.format("del"))
    bench.ping(VM3.guest, VM4.address)
    assert "OVN's logical flows are not known, because its database does not answer" in said
    assert "Connection refused" in said


def test_a_chassis_that_goes_away_takes_its_tunnel_with_it_and_comes_back(bench: Bench) -> None:
    bench.ping(VM3.guest, VM4.address)
    assert bench.flows("hv1", "set(tunnel(")
    bench.ok("hv2", f"{CTL} stop_controller")
    until(lambda: not bench.flows("hv1", "set(tunnel("), why="flows into the tunnel are left")
    assert "ovn-hv2" not in bench.ok("hv1", "ovs-vsctl show")
    assert bench.run(VM3.guest, f"ping -q -c 1 -W 1 {VM4.address}").returncode == 1
    bench.ok("hv2", f"{CTL} start_controller")
    bench.ok("hv1", SYNC)
    # It installs its rules some seconds after it has started, and reports to be up to date before.
    again = f"ping -q -c 1 -W 1 {VM4.address}"
    until(lambda: bench.run(VM3.guest, again).returncode == 0, why="the chassis did not come back")


def test_a_deleted_integration_bridge_comes_back_and_leaves_nothing_behind(bench: Bench) -> None:
    """ovn-controller makes it again; who plugs guests in gives it their ports again."""
    bench.ping(VM3.guest, VM4.address)
    plugged = {
        port: bench.ok("hv1", f"ovs-vsctl get Interface {port} external_ids:iface-id").strip().strip('"')
        for port in bench.ok("hv1", "ovs-vsctl list-ports br-int").split()
        if not port.startswith(("ovn-", "patch-"))
    }
    assert plugged
    bench.ok("hv1", "ovs-vsctl del-br br-int")
    until(lambda: bench.run("hv1", "ovs-vsctl br-exists br-int").returncode == 0, why="br-int did not come back")
    for port in plugged:
        assert "in_hw" not in bench.ok("hv1", f"tc -s filter show dev {port} ingress")
    for port, name in plugged.items():
        add = f"ovs-vsctl --may-exist add-port br-int {port} -- set Interface {port} external_ids:iface-id={name}"
        bench.ok("hv1", add)
    bench.ok("hv1", SYNC)
    again = f"ping -q -c 1 -W 1 {VM4.address}"
    until(lambda: bench.run(VM3.guest, again).returncode == 0, why="the guests are not plugged in again")
    bench.ping(VM3.guest, VM4.address)
    assert bench.flows("hv1", "set(tunnel(")


@pytest.mark.parametrize(("mtu", "verdict"), [(1500, "fail"), (1600, "ok")])
def test_an_mtu_without_room_for_the_tunnels_is_told(bench: Bench, mtu: int, verdict: str) -> None:
    bench.ping(VM3.guest, VM4.address)  # the tunnel's device is there
    try:
        bench.ok("hv1", f"ip link set enp3s0f0 mtu {mtu}")
        found = bench.run("hv1", "asap2 host check").stdout
    finally:
        bench.ok("hv1", "ip link set enp3s0f0 mtu 1600")
    (line,) = [line.split() for line in found.splitlines() if line.split()[1:2] == ["mtu"]]
    assert line[0] == verdict
