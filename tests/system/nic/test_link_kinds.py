# SPDX-License-Identifier: Apache-2.0
"""Devices of our own kinds pass packets as the kernel's do: VRFs, and tunnels without Ethernet.

`tests/system/realkernel/link_lines.txt` has what `ip` says of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from tests.system.offload.labs import Bench, until

TOPOLOGY = """
[[node]]
name = "hv1"
openvswitch = false
[[node.nic]]
vfs = 2
"""
PEERS = """
number=0
for peer in ra rb rc; do
    number=$((number + 1))
    ip netns add $peer
    ip link add p$peer type veth peer name eth0 netns $peer
    ip link set p$peer addrgenmode eui64; ip -n $peer link set eth0 addrgenmode eui64
    ip -n $peer link set lo up; ip -n $peer link set eth0 up; ip link set p$peer up
    ip -n $peer addr add 10.5.$number.2/24 dev eth0
    ip -n $peer addr add fd0$number::2/64 dev eth0 nodad
    ip -n $peer route add default via 10.5.$number.1
    ip -n $peer route add default via fd0$number::1
done
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""
VRFS = """
ip link add red type vrf table 10; ip link add blue type vrf table 20
ip link set red up; ip link set blue up
ip link set pra master red; ip link set prb master red; ip link set prc master blue
number=0
for peer in ra rb rc; do
    number=$((number + 1))
    ip addr add 10.5.$number.1/24 dev p$peer
    ip addr add fd0$number::1/64 dev p$peer nodad
done
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """A node with three hosts at veth devices."""
    with Bench.running(TOPOLOGY) as bench:
        bench.ok("hv1", PEERS)
        yield bench


@pytest.fixture(scope="module")
def vrfs(lab: Bench) -> Iterator[Bench]:
    """The first two hosts are at ports of one VRF, the third at another's."""
    lab.ok("hv1", VRFS)
    for device, address in (("red", "10.5.1.2"), ("red", "fd01::2"), ("blue", "10.5.3.2"), ("blue", "fd03::2")):
        until(functools.partial(_answers, lab, f"ping -c1 -W1 -I {device} {address}"))
    yield lab
    lab.run("hv1", "ip link del red; ip link del blue")


def _answers(lab: Bench, command: str) -> bool:
    return lab.run("hv1", command).returncode == 0


@pytest.mark.parametrize("address", ["10.5.1.1", "fd01::1", "10.5.2.2", "fd02::2"])
def test_a_host_at_a_vrf_reaches_the_vrf_and_the_hosts_at_its_other_ports(vrfs: Bench, address: str) -> None:
    until(lambda: _answers(vrfs, f"ip netns exec ra ping -c1 -W1 {address}"))


@pytest.mark.parametrize("address", ["10.5.3.2", "fd03::2"])
def test_vrfs_are_apart(vrfs: Bench, address: str) -> None:
    assert not _answers(vrfs, f"ip netns exec ra ping -c1 -W1 {address}")
    assert not _answers(vrfs, f"ping -c1 -W1 {address}")
    assert not _answers(vrfs, f"ping -c1 -W1 -I red {address}")


ANSWER = """
import socket
listening = socket.create_server(("", 7000))
listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"red")
listening.settimeout(20)
print("ready", flush=True)
connection, peer = listening.accept()
connection.sendall(b"x" * 1000000)
"""
ASK = """
import socket
connection = socket.create_connection(("10.5.1.1", 7000), 20)
print(sum(map(len, iter(lambda: connection.recv(1 << 16), b""))))
"""


def test_a_server_bound_to_a_vrf_is_reached_from_its_ports_alone(vrfs: Bench) -> None:
    server = vrfs.start("hv1", "python3", "-c", ANSWER)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    assert vrfs.run("hv1", "ip netns exec rc python3 -c '" + ASK.replace("20)", "1)") + "'").returncode
    assert vrfs.ok("hv1", f"ip netns exec ra python3 -c '{ASK}'") == "1000000\n"
    server.communicate(timeout=20)
    assert server.returncode == 0


def test_what_is_received_and_sent_is_counted_at_the_vrf(vrfs: Bench) -> None:
    counters = "cat /sys/class/net/red/statistics/{rx,tx}_packets"
    before = [int(number) for number in vrfs.ok("hv1", counters).split()]
    vrfs.ok("hv1", "ping -c3 -i 0.1 -I red 10.5.2.2")
    received, sent = (int(number) for number in vrfs.ok("hv1", counters).split())
    assert (received - before[0], sent - before[1]) >= (3, 3)


def test_a_route_of_the_table_is_used_by_sockets_of_the_vrf_as_soon_as_it_is_there(vrfs: Bench) -> None:
    vrfs.ok("hv1", "ip -n rb addr add 10.77.0.1/32 dev lo; ip route add 10.77.0.0/16 via 10.5.2.2 vrf red")
    until(lambda: _answers(vrfs, "ping -c1 -W1 -I red 10.77.0.1"))
    assert _answers(vrfs, "ip netns exec ra ping -c1 -W1 10.77.0.1")
    vrfs.ok("hv1", "ip route del 10.77.0.0/16 vrf red")
    until(lambda: not _answers(vrfs, "ping -c1 -W1 -I red 10.77.0.1"))


def test_packets_go_on_and_routes_are_followed_when_the_daemon_was_killed(vrfs: Bench) -> None:
    vrfs.kill_daemon("hv1")
    vrfs.ok("hv1", "ping -c1 -W5 -I red 10.5.1.2")
    vrfs.ok("hv1", "ip -n rb addr add 10.78.0.1/32 dev lo; ip route add 10.78.0.0/16 via 10.5.2.2 vrf red")
    until(lambda: _answers(vrfs, "ping -c1 -W1 -I red 10.78.0.1"))
    vrfs.ok("hv1", "ip route del 10.78.0.0/16 vrf red")


def test_nothing_is_left_of_a_vrf_that_has_gone(vrfs: Bench) -> None:
    vrfs.ok("hv1", "ip link del red; ip link del blue")

    def left() -> str:
        return vrfs.ok(
            "hv1", "ip link show type vrf; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all"
        ).strip()

    until(lambda: not any(word in left() for word in ("proto 162", "table 10", "red", "blue")))
    assert "10.5.1.0/24 dev pra proto kernel" in vrfs.ok("hv1", "ip route show")
