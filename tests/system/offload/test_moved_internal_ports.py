# SPDX-License-Identifier: Apache-2.0
"""Internal ports of Open vSwitch in other network namespaces, as neutron's DHCP and L3 agents have them.

What is expected is what Linux 6.1's own openvswitch module did with the same commands (as user-mode-linux).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from tests.system.offload.labs import IPV4, Bench, until
from tests.system.patience import PATIENCE

TOPOLOGY = """
[[node]]
name = "hv1"
[[node.nic]]
vfs = 2
mode = "switchdev"

[[guest]]
name = "vm1"
node = "hv1"
vf = 0
mac = "fa:16:3e:00:00:01"
address = "10.57.0.1/24"
"""
GUEST, TAP = "10.57.0.1", "10.57.0.50"
ADD = """ovs-vsctl add-port br0 tap1 -- set interface tap1 type=internal 'mac="fa:16:3e:00:00:50"'"""


@pytest.fixture(scope="module")
def node() -> Iterator[Bench]:
    """A bridge of a guest, whose switch offloads, and the namespace qdhcp."""
    with Bench.running(TOPOLOGY) as bench:
        bench.switch("hv1")
        bench.ok("hv1", "ovs-vsctl add-br br0 -- add-port br0 eth0 && ip link set eth0 up && ip netns add qdhcp")
        yield bench


@pytest.fixture
def lab(node: Bench) -> Iterator[Bench]:
    """The internal port tap1 is in that namespace."""
    node.ok("hv1", ADD)
    _move(node)
    yield node
    node.ok("hv1", "ovs-vsctl --if-exists del-port tap1 && ip netns del qdhcp && ip netns add qdhcp")


def _inside(lab: Bench, command: str) -> str:
    return lab.ok("hv1", f"ip netns exec qdhcp {command}")


def _move(lab: Bench) -> None:
    """It goes there. (A flow that is in TC by now sends to nothing then: act_mirred forgets a device that leaves.)"""
    lab.ok("hv1", "ovs-appctl revalidator/purge && ip link set tap1 netns qdhcp")
    _inside(lab, f"sh -c 'ip addr add {TAP}/24 dev tap1 && ip link set tap1 up'")


def _home(lab: Bench) -> None:
    lab.ok("hv1", "ip -n qdhcp link set tap1 netns $$; ip link show tap1")  # "ip" alone would be the shell's process


def _answers(lab: Bench, count: int = 3) -> None:
    """Both sides answer each other."""
    assert f"{count} received" in _inside(lab, f"ping -n -c {count} -W 5 -i 0.05 {GUEST}")
    lab.ping("vm1", TAP, count, "-i 0.05")


def _ports(lab: Bench) -> dict[str, str]:
    """The datapath's ports, by name."""
    return dict(re.findall(r"port \d+: (\S+)( \(internal\))?", lab.ok("hv1", "ovs-appctl dpctl/show")))


def _gone(lab: Bench) -> None:
    """It has gone with its namespace. If the switch has looked for it since, another one is at home."""
    until(lambda: "tap1" not in _ports(lab) or "tap1" in lab.ok("hv1", "ip -br link"))
    assert "tap1" not in _inside(lab, "ip -br link")


def _interface(lab: Bench, column: str, name: str = "tap1") -> str:
    return lab.ok("hv1", f"ovs-vsctl get interface {name} {column}").strip()


def test_it_works_there_and_the_switch_keeps_it(lab: Bench) -> None:
    _answers(lab)
    assert set(_ports(lab)) == {"ovs-system", "br0", "eth0", "tap1"}
    assert _interface(lab, "error") == "[]"
    until(lambda: _interface(lab, "ifindex") == "0")  # of a device that is elsewhere
    assert _interface(lab, "link_state") == "up"
    assert _interface(lab, "status:driver_name") == "openvswitch"
    assert "tap1" not in lab.ok("hv1", "ip -br link")
    assert "openvswitch" in _inside(lab, "ip -d link show tap1")
    assert "@" not in _inside(lab, "ip -d -o link show tap1")
    assert "driver: openvswitch" in _inside(lab, "ethtool -i tap1")
    refused = lab.run("hv1", "ip netns exec qdhcp ip link del tap1")
    assert "Operation not supported" in refused.stderr


def test_its_flows_count_every_packet_and_its_port_too(lab: Bench) -> None:
    _answers(lab)
    flows = [("hv1", "in_port(tap1)", IPV4, "actions:eth0"), ("hv1", "in_port(eth0)", IPV4, "actions:tap1")]
    counted = _inside(lab, "cat /proc/net/dev").split("tap1:")[1].split()
    lab.counted("vm1", TAP, 20, *flows, kind="ovs")
    now = _inside(lab, "cat /proc/net/dev").split("tap1:")[1].split()
    assert all(int(now[i]) >= int(counted[i]) + 20 for i in (1, 9))  # ARP and IPv6's own are among them
    shown = lab.ok("hv1", "ovs-appctl dpctl/show -s").split(": tap1 (internal)")[1]
    told = re.findall(r"[RT]X packets:(\d+)", shown)[:2]
    then = _inside(lab, "cat /proc/net/dev").split("tap1:")[1].split()
    assert all(int(now[i]) <= int(n) <= int(then[i]) for i, n in zip((1, 9), told, strict=True))


def test_tcp_crosses_both_ways(lab: Bench) -> None:
    with lab.start("hv1", "ip", "netns", "exec", "qdhcp", "timeout", "120", "iperf3", "-s", "-1") as listening:
        until(lambda: ":5201" in _inside(lab, "ss -ltn"))
        lab.ok("vm1", f"timeout 60 iperf3 -c {TAP} -n 30M")
        listening.communicate()
    with lab.start("vm1", "timeout", "120", "iperf3", "-s", "-1") as listening:
        until(lambda: ":5201" in lab.ok("vm1", "ss -ltn"))
        _inside(lab, f"timeout 60 iperf3 -c {GUEST} -n 30M")
        listening.communicate()


def test_two_ports_in_two_namespaces_and_the_host_reach_each_other(lab: Bench) -> None:
    lab.ok("hv1", "ovs-vsctl add-port br0 tap2 -- set interface tap2 type=internal && ip netns add qrouter")
    try:
        lab.ok("hv1", "ip link set tap2 netns qrouter && ip addr add 10.57.0.100/24 dev br0 && ip link set br0 up")
        lab.ok("hv1", "ip -n qrouter addr add 10.57.0.51/24 dev tap2 && ip -n qrouter link set tap2 up")
        for where in ("", "ip netns exec qrouter "):
            lab.ok("hv1", f"{where}ping -n -c 5 -i 0.05 -s 3000 {TAP}")
        assert "5 received" in _inside(lab, "ping -n -c 5 -i 0.05 10.57.0.51")
        assert "5 received" in _inside(lab, "ping -n -c 5 -i 0.05 10.57.0.100")
    finally:
        lab.ok("hv1", "ovs-vsctl del-port tap2; ip netns del qrouter; ip addr flush dev br0")


def test_a_frame_for_another_is_seen_there_and_not_taken(lab: Bench) -> None:
    """The kernel tells by its address whom a frame is for, as where nothing is redirected."""
    lab.ok("hv1", "ovs-ofctl add-flow br0 priority=9,in_port=eth0,actions=output:tap1")
    try:
        before = _inside(lab, "grep ^Ip: /proc/net/snmp").split()
        lab.ok("vm1", f"ip neigh replace {TAP} lladdr 02:00:00:00:00:99 dev eth0")
        assert "0 received" in lab.run("vm1", f"ping -n -c 3 -i 0.05 -W 0.5 {TAP}").stdout
        assert _inside(lab, "grep ^Ip: /proc/net/snmp").split() == before
    finally:
        lab.ok("vm1", f"ip neigh del {TAP} dev eth0")
        lab.ok("hv1", "ovs-ofctl del-flows br0 in_port=eth0")


def test_it_may_be_renamed_there(lab: Bench) -> None:
    """The switch looks for its interface by name, and makes it anew when it is not found, so it has to look away."""
    lab.ok("hv1", "systemctl stop ovs-vswitchd")
    _inside(lab, "sh -c 'ip link set tap1 down; ip link set tap1 name dhcp0; ip link set dhcp0 up'")
    until(lambda: "dhcp0 (internal)" in lab.ok("hv1", "ovs-dpctl show"))
    _inside(lab, "sh -c 'ip link set dhcp0 down; ip link set dhcp0 name tap1; ip link set tap1 up'")
    until(lambda: "tap1 (internal)" in lab.ok("hv1", "ovs-dpctl show"))
    lab.ok("hv1", "systemctl start ovs-vswitchd")
    _answers(lab)


def test_it_may_come_back(lab: Bench) -> None:
    _answers(lab)
    _home(lab)
    until(lambda: _interface(lab, "ifindex") != "0")
    lab.ok("hv1", f"ip addr add {TAP}/24 dev tap1 && ip link set tap1 up")
    lab.ping("hv1", GUEST, 3, "-i 0.05")
    lab.ping("vm1", TAP, 3, "-i 0.05")
    _move(lab)
    _answers(lab)


def test_open_vswitch_may_be_restarted_meanwhile(lab: Bench) -> None:
    _answers(lab)
    lab.ok("hv1", "systemctl reset-failed openvswitch && systemctl restart openvswitch")
    _answers(lab)
    assert _interface(lab, "error") == "[]"


@contextlib.contextmanager
def _daemon_dead(lab: Bench) -> Iterator[None]:
    process = lab.kill_daemon("hv1")
    yield
    until(lambda: lab.daemon("hv1") not in (0, process))


def test_packets_go_on_when_the_daemon_dies(lab: Bench) -> None:
    _answers(lab)
    pinging = lab.start("vm1", "ping", "-n", "-c", "200", "-i", "0.01", "-q", TAP)
    with _daemon_dead(lab):
        pass
    output = pinging.communicate(timeout=PATIENCE)[0]
    assert "200 received" in output
    _answers(lab)


def test_moves_while_the_daemon_is_dead_are_followed(lab: Bench) -> None:
    with _daemon_dead(lab):
        _home(lab)
        lab.ok("hv1", f"ip addr add {TAP}/24 dev tap1 && ip link set tap1 up")
    lab.ping("vm1", TAP, 3, "-i 0.05")
    with _daemon_dead(lab):
        _move(lab)
    _answers(lab)
    with _daemon_dead(lab):
        lab.ok("hv1", "ip netns del qdhcp && ip netns add qdhcp")
    _gone(lab)


def test_it_goes_with_its_namespace(lab: Bench) -> None:
    _answers(lab)
    lab.ok("hv1", "ip netns del qdhcp && ip netns add qdhcp")
    _gone(lab)
    lab.ok("hv1", f"ovs-vsctl del-port tap1; {ADD}")
    _move(lab)
    _answers(lab)


def test_the_switch_may_remove_it_there(lab: Bench) -> None:
    lab.ok("hv1", "ovs-vsctl del-port tap1")
    assert "tap1" not in _inside(lab, "ip -br link")
    assert "tap1" not in _ports(lab)


def test_the_datapaths_own_device_stays(node: Bench) -> None:
    assert "immutable" in node.run("hv1", "ip link set ovs-system netns qdhcp").stderr
    assert "ovs-system" in node.ok("hv1", "ip -br link")


def test_upcalls_go_on_whoever_takes_their_device_down_or_sets_its_mtu(node: Bench) -> None:
    fit = "ip link show ovs-system | grep -q ,UP.*mtu.1500"
    for change in (
        "ip link set ovs-system down",
        "ip link set ovs-system mtu 68",
        "ip link set ovs-system mtu 900 down",
    ):
        node.ok("hv1", f"{change} && timeout 20 sh -c 'until {fit}; do sleep 0.02; done'")
