# SPDX-License-Identifier: Apache-2.0
"""Devices of our own kinds pass packets as the kernel's do: VRFs, tunnels without Ethernet, and bonds.

`tests/wording/link_lines.txt` has what `ip` says of them.
"""

from __future__ import annotations

import functools
import random
import struct
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
    assert not _answers(vrfs, f"ip netns exec ra ping -c1 -W0.3 {address}")
    assert not _answers(vrfs, f"ping -c1 -W0.3 {address}")
    assert not _answers(vrfs, f"ping -c1 -W0.3 -I red {address}")


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

    shown = "ip link show type vrf; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all"
    marks = "proto 162", "table 10", "red", "blue"
    until(lambda: not any(mark in vrfs.ok("hv1", shown) for mark in marks))
    assert "10.5.1.0/24 dev pra proto kernel" in vrfs.ok("hv1", "ip route show")


TUNNELS = """
ip addr add 10.5.1.1/24 dev pra
ip link add over4 type ipip local 10.5.1.1 remote 10.5.1.2; ip link add over6 type sit local 10.5.1.1 remote 10.5.1.2
ip addr add 10.9.0.1/30 dev over4; ip addr add fd09::1/64 dev over6 nodad; ip link set over4 up; ip link set over6 up
ip netns exec ra ip link add over4 type ipip local 10.5.1.2 remote 10.5.1.1
ip netns exec ra ip link add over6 type sit local 10.5.1.2 remote 10.5.1.1
ip -n ra addr add 10.9.0.2/30 dev over4; ip -n ra addr add fd09::2/64 dev over6 nodad
ip -n ra link set over4 up; ip -n ra link set over6 up
"""


@pytest.fixture(scope="module")
def tunnels(lab: Bench) -> Iterator[Bench]:
    """IPv4 and IPv6 in IPv4 between the node and the first host."""
    lab.run("hv1", "ip link del red; ip addr flush dev pra")
    lab.ok("hv1", TUNNELS)
    yield lab
    lab.run("hv1", "ip link del over4; ip link del over6; ip netns exec ra ip link del over4")


@pytest.mark.parametrize(("address", "protocol"), [("10.9.0.2", 4), ("fd09::2", 41)])
def test_the_first_packet_too_goes_through_a_tunnel_without_a_frame(
    tunnels: Bench, address: str, protocol: int
) -> None:
    """The neighbour's address is asked for first, and the packet waits for it."""
    tunnels.ok("hv1", "ip neigh flush all; ip -n ra neigh flush all")
    tcpdump = (
        "ip",
        "netns",
        "exec",
        "ra",
        "timeout",
        "20",
        "tcpdump",
        "-nvli",
        "eth0",
        "-c",
        "1",
        f"ip proto {protocol}",
    )
    seen = tunnels.start("hv1", *tcpdump)
    until(lambda: _answers(tunnels, "ip -n ra -d link show eth0 | grep -q 'promiscuity 1'"))
    tunnels.ok("hv1", f"ping -c1 -W5 {address}")
    text = seen.communicate(timeout=20)[0]
    assert f"proto {'IPIP (4)' if protocol == 4 else 'IPv6 (41)'}" in text
    assert "ttl 64" in text
    assert "bad cksum" not in text


def test_super_packets_go_through_tunnels_without_a_frame(tunnels: Bench) -> None:
    server = tunnels.start("hv1", "ip", "netns", "exec", "ra", "python3", "-c", RECEIVE)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    for address in ("10.9.0.2", "fd09::2"):
        tunnels.ok("hv1", f"python3 -c '{SEND}' {address}")
    assert server.communicate(timeout=20)[0] == "3000000\n3000000\n"
    sent = int(tunnels.ok("hv1", "cat /sys/class/net/over4/statistics/tx_packets"))
    assert 0 < sent < 1000  # of up to 64 KiB each


RECEIVE = """
import socket
listening = socket.create_server(("", 7001), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
for _ in range(2):
    connection, _peer = listening.accept()
    print(sum(map(len, iter(lambda: connection.recv(1 << 16), b""))), flush=True)
"""
SEND = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 7001), 20)
connection.sendall(b"y" * 3000000)
"""


def test_what_is_inside_gets_the_congestion_that_the_tunnel_met(tunnels: Bench) -> None:
    """RFC 6040: CE of the outer header goes into a header that can have it."""
    tcpdump = ("timeout", "20", "tcpdump", "-nvli", "over4", "-c", "1", "-Q", "in", "icmp and src 10.9.0.2")
    seen = tunnels.start("hv1", *tcpdump)
    until(lambda: _answers(tunnels, "ip -d link show over4 | grep -q 'promiscuity 1'"))
    tunnels.ok("hv1", f"ip netns exec ra python3 -c '{MARKED}'")
    text = seen.communicate(timeout=20)[0]
    assert "tos 0x3,CE" in text
    assert "bad cksum" not in text


MARKED = """
import socket, struct
def ip(proto, tos, src, dst, data):
    ends = map(socket.inet_aton, (src, dst))
    header = struct.pack("!BBHHHBBH4s4s", 0x45, tos, 20 + len(data), 1, 0, 64, proto, 0, *ends)
    total = sum(struct.unpack("!10H", header)); total = (total & 0xffff) + (total >> 16); total += total >> 16
    return header[:10] + struct.pack("!H", ~total & 0xffff) + header[12:] + data
echo = struct.pack("!BBHHH", 8, 0, 0xf7ff - 1, 0, 1)
inner = ip(1, 2, "10.9.0.2", "10.9.0.1", echo)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(ip(4, 3, "10.5.1.2", "10.5.1.1", inner), ("10.5.1.1", 0))
"""


def test_a_tunnel_may_have_the_ends_of_one_in_another_network_namespace(tunnels: Bench) -> None:
    """When it is made, and when it is changed."""
    ends = "over4 type ipip local 10.5.1.2 remote 10.5.1.1"
    tunnels.ok("hv1", f"ip netns exec rb ip link add {ends}")
    tunnels.ok("hv1", f"ip netns exec ra ip link set {ends} ttl 9")
    assert "ttl 9 " in tunnels.ok("hv1", "ip netns exec ra ip -d link show over4")
    tunnels.ok("hv1", f"ip netns exec rb ip link del over4; ip netns exec ra ip link set {ends}")


POLICIES = ("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac")
BOND = """
for port in 0 1; do
    ip link add port$port type veth peer name far$port; ip link set far$port up
done
ip link add bond0 type bond mode balance-xor
ip link set port0 master bond0; ip link set port1 master bond0; ip link set bond0 up
"""
SPREAD = """
import select, socket, sys
ends = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for _ in range(2)]
for number, end in enumerate(ends):
    end.bind((f"far{number}", 3))
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("bond0", 0))
for line in sys.stdin:
    frame = bytes.fromhex(line)
    out.send(frame)
    found = None
    while found is None:
        ready, _, _ = select.select(ends, [], [], 20)
        for end in ready:
            if end.recv(2048)[-8:] == frame[-8:]:
                found = ends.index(end)
        assert ready
    print(found, flush=True)
"""


@pytest.fixture(scope="module")
def bond(lab: Bench) -> Iterator[Bench]:
    """A bond of two ports."""
    lab.ok("hv1", BOND)
    until(lambda: _answers(lab, "ip link show bond0 | grep -q 'state UP'"))
    yield lab
    lab.run("hv1", "ip link del bond0; ip link del port0; ip link del port1")


def _frames() -> list[bytes]:
    """Frames of many kinds, each with an end of its own."""
    chosen = random.Random(13)
    found = []
    for number in range(36):
        macs = bytes((2, 0, 0, 0, 0, chosen.randrange(256), 2, *(chosen.randrange(256) for _ in range(5))))
        end = number.to_bytes(8, "big")
        ports = struct.pack("!HHHH", chosen.randrange(1, 65536), chosen.randrange(1, 65536), 8 + len(end), 0)
        addresses = bytes((10, 0, 0, chosen.randrange(1, 255), 10, 0, 1, chosen.randrange(1, 255)))
        addresses6 = chosen.randbytes(32)
        udp, fragment = _ipv4(17, addresses, ports + end), _ipv4(17, addresses, ports + end, 0x2000)
        echo = _ipv4(1, addresses, struct.pack("!BBHHH", 8, 0, 0, chosen.randrange(65536), 1) + end)
        error = _ipv4(1, addresses, struct.pack("!BBHI", 3, 1, 0, 0) + udp)
        udp6 = struct.pack("!IHBB", 6 << 28, len(ports + end), 17, 64) + addresses6 + ports + end
        inside = _ipv4(4, bytes((10, 9, 9, 1, 10, 9, 9, 2)), udp)
        in_gre = struct.pack("!HHI", 0x2000, 0x6558, 7) + macs + b"\x08\0" + udp
        gre = _ipv4(47, bytes((10, 9, 9, 1, 10, 9, 9, 2)), in_gre)
        arp = bytes(20) + end
        packets = (udp, fragment, echo, error, inside, gre)
        kinds = (*((0x800, packet) for packet in packets), (0x86DD, udp6), (0x806, arp))
        type_, payload = kinds[number % len(kinds)]
        found.append(macs + type_.to_bytes(2, "big") + payload)
    return found


def _ipv4(protocol: int, addresses: bytes, payload: bytes, fragment: int = 0) -> bytes:
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0) + addresses + payload


def _hash(frame: bytes, policy: str) -> int:
    """bond_xmit_hash() (drivers/net/bonding/bond_main.c), on a host whose lowest octet comes first."""
    if policy == "vlan+srcmac":
        return int.from_bytes(frame[6:9], "big") ^ int.from_bytes(frame[9:12], "big")
    found = frame[5] ^ frame[11] ^ int.from_bytes(frame[12:14], "big")
    type_, rest = int.from_bytes(frame[12:14], "big"), frame[14:]
    if policy == "layer2" or type_ not in (0x800, 0x86DD):
        return found
    addresses, protocol, rest = _flow(type_, rest)
    if policy.startswith("encap") and protocol in (4, 47):
        addresses, protocol, rest = _flow(0x800, rest if protocol == 4 else rest[8 + 14 :])
    ports = rest[:4] if protocol == 17 else bytes(4)
    if protocol == 1 and rest[0] == 8:
        ports = rest[:2] + (int.from_bytes(rest[4:6], "big") or 1).to_bytes(2, "little")
    elif protocol == 1 and policy == "layer3+4":
        addresses, _, rest = _flow(0x800, rest[8:])
        ports = rest[:4]
    if policy.endswith("3+4"):
        found = int.from_bytes(ports, "little")
    for at in range(0, len(addresses), 4):
        found ^= int.from_bytes(addresses[at : at + 4], "little")
    found ^= found >> 16
    found ^= found >> 8
    return found >> 1 if policy.endswith("3+4") else found


def _flow(type_: int, packet: bytes) -> tuple[bytes, int, bytes]:
    """Addresses, the protocol of what follows (0: of a fragment), and that."""
    if type_ == 0x86DD:
        return packet[8:40], packet[6], packet[40:]
    return packet[12:20], 0 if packet[6:8] != bytes(2) else packet[9], packet[20:]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_bond_sends_each_packet_by_the_port_that_the_kernel_would_choose(bond: Bench, policy: str) -> None:
    bond.ok("hv1", f"ip link set bond0 type bond xmit_hash_policy {policy}")
    frames = _frames()
    lines = "\n".join(frame.hex() for frame in frames)
    went = [int(line) for line in bond.ok("hv1", f"echo '{lines}' | python3 -c '{SPREAD}'").split()]
    assert went == [_hash(frame, policy) % 2 for frame in frames]
    assert set(went) == {0, 1}
