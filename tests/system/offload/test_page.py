# SPDX-License-Identifier: Apache-2.0
"""The page's procedure, and its proof: only the first packet of a flow reaches the host."""

from __future__ import annotations

import re
import signal

from tests.system.offload.conftest import PCI, PF
from tests.system.offload.labs import IPV4, LASTING, Bench, packets_of, until
from tests.system.patience import PATIENCE

PINGS = 50


def test_what_the_page_shows_is_there(lab: Bench) -> None:
    assert "Mellanox Technologies MT27800 Family [ConnectX-5]" in lab.ok("hv1", "lspci | grep Mellanox")
    assert f"{PF} -> ../../devices/pci0000:00/" in lab.ok("hv1", "ls -l /sys/class/net/")
    shown = lab.ok("hv1", f"devlink dev eswitch show pci/{PCI}")
    assert shown.startswith(f"pci/{PCI}: mode switchdev")
    assert "hw-tc-offload: on" in lab.ok("hv1", f"ethtool -k {PF}")
    link = lab.ok("hv1", f"ip link show {PF}")
    assert re.search(r"vf 3 +link/ether 00:00:00:00:00:00 brd ff:ff:ff:ff:ff:ff, spoof checking off, link-state", link)
    assert f": {PF}: <" in link
    ports = lab.ok("hv1", "ovs-dpctl show")
    assert "system@ovs-system" in ports
    assert re.search(rf"port \d+: {PF}\n", ports)
    assert re.search(r"port \d+: eth3\n", ports)


def counted(lab: Bench, node: str, name: str) -> dict[str, int]:
    """What ``ethtool -S`` counts."""
    lines = lab.ok(node, f"ethtool -S {name}").splitlines()[1:]
    return {key.strip(): int(value) for key, _, value in (line.partition(":") for line in lines)}


def offloaded_both_ways(bench: Bench) -> None:
    """Wait for the guests' flows of IPv4 in both eSwitches."""
    for node in ("hv1", "hv2"):
        for port in ("eth3", PF):
            bench.flow(node, f"in_port({port})", IPV4)


def test_only_the_first_packet_of_a_flow_reaches_the_representor(idle: Bench) -> None:
    idle.ping("vm1", "10.57.0.2")  # the guests know each other's address, so that what follows is one flow each way
    for node in ("hv1", "hv2"):
        idle.forget(node)
    captures = {node: idle.start(node, "tcpdump", "-nnn", "-l", "-i", "eth3", "icmp") for node in ("hv1", "hv2")}
    for capture in captures.values():
        assert capture.stderr is not None
        while "listening on" not in capture.stderr.readline():
            pass
    before = {(node, name): counted(idle, node, name) for node in captures for name in ("eth3", PF)}
    idle.ping("vm1", "10.57.0.2", 1)
    offloaded_both_ways(idle)
    idle.ping("vm1", "10.57.0.2", PINGS - 1)
    for node, capture in captures.items():
        capture.send_signal(signal.SIGINT)
        seen, _ = capture.communicate(timeout=PATIENCE)
        requests = [line for line in seen.splitlines() if "echo request" in line]
        replies = [line for line in seen.splitlines() if "echo reply" in line]
        assert len(requests) == 1, f"{node}:\n{seen}"
        assert len(replies) == 1, f"{node}:\n{seen}"
        assert "seq 1," in requests[0]
        assert "seq 1," in replies[0]
    for (node, name), was in before.items():
        passed = {key: value - was[key] for key, value in counted(idle, node, name).items()}
        carried = ("vport_rx_packets", "vport_tx_packets") if name == "eth3" else ("rx_packets_phy", "tx_packets_phy")
        assert min(passed[key] for key in carried) >= PINGS
        assert max(passed["rx_packets"], passed["tx_packets"]) < PINGS / 2
    for node in ("hv1", "hv2"):
        out = idle.flow(node, "in_port(eth3)", IPV4)
        into = idle.flow(node, f"in_port({PF})", "vlan(vid=57,pcp=0)", IPV4)
        assert f"offloaded:yes, dp:tc, actions:push_vlan(vid=57,pcp=0),{PF}" in out
        assert "offloaded:yes, dp:tc, actions:pop_vlan,eth3" in into
        assert packets_of(out) == PINGS - 1
        assert packets_of(into) == PINGS - 1
    assert "in_hw in_hw_count 1" in idle.ok("hv1", "tc -s filter show dev eth3 ingress")


def test_flows_are_gone_after_max_idle(idle: Bench) -> None:
    idle.ok("hv1", "ovs-vsctl set Open_vSwitch . other_config:max-idle=500")
    try:
        idle.ping("vm1", "10.57.0.2")
        until(lambda: not idle.flows("hv1", IPV4, kind="all"), why="flows did not age out")
        assert "10.57.0." not in idle.ok("hv1", "tc filter show dev eth3 ingress protocol ip")
    finally:
        idle.ok("hv1", f"ovs-vsctl set Open_vSwitch . {LASTING}")


def test_a_used_flow_stays(idle: Bench) -> None:
    idle.ok("hv1", "ovs-vsctl set Open_vSwitch . other_config:max-idle=2000")
    try:
        idle.ping("vm1", "10.57.0.2", 50, "-i 0.05")
        assert packets_of(idle.flow("hv1", "in_port(eth3)", IPV4)) == 49
    finally:
        idle.ok("hv1", f"ovs-vsctl set Open_vSwitch . {LASTING}")


def test_the_first_ping_of_a_flow_is_quick(idle: Bench) -> None:
    idle.ping("vm1", "10.57.0.2")
    for node in ("hv1", "hv2"):
        idle.forget(node)
    first = re.search(r"icmp_seq=1 .*time=([\d.]+) ms", idle.ping("vm1", "10.57.0.2"))
    assert first  # how quick is measured in bench/, not here


def test_tcp_flows_through_hardware(idle: Bench) -> None:
    server = idle.start("vm2", "iperf3", "-s", "-1")
    until(lambda: ":5201" in idle.ok("vm2", "ss -ltn"))
    idle.ok("vm1", "iperf3 -c 10.57.0.2 -n 20M")
    server.communicate(timeout=PATIENCE)
    flow = idle.flow("hv1", "in_port(eth3)", IPV4)
    assert "offloaded:yes" in flow
    octets = re.search(r"bytes:(\d+)", flow)
    assert octets
    assert int(octets[1]) > 10_000_000  # what was sent before the rule was there went by the host


def test_without_hw_offload_everything_runs_in_the_software_datapath(idle: Bench) -> None:
    for node in ("hv1", "hv2"):
        idle.switch(node, offload=False)
    try:
        idle.ping("vm1", "10.57.0.2")
        (flow,) = idle.counted("vm1", "10.57.0.2", 20, ("hv1", "in_port(eth3)", IPV4), kind="ovs")
        assert f"dp:ovs, actions:push_vlan(vid=57,pcp=0),{PF}" in flow
        assert not idle.flows("hv1")
        assert "in_hw" not in idle.ok("hv1", "tc filter show dev eth3 ingress").replace("not_in_hw", "")
    finally:
        for node in ("hv1", "hv2"):
            idle.switch(node)
    idle.ping("vm1", "10.57.0.2")
    assert idle.flow("hv1", "in_port(eth3)", IPV4)
