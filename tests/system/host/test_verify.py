# SPDX-License-Identifier: Apache-2.0
"""``asap2 host verify``: two hypervisors, a guest on each, and traffic that is offloaded, or is not."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest

from tests.schemas import answer
from tests.system.host.conftest import PF, Hosts
from tests.system.offload.labs import until
from tests.system.patience import PATIENCE

PEER = "10.57.0.2"
MEGAFLOWS = "ovs-appctl revalidator/purge"


def verified(bench: Hosts, *words: str, node: str = "hv1") -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status, and the results by protocol; again while it asks for that: a busy machine is late with rules."""
    for _ in range(9):
        done = bench.host(node, "verify", *words, "--json")
        assert done.stdout, done.stderr
        if "try again" not in done.stdout:
            break
    return done.returncode, {one["protocol"]: one for one in answer(done.stdout)["results"]}


@pytest.fixture(scope="module")
def guests(bench: Hosts) -> Hosts:
    """The lab with both hypervisors set up, and a guest on VF 1 of each."""
    for number in (1, 2):
        node, guest = f"hv{number}", f"vm{number}"
        bench.clear(node)
        bench.done(node, "setup", "--vfs", "2", "--bridge", "br-int", "--representors", PF)
        bench.hand_over(node, guest)
        bench.ok(guest, f"ip addr add fd00:57::{number}/64 dev eth0 nodad")
    return bench


@pytest.fixture
def idle(guests: Hosts) -> Hosts:
    """No flow in either datapath."""
    for node in ("hv1", "hv2"):
        guests.ok(node, MEGAFLOWS)
    return guests


def test_every_protocol_is_proven_to_a_peer_that_runs_nothing(idle: Hosts) -> None:
    status, results = verified(idle, "eth1", PEER)
    assert status == 0
    for protocol, how, total in (("icmp", "echo", 1000), ("udp", "one way", 1000), ("tcp", "handshakes", 1000)):
        one = results[protocol]
        assert one["offloaded"] is True, one
        assert (one["how"], one["total"]) == (how, total)
        assert one["by_host"] <= 10
        assert re.fullmatch(rf"offloaded: \d of {total} packets reached the host", one["verdict"])
        assert {flow["way"] for flow in one["flows"]} == {"in", "out"}
    assert sum(flow["packets"] for flow in results["icmp"]["flows"]) >= 990


def test_the_first_packets_are_seen_by_the_host(idle: Hosts) -> None:
    _, results = verified(idle, "eth1", PEER, "--protocol", "icmp", "--count", "100")
    assert 1 <= results["icmp"]["by_host"] <= 10


def test_ipv6_and_a_namespace_that_is_named(guests: Hosts) -> None:
    status, results = verified(guests, "0000:03:00.3", "fd00:57::2", "--netns", "vm1", "--protocol", "icmp,udp")
    assert status == 0
    assert results["icmp"]["total"] == 1000


def test_the_other_end_can_echo(guests: Hosts) -> None:
    words = ("verify", "--serve", "30", "--netns", "vm2", "--port", "5001")
    server = guests.start("hv2", sys.executable, "-m", "asap2.cli.main", "host", *words)
    assert server.stdout is not None
    assert server.stdout.readline() == "echoing UDP and TCP at port 5001 for 30 s\n"
    status, results = verified(guests, "eth1", PEER, "--protocol", "udp,tcp", "--port", "5001")
    server.terminate()
    server.communicate(timeout=PATIENCE)
    assert status == 0
    assert [one["how"] for one in results.values()] == ["echo", "echo"]
    assert results["tcp"]["total"] >= 1000


def test_two_guests_of_one_host(guests: Hosts) -> None:
    guests.ok("hv1", f"ip netns add vm3; ip link set {PF}v0 netns vm3")
    try:
        setting = f"ip addr add 10.57.0.3/24 dev {PF}v0 && ip link set {PF}v0 up"
        guests.ok("hv1", f"ip netns exec vm3 bash -c '{setting}'")
        status, results = verified(guests, "eth1", "eth0", "--count", "200")
        assert status == 0
        assert [one["how"] for one in results.values()] == ["echo", "echo", "echo"]
    finally:
        guests.ok("hv1", f"ip -n vm3 link set {PF}v0 netns $$; ip netns del vm3")


def test_a_vlan_is_seen_on_the_way(idle: Hosts) -> None:
    for node in ("hv1", "hv2"):
        idle.ok(node, "ovs-vsctl set port eth1 tag=57")
    try:
        status, results = verified(idle, "eth1", PEER, "--through", "vlan", "--protocol", "icmp,udp")
        assert status == 0, json.dumps(results)
        for one in results.values():
            assert [flow["through"] for flow in one["flows"]] == [["vlan 57"], ["vlan 57"]]
        assert idle.host("hv1", "verify", "eth1", PEER, "--through", "tunnel", "--protocol", "icmp").returncode == 1
    finally:
        for node in ("hv1", "hv2"):
            idle.ok(node, "ovs-vsctl clear port eth1 tag")


def test_what_is_not_offloaded_is_told_with_its_reason(idle: Hosts) -> None:
    rule = "priority=9,in_port=eth1,ip,actions=output(port=2,max_len=1500)"
    port = idle.ok("hv1", f"ovs-vsctl get interface {PF} ofport").strip()
    idle.ok("hv1", f"ovs-ofctl --names add-flow br-int '{rule.replace('port=2', f'port={port}')}'")
    try:
        done = idle.host("hv1", "verify", "eth1", PEER, "--protocol", "icmp", "--count", "200")
    finally:
        idle.ok("hv1", "ovs-ofctl --strict del-flows br-int 'priority=9,in_port=eth1,ip' --names")
    assert done.returncode == 1
    assert re.search(
        r"not offloaded: \d+ of 200 packets reached the host \(.*action.truncate: trunc\(1500\)", done.stdout
    )
    assert "`asap2 host explain eth1` says what to do" in done.stdout


def test_a_nic_that_offloads_nothing(guests: Hosts) -> None:
    guests.ok("hv1", f"ethtool -K eth1 hw-tc-offload off; {MEGAFLOWS}")
    try:
        status, results = verified(guests, "eth1", PEER, "--protocol", "icmp,tcp", "--count", "100")
    finally:
        guests.ok("hv1", f"ethtool -K eth1 hw-tc-offload on; {MEGAFLOWS}")
    assert status == 1
    for one in results.values():
        assert one["offloaded"] is False
        assert "port.feature-off" in {flow["reason"] for flow in one["flows"]}


def test_a_peer_that_does_not_answer(idle: Hosts) -> None:
    status, results = verified(idle, "eth1", "10.57.0.99", "--count", "1000")
    assert status == 1
    for protocol in ("icmp", "udp", "tcp"):
        assert results[protocol]["verdict"].endswith("; nobody answers ARP for 10.57.0.99 at eth0")


def test_a_vf_without_an_address_gets_one_meanwhile(idle: Hosts) -> None:
    before = idle.ok("hv1", f"ip -br addr show dev {PF}v0")
    mine = ("--address", "10.57.0.5/24", "--protocol", "icmp", "--count", "100")
    status, results = verified(idle, "eth0", PEER, *mine)
    assert (status, results["icmp"]["offloaded"]) == (0, True)
    status, results = verified(idle, "eth0", "eth1", *mine)  # another VF of the same host
    assert (status, results["icmp"]["offloaded"]) == (0, True)
    assert idle.ok("hv1", f"ip -br addr show dev {PF}v0") == before


def test_traffic_of_the_guests_own_is_watched(idle: Hosts) -> None:
    idle.ping("vm1", PEER, 2)
    pinging = idle.start("vm1", "ping", "-n", "-i", "0.005", "-c", "2000", PEER)
    status, results = verified(idle, "eth1", "--listen", "2")
    pinging.terminate()
    pinging.communicate(timeout=PATIENCE)
    assert status == 0
    one = results["any"]
    assert one["total"] > 200
    assert one["by_host"] <= 10
    assert "packets reached the host" in one["verdict"]


def test_where_nothing_is_sent_nothing_is_proven(idle: Hosts) -> None:
    idle.ok("hv1", "ovs-ofctl mod-port br-int eth0 no-flood")  # the other guests' multicasts stay away
    idle.ok("hv1", f"sysctl -q net.ipv6.conf.{PF}v0.disable_ipv6=1")  # and it has none of its own
    status, results = verified(idle, "eth0", "--listen", "0.5")
    idle.ok("hv1", f"sysctl -q net.ipv6.conf.{PF}v0.disable_ipv6=0")
    idle.ok("hv1", "ovs-ofctl mod-port br-int eth0 flood")
    assert status == 1
    assert results["any"]["offloaded"] is False


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ([], 2, "asap2: say which VF"),
        (["eth1"], 2, "asap2: say whom to send to, PEER, or with --listen SECONDS"),
        (["eth1", PEER, "--listen", "2"], 2, "asap2: say whom to send to, PEER, or with --listen SECONDS"),
        (["eth7", PEER], 2, "asap2: eth7 is no VF of this host, nor its representor; representors here: eth0, eth1"),
        (["eth1", PEER, "--netns", "nowhere"], 2, "asap2: there is no network namespace 'nowhere'"),
        (["eth1", PEER, "--protocol", "sctp"], 2, "asap2: --protocol is a list of icmp, udp, tcp, not 'sctp'"),
        (["eth0", PEER], 1, "has no address to send from: say one with --address, as 10.57.0.1/24"),
        (["eth0", PEER, "--address", "10.58.0.1/24"], 2, "10.57.0.2 cannot be reached from 10.58.0.1/24"),
        (["eth0", PEER, "--address", "here"], 2, "--address takes an address with its prefix"),
        (["eth0", PEER, "--netns", "vm1"], 1, "is not in the namespace vm1"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(guests: Hosts, words: list[str], status: int, sentence: str) -> None:
    done = guests.host("hv1", "verify", *words)
    assert (done.returncode, sentence in done.stderr) == (status, True), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_tunnel_is_seen_on_the_way(guests: Hosts) -> None:
    for number in (1, 2):
        tunnel = f"type=vxlan options:remote_ip=172.16.0.{3 - number} options:key=77"
        guests.ok(
            f"hv{number}",
            f"ovs-vsctl del-port br-int {PF} -- add-port br-int vx0 -- set interface vx0 {tunnel}; "
            f"ip link set {PF} mtu 1600 up; ip addr add 172.16.0.{number}/24 dev {PF}; "
            f"ethtool -K {PF} hw-tc-offload on; {MEGAFLOWS}",
        )
    guests.ping("hv1", "172.16.0.2", 1)
    # until the NIC knows the neighbour it lets the host encapsulate, which verify does not call offloaded
    until(lambda: verified(guests, "eth1", PEER, "--protocol", "icmp", "--count", "100")[0] == 0)
    status, results = verified(guests, "eth1", PEER, "--through", "tunnel")
    assert status == 0
    for one in results.values():
        ways = {flow["way"]: flow["through"] for flow in one["flows"]}
        assert ways == {
            "out": ["tunnel 77 to 172.16.0.2 over vxlan_sys_4789"],
            "in": ["tunnel 77 at vxlan_sys_4789"],
        }
