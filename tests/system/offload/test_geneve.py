# SPDX-License-Identifier: Apache-2.0
"""Geneve and GRE between two hypervisors, by tunnel devices that the kernel may lack: in hardware, software, mixed."""

from __future__ import annotations

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import IPV4, Bench, until
from tests.system.offload.overlays import NODES, join_uplinks, offloading, tcp_crosses

DEVICE = "genev_sys_6081"


@pytest.fixture(scope="module")
def joined(empty: Bench) -> Bench:
    """The tunnel's ends are the uplinks' addresses."""
    join_uplinks(empty, kind="geneve")
    return empty


@pytest.fixture
def overlay(joined: Bench) -> Bench:
    """Both ends offload."""
    return offloading(joined)


OVN = "{class=0x102,type=0x80,len=4}->tun_metadata0"


def test_ovns_option_is_set_and_matched_in_hardware(overlay: Bench) -> None:
    """16 bits of a logical ingress port, 16 bits of an egress port."""
    ports = {"hv1": "0x00020003", "hv2": "0x00040005"}
    try:
        for node, peer in (("hv1", "hv2"), ("hv2", "hv1")):
            overlay.ok(node, f"ovs-ofctl add-tlv-map br-int '{OVN}'")
            send = f"priority=9,in_port=eth3,actions=set_field:{ports[node]}->tun_metadata0,output:vx0"
            overlay.program(node, send, f"priority=9,in_port=vx0,tun_metadata0={ports[peer]}/0x7fffffff,actions=eth3")
        overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
        for node, peer in (("hv1", "hv2"), ("hv2", "hv1")):
            sent = f"geneve({{class=0x102,type=0x80,len=4,{int(ports[node], 16):#x}}})"
            assert "offloaded:yes" in overlay.flow(node, "in_port(eth3)", IPV4, sent)
            came = f"geneve({{class=0x102,type=0x80,len=4,{int(ports[peer], 16):#x}/0x7fffffff}})"
            assert "offloaded:yes" in overlay.flow(node, f"in_port({DEVICE})", IPV4, came)
        overlay.counted("vm1", "10.58.0.2", 20, ("hv1", f"in_port({DEVICE})", IPV4))
        shown = overlay.ok("hv1", f"tc -s filter show dev {DEVICE} ingress")
        assert "geneve_opts 0102:80:00040005/ffff:ff:7fffffff" in shown
    finally:
        for node in NODES:
            overlay.program(node, "priority=0,actions=normal")


def test_both_ways_are_in_hardware(overlay: Bench) -> None:
    overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    for node in ("hv1", "hv2"):
        assert "offloaded:yes" in overlay.flow(node, "in_port(eth3)", IPV4, "set(tunnel(tun_id=0x4d")
        assert "offloaded:yes" in overlay.flow(node, f"in_port({DEVICE})", IPV4)
    overlay.counted("vm1", "10.58.0.2", 20, ("hv1", f"in_port({DEVICE})", IPV4))
    assert "in_hw in_hw_count 1" in overlay.ok("hv1", f"tc -s filter show dev {DEVICE} ingress")


@pytest.mark.parametrize(
    ("kind", "device", "underlay", "options"),
    [
        ("geneve", DEVICE, "fd01::{}", "options:key=77"),
        ("gre", "gre_sys", "172.16.0.{}", "options:key=77"),
        ("gre", "gre_sys", "172.16.0.{}", ""),
        ("ip6gre", "ip6gre_sys", "fd01::{}", "options:key=77 options:packet_type=legacy_l2"),
    ],
)
def test_other_tunnels_are_in_hardware(overlay: Bench, kind: str, device: str, underlay: str, options: str) -> None:
    try:
        for node, number in NODES.items():
            overlay.ok(node, f"ip addr replace fd01::{number}/64 dev {PF} nodad")
            there = f"options:remote_ip={underlay.format(3 - number)} {options}"
            overlay.ok(node, f"ovs-vsctl add-port br-int tn0 -- set interface tn0 type={kind} {there}")
            overlay.program(
                node, "priority=9,in_port=eth3,actions=output:tn0", "priority=9,in_port=tn0,actions=output:eth3"
            )
        overlay.ping("vm1", "10.58.0.2", 3, "-i 0.2")
        for node in NODES:
            assert "offloaded:yes" in overlay.flow(node, "in_port(eth3)", IPV4, "set(tunnel(")
            assert "offloaded:yes" in overlay.flow(node, f"in_port({device})", IPV4)
    finally:
        for node in NODES:
            overlay.ok(node, "ovs-vsctl --if-exists del-port br-int tn0")
            overlay.program(node, "priority=0,actions=normal")


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, False)])
def test_tcp_crosses_whoever_offloads(joined: Bench, first: bool, second: bool) -> None:
    tcp_crosses(offloading(joined, first, second))


LISTENER = """exec python3 -u -c '
import os, socket
links = [socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) for _ in range(5)]
for link in links: link.bind((0, 1))
by = [lambda s: s.recv(9000), lambda s: s.recvfrom(9000)[0], lambda s: s.recvmsg(9000)[0],
      lambda s: os.read(s.fileno(), 9000), lambda s: (s.recv(9000, socket.MSG_PEEK), s.recv(9000))[0]]
print("ready")
for link, receive in zip(links, by):
    kinds = []
    while b"t-end" not in (message := receive(link)):
        kinds.append(message[4])
    print(len(kinds) > 0, 1 in kinds)
'"""


def test_who_listens_to_links_hears_nothing_of_far_ends(empty: Bench) -> None:
    with empty.start("hv1", "sh", "-c", LISTENER) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        empty.ok("hv1", "ip link add tun0 type geneve id 5 remote 172.30.0.2 dstport 6082; ip link del tun0")
        empty.ok("hv1", "ip link add name t-end type bridge; ip link del t-end")
        assert listener.communicate()[0] == "True False\n" * 5


def test_devices_are_made_in_other_network_namespaces_of_a_node(empty: Bench) -> None:
    """Their packets take the routes there; a device that comes later, with nobody inside, is listened to. A program
    there sees a sysfs that it has mounted itself, and finds the files of a bond in it."""
    inner = "ip netns exec inner "
    commands = (
        "ip netns add inner",
        "ip link add tun0 type geneve id 5 remote 172.30.0.2 dstport 6082",
        inner + "ip link add tun0 type geneve id 5 remote 172.30.0.1 dstport 6082",
        inner + "ip link add tun1 type gretap key 7 remote 172.30.0.1 local 172.30.0.2",
        "ip link add tun1 type gretap key 7 remote 172.30.0.2 local 172.30.0.1",
        "ip link add under type veth peer name under netns inner",
        *(
            f"ip {where} {line}"
            for where, number in (("", 1), ("-n inner", 2))
            for line in (
                f"addr add 172.30.0.{number}/24 dev under",
                "link set under up",
                *(f"addr add 10.90.{at}.{number}/24 dev tun{at}" for at in (0, 1)),
                *(f"link set tun{at} up" for at in (0, 1)),
            )
        ),
        *(f"ping -q -c 3 -i 0.1 -w 20 10.90.{at}.2" for at in (0, 1)),
        *(f"test $(cat /sys/class/net/tun{at}/statistics/rx_packets) -ge 3" for at in (0, 1)),
        inner + "ip -d link show tun0 | grep 'geneve id 5 remote 172.30.0.1 '",
        inner + "ip link add bond0 type bond",
        inner + "sh -c 'echo balance-xor > /sys/class/net/bond0/bonding/mode'",
        inner + 'sh -c \'test "$(cat /sys/class/net/bond0/bonding/mode)" = "balance-xor 2"\'',
        inner + "ip -d link show bond0 | grep 'mode balance-xor'",
    )
    try:
        for command in commands:
            empty.ok("hv1", command)
    finally:
        empty.run("hv1", "ip link del tun0; ip link del tun1; ip link del under; ip netns del inner")
    until(lambda: not list((empty.root / "nodes/hv1/bpf").glob("tunnels-*")), why="programs of it are left")
