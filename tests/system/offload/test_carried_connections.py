# SPDX-License-Identifier: Apache-2.0
"""A stateful firewall with Open vSwitch that offloads: what the host sees of connections that the NIC carries."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import Bench, tracked_packets, until
from tests.system.patience import PATIENCE

ALLOWED, REFUSED = 5201, 5202
ROUNDS = 500
"""Requests of a conversation; each has an answer, so it is of more than 1000 packets."""
FIREWALL = (
    "priority=9,arp,actions=normal",
    "priority=5,ip,ct_state=-trk,actions=ct(table=1,zone=57)",
    "table=1,priority=5,ip,ct_state=+trk+est,actions=normal",
    f"table=1,priority=5,tcp,ct_state=+trk+new,tp_dst={ALLOWED},actions=ct(commit,zone=57),normal",
    "table=1,priority=5,icmp,ct_state=+trk+new,actions=ct(commit,zone=57),normal",
    "table=1,priority=0,actions=drop",
)
VIRTUAL = "10.57.0.9"
"""An address that no guest has: hv1 has vm2 answer for it."""
TRANSLATED = (
    "priority=9,arp,actions=normal",
    "priority=5,ip,ct_state=-trk,actions=ct(table=1,zone=58,nat)",
    "table=1,priority=5,ip,ct_state=+trk+est,actions=normal",
    f"table=1,priority=5,tcp,ct_state=+trk+new,nw_dst={VIRTUAL},actions=ct(commit,zone=58,nat(dst=10.57.0.2)),normal",
    "table=1,priority=0,actions=drop",
)
ESTABLISHED = "ct_state(0x22/0x22)"
FLAGS = re.compile(r"Flags \[([^]]+)\]")


@pytest.fixture
def bridges(lab: Bench) -> Iterator[Bench]:
    """The two bridges, which forward as ever again afterwards; the guests know each other."""
    macs = {vm: lab.ok(vm, "cat /sys/class/net/eth0/address").strip() for vm in ("vm1", "vm2")}
    neighbours = (("vm1", "vm2", "10.57.0.2"), ("vm2", "vm1", "10.57.0.1"), ("vm1", "vm2", VIRTUAL))
    for vm, other, address in neighbours:
        lab.ok(vm, f"ip neigh replace {address} lladdr {macs[other]} dev eth0 nud permanent")
    for vm, address in (("vm1", "10.57.0.2"), ("vm2", "10.57.0.1")):
        lab.ping(vm, address, 3, "-i 0.2")
    yield lab
    for vm, _other, address in neighbours:
        lab.ok(vm, f"ip neigh del {address} dev eth0")
    for node in ("hv1", "hv2"):
        lab.program(node, "priority=0,actions=normal")
        lab.ok(node, "ovs-appctl dpctl/flush-conntrack")


@contextlib.contextmanager
def answering(bench: Bench, port: int) -> Iterator[None]:
    """vm2 answers each octet that it gets at a port."""
    with bench.socket("vm2", socket.AF_INET, socket.SOCK_STREAM, ("10.57.0.2", port)) as listener:
        listener.listen()

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as one:
                        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        while got := one.recv(1):
                            one.sendall(got)

        beside = threading.Thread(target=answer, daemon=True)
        beside.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            beside.join()


def converse(bench: Bench, to: tuple[str, int], rounds: int) -> None:
    """vm1 asks so often, waits for each answer, and ends the connection."""
    with bench.socket("vm1", socket.AF_INET, socket.SOCK_STREAM, ("10.57.0.1", 0)) as own:
        own.settimeout(PATIENCE)
        own.connect(to)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds):
            own.sendall(b"?")
            assert own.recv(1) == b"?"
        own.shutdown(socket.SHUT_WR)
        assert own.recv(1) == b""


def seen_of(bench: Bench, to: tuple[str, int], rounds: int) -> list[str]:
    """The flags of the TCP packets of a conversation that hv1 sees on vm1's representor, in order."""
    capture = bench.start("hv1", "tcpdump", "-nn", "-l", "-i", "eth3", "tcp")
    assert capture.stderr
    assert capture.stdout
    while "listening on" not in capture.stderr.readline():
        pass
    converse(bench, to, rounds)
    until(lambda: not bench.ok("hv1", "ovs-appctl dpctl/dump-conntrack | grep -c ESTABLISHED || true").strip("0\n"))
    converse(bench, to, 0)  # its end is in what tcpdump shows by then
    shown = list[str]()
    while len([flags for flags in shown if flags == "S"]) < 2:
        shown += FLAGS.findall(capture.stdout.readline())
    capture.terminate()
    capture.communicate()
    return shown[:-1]


def test_only_a_connections_begin_and_end_reach_the_host(bridges: Bench) -> None:
    for node in ("hv1", "hv2"):
        bridges.program(node, *FIREWALL)
    with answering(bridges, ALLOWED):
        converse(bridges, ("10.57.0.2", ALLOWED), 5)  # Open vSwitch makes the flows
        until(lambda: len(bridges.flows("hv1", ESTABLISHED)) >= 2)
        until(lambda: len(bridges.flows("hv2", ESTABLISHED)) >= 2)
        before = tracked_packets(bridges, "hv1", "eth3")
        seen = seen_of(bridges, ("10.57.0.2", ALLOWED), ROUNDS)
        after = tracked_packets(bridges, "hv1", "eth3")
    assert seen[:3] == ["S", "S.", "."]
    assert len(seen) <= 7
    assert sum("F" in flags for flags in seen) == 2, "by the first FIN the host has the connection again"
    assert after[1] - before[1] >= ROUNDS
    tracking = bridges.flows("hv1", "recirc_id(0)", "ct(zone=57)", "recirc(")
    assert {flow.split("in_port(")[1].split(")")[0] for flow in tracking} == {"eth3", PF}
    assert all("offloaded:yes, dp:tc" in flow for flow in tracking)


def test_a_ping_stays_in_software(bridges: Bench) -> None:
    """act_ct gives hardware connections of TCP, UDP and GRE, and no other."""
    for node in ("hv1", "hv2"):
        bridges.program(node, *FIREWALL)
    bridges.ping("vm1", "10.57.0.2", 5, "-i 0.1")
    before = tracked_packets(bridges, "hv1", "eth3")
    bridges.ping("vm1", "10.57.0.2", 20)
    after = tracked_packets(bridges, "hv1", "eth3")
    software, hardware = (late - early for early, late in zip(before, after, strict=True))
    assert (software, hardware) == (20, 0)


def test_what_the_firewall_refuses_does_not_pass(bridges: Bench) -> None:
    for node in ("hv1", "hv2"):
        bridges.program(node, *FIREWALL)
    with (
        answering(bridges, REFUSED),
        bridges.socket("vm1", socket.AF_INET, socket.SOCK_STREAM, ("10.57.0.1", 0)) as own,
    ):
        own.settimeout(0.5)
        with pytest.raises(TimeoutError):
            own.connect(("10.57.0.2", REFUSED))
    assert str(REFUSED) not in bridges.ok("hv1", "ovs-appctl dpctl/dump-conntrack")


def test_hardware_translates(bridges: Bench) -> None:
    bridges.program("hv1", *TRANSLATED)
    with answering(bridges, ALLOWED):
        converse(bridges, (VIRTUAL, ALLOWED), 5)
        until(lambda: len(bridges.flows("hv1", ESTABLISHED)) >= 2)
        before = [tracked_packets(bridges, "hv1", device) for device in ("eth3", PF)]
        seen = seen_of(bridges, (VIRTUAL, ALLOWED), ROUNDS)
        after = [tracked_packets(bridges, "hv1", device) for device in ("eth3", PF)]
    assert len(seen) <= 7
    assert all(late[1] - early[1] >= ROUNDS for early, late in zip(before, after, strict=True))
    until(lambda: VIRTUAL in bridges.ok("hv1", "ovs-appctl dpctl/dump-conntrack"))
