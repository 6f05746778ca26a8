# SPDX-License-Identifier: Apache-2.0
"""Connections of a node, which Open vSwitch's datapath tracks, as programs see and change them there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asap2.lab
from tests.schemas import answer
from tests.system.offload.labs import Bench, until
from tests.system.patience import PATIENCE

TOPOLOGY = Path(asap2.lab.__file__).parent / "topologies" / "one-node.toml"
SWITCH = """
systemctl start openvswitch
ovs-vsctl add-br br0
for port in eth0 eth1; do ovs-vsctl add-port br0 $port; ip link set $port up; done
ovs-vsctl -- --id=@m create Datapath datapath_version=0 -- set Open_vSwitch . datapaths:system=@m
"""
RULES = """
ovs-ofctl del-flows br0
ovs-ofctl add-flow br0 arp,actions=normal
ovs-ofctl add-flow br0 'ip,ct_state=-trk,actions=ct(table=1,zone=7)'
ovs-ofctl add-flow br0 'table=1,ip,ct_state=+trk+new,actions=ct(commit,zone=7,exec(set_field:5->ct_mark)),normal'
ovs-ofctl add-flow br0 'table=1,ip,ct_state=+trk+est,actions=normal'
"""
"""A stateful firewall: what vm1 and vm2 begin."""
ROOM = 70000
"""Connections that the node has room for."""
ZONE = "ovs-appctl dpctl/flush-conntrack zone=7"
EXPLAIN = f"{sys.executable} -m asap2.cli.main host explain --json --no-trial"
STATUS = f"{sys.executable} -m asap2.cli.main host status"


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A node with a stateful firewall between two guests, in software."""
    topology = TOPOLOGY.read_text().replace("[[node]]\n", f"[[node]]\nconnections = {ROOM}\n")
    with Bench.running(topology) as found:
        found.ok("hv1", SWITCH + RULES)
        yield found


@pytest.fixture
def pinged(bench: Bench) -> Bench:
    """There is one connection, of a ping."""
    bench.ok("hv1", ZONE)
    bench.ping("vm1", "10.57.0.2", 2)
    return bench


def test_every_program_shows_the_connection(pinged: Bench) -> None:
    shown = pinged.ok("hv1", "ovs-appctl dpctl/dump-conntrack zone=7")
    found = re.fullmatch(
        r"icmp,orig=\(src=10.57.0.1,dst=10.57.0.2,id=(\d+),type=8,code=0\),"
        r"reply=\(src=10.57.0.2,dst=10.57.0.1,id=\1,type=0,code=0\),zone=7,mark=5\n",
        shown,
    )
    assert found, shown
    line = (
        rf"icmp +1 \d+ src=10.57.0.1 dst=10.57.0.2 type=8 code=0 id={found[1]} "
        rf"src=10.57.0.2 dst=10.57.0.1 type=0 code=0 id={found[1]} mark=5 zone=7 use=\d\n"
    )
    assert re.fullmatch(line, pinged.ok("hv1", "conntrack -L 2>&-"))
    assert re.fullmatch("ipv4 +2 " + line, pinged.ok("hv1", "cat /proc/net/nf_conntrack"))
    assert pinged.ok("hv1", "conntrack -C; sysctl -n net.netfilter.nf_conntrack_count") == "1\n1\n"
    assert "Total: 1" in pinged.ok("hv1", "ovs-appctl dpctl/ct-stats-show")
    assert "Connections: 0 in hardware, 1 in software" in pinged.ok("hv1", STATUS)
    counted = "sysctl -qw net.netfilter.nf_conntrack_acct={}; conntrack -L 2>&-"
    assert "packets=2 bytes=168" in pinged.ok("hv1", counted.format(1))
    assert "packets" not in pinged.ok("hv1", counted.format(0))


def test_the_connections_of_other_namespaces_are_their_own(pinged: Bench) -> None:
    assert pinged.ok("hv1", "unshare --net sh -c 'conntrack -C; cat /proc/sys/net/netfilter/nf_conntrack_count'") == (
        "0\n0\n"
    )
    assert pinged.ok("vm1", "conntrack -C") == "0\n"


def test_one_connection_is_flushed_by_its_tuple_in_either_direction(pinged: Bench) -> None:
    for reply in (False, True):
        number = re.search(r"id=(\d+)", pinged.ok("hv1", "ovs-appctl dpctl/dump-conntrack"))
        assert number
        tuples = ["ct_nw_src=10.57.0.1,ct_nw_dst=10.57.0.2", "ct_nw_src=10.57.0.2,ct_nw_dst=10.57.0.1"]
        given = f"{tuples[reply]},ct_nw_proto=1,icmp_id={number[1]},icmp_type={0 if reply else 8},icmp_code=0"
        pinged.ok("hv1", f"ovs-appctl dpctl/flush-conntrack zone=8 '{given}' 2>&- || true")
        assert pinged.ok("hv1", "conntrack -C") == "1\n"
        pinged.ok("hv1", f"ovs-appctl dpctl/flush-conntrack zone=7 '{given}'")
        assert pinged.ok("hv1", "conntrack -C") == "0\n"
        pinged.ping("vm1", "10.57.0.2", 1)


def test_who_listens_hears_of_packets_and_of_the_end(bench: Bench) -> None:
    bench.ok("hv1", f"{ZONE}; ovs-vsctl add-zone-tp system zone=7 icmp_first=1")
    until(lambda: "timeout=ovs_tp" in pinged_flows(bench), why="the policy is in no flow")
    bench.ok("hv1", ZONE)
    listener = bench.start("hv1", "stdbuf", "-oL", "conntrack", "-E", "-o", "extended")
    try:
        assert listener.stdout is not None
        # it cannot be seen from outside when it listens, but a connection lives no longer than it takes
        until(lambda: " 00000007 " in bench.ok("hv1", "cat /proc/net/netlink"), why="conntrack does not listen")
        bench.ping("vm1", "10.57.0.2", 1)
        heard = [listener.stdout.readline() for _ in range(2)]
    finally:
        listener.terminate()
        listener.communicate(timeout=PATIENCE)
        bench.ok("hv1", "ovs-vsctl del-zone-tp system zone=7")
    connection = r"src=10.57.0.1 dst=10.57.0.2 type=8 code=0 id=\d+ {}src=10.57.0.2 dst=10.57.0.1 .* mark=5 zone=7\n"
    assert re.fullmatch(r" *\[NEW\] ipv4 +2 icmp +1 1 " + connection.format(r"\[UNREPLIED\] "), heard[0])
    assert re.fullmatch(r"\[DESTROY\] ipv4 +2 icmp +1 " + connection.format(""), heard[1])


def pinged_flows(bench: Bench) -> str:
    """The datapath's flows after a ping."""
    bench.ok("hv1", ZONE)
    bench.ping("vm1", "10.57.0.2", 1)
    return bench.ok("hv1", "ovs-appctl dpctl/dump-flows")


def test_connections_and_settings_outlive_the_daemon(pinged: Bench) -> None:
    listed = "conntrack -L -o id 2>&- | sed 's/icmp *1 [0-9]*//'"
    pinged.ok("hv1", "sysctl -qw net.netfilter.nf_conntrack_acct=1 net.netfilter.nf_conntrack_udp_timeout=33")
    before = pinged.ok("hv1", listed)
    assert "packets=2" in before
    pinged.kill_daemon("hv1")
    assert pinged.ok("hv1", listed) == before
    assert pinged.ok("hv1", "sysctl -n net.netfilter.nf_conntrack_udp_timeout") == "33\n"
    pinged.ok("hv1", "sysctl -qw net.netfilter.nf_conntrack_acct=0 net.netfilter.nf_conntrack_udp_timeout=30")


def test_there_may_be_as_many_as_the_node_has_room_for(pinged: Bench) -> None:
    name = "net.netfilter.nf_conntrack_max"
    pinged.ok("hv1", f"sysctl -qw {name}=1000")
    shown = pinged.ok("hv1", STATUS)
    assert re.search(r"^Connections: .* of at most 1000\b", shown, re.MULTILINE)
    for more in (ROOM, ROOM + 1, 0):
        pinged.ok("hv1", f"sysctl -qw {name}={more}")
        assert pinged.ok("hv1", f"sysctl -n {name}") == f"{ROOM}\n"
    assert (
        pinged.ok(
            "hv1", "stat -c %a /proc/sys/net/netfilter/nf_conntrack_max /proc/sys/net/netfilter/nf_conntrack_count"
        )
        == "644\n444\n"
    )


def test_open_vswitch_finds_that_the_datapath_tracks_connections(bench: Bench) -> None:
    features = bench.ok("hv1", "ovs-appctl dpif/show-dp-features br0")
    fields = ("state", "zone", "mark", "label", "state NAT", "orig tuple", "orig tuple for IPv6")
    actions = ("eventmask", "clear", "timeout policy")
    for name in (*(f"CT {field}" for field in fields), *(f"Conntrack {action}" for action in actions)):
        assert f"{name}: Yes" in features


def test_packets_in_fragments_pass_the_firewall(pinged: Bench) -> None:
    pinged.ok("vm1", "ping -q -c 2 -i 0.05 -s 4000 10.57.0.2")
    pinged.ok("vm1", "ping -q -c 1 -s 20000 10.57.0.2")


def test_a_zone_has_no_more_connections_than_its_limit(pinged: Bench) -> None:
    pinged.ok("hv1", "ovs-appctl dpctl/ct-set-limits default=0 zone=7,limit=1")
    assert re.search(r"zone=7,limit=1,count=[1-9]", pinged.ok("hv1", "ovs-appctl dpctl/ct-get-limits zone=7"))
    assert pinged.run("vm1", "ping -q -c 1 -W 0.3 10.57.0.2").returncode == 1
    assert "is in use" in pinged.run("hv1", "modprobe -r openvswitch").stderr
    assert "zone=7,limit=1" in pinged.ok("hv1", "ovs-appctl dpctl/ct-get-limits zone=7")
    pinged.ok("hv1", "ovs-appctl dpctl/ct-del-limits zone=7")
    pinged.ping("vm1", "10.57.0.2", 1)


VIRTUAL = "priority=40000,icmp,nw_dst=10.57.0.9,actions=ct(commit,zone=9,nat(dst=10.57.0.2)),normal"
ANSWERS = "priority=40000,icmp,nw_src=10.57.0.2,icmp_type=0,actions=ct(zone=9,nat,table=2)"


def test_a_virtual_address_is_translated_and_back_again(pinged: Bench) -> None:
    pinged.ok("vm1", "ip neigh replace 10.57.0.9 lladdr fa:16:3e:00:00:02 dev eth0")
    pinged.ok("hv1", f"ovs-ofctl add-flow br0 '{VIRTUAL}'; ovs-ofctl add-flow br0 '{ANSWERS}'")
    pinged.ok("hv1", "ovs-ofctl add-flow br0 table=2,actions=normal")
    try:
        pinged.ping("vm1", "10.57.0.9", 3)
        traced = pinged.ok("hv1", "ovs-appctl ofproto/trace br0 in_port=eth0,icmp,nw_src=10.57.0.1,nw_dst=10.57.0.9")
        assert "ct(commit,zone=9,nat(dst=10.57.0.2))" in traced
    finally:
        pinged.ok("hv1", "ovs-ofctl --strict del-flows br0 priority=40000,icmp,nw_dst=10.57.0.9")
        pinged.ok("hv1", "ovs-ofctl --strict del-flows br0 priority=40000,icmp,nw_src=10.57.0.2,icmp_type=0")


SERVER = """
import socket
server = socket.create_server(("10.57.0.2", 5000))
print(flush=True)
connection = server.accept()[0]
while connection.recv(100):
    pass
"""
CLIENT = """
import socket, time
connection = socket.create_connection(("10.57.0.2", 5000))
while True:
    connection.send(b"on")
    time.sleep(0.01)
"""


def test_programs_see_what_hardware_carries_and_explain_says_why_not_the_rest(bench: Bench) -> None:
    """The last test: Open vSwitch offloads from here on."""
    bench.switch("hv1")
    bench.ok("hv1", RULES + "ovs-appctl dpctl/flush-conntrack")
    bench.ping("vm1", "10.57.0.2", 2)
    server = bench.start("vm2", sys.executable, "-c", SERVER)
    assert server.stdout is not None
    server.stdout.readline()
    client = bench.start("vm1", sys.executable, "-c", CLIENT)
    try:
        until(lambda: "[HW_OFFLOAD]" in bench.ok("hv1", "conntrack -L -p tcp 2>&-"), why="it is not in hardware")
        explained = answer(bench.ok("hv1", EXPLAIN))
        assert "Connections: 1 in hardware" in bench.ok("hv1", STATUS)
    finally:
        for process in (client, server):
            process.kill()
            process.communicate()
    where = {(row["code"], row["what"]): row["count"] for row in explained["connections"]}
    assert where == {("connection.hardware", "TCP in zone 7"): 1, ("connection.protocol", "ICMP in zone 7"): 1}
