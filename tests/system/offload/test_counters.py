# SPDX-License-Identifier: Apache-2.0
"""What representors and uplinks count: all that hardware forwards, and apart from it what the CPU has touched."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import IPV4, Bench, until

REPRESENTOR = "eth3"
PINGS = 30
GUESTS = ("vm1", "vm2")
Both = tuple[int, int]
NEIGHBOURS = (("vm1", "vm2", "10.57.0.2"), ("vm2", "vm1", "10.57.0.1"))


@pytest.fixture
def quiet(idle: Bench) -> Iterator[Bench]:
    """The lab, where nobody asks who has an address."""
    for guest, other, address in NEIGHBOURS:
        mac = idle.ok(other, "cat /sys/class/net/eth0/address").strip()
        idle.ok(guest, f"ip neigh replace {address} lladdr {mac} dev eth0 nud permanent")
    yield idle
    for guest, _other, address in NEIGHBOURS:
        idle.ok(guest, f"ip neigh del {address} dev eth0")


def test_a_representor_counts_what_hardware_forwards_wherever_it_is_asked(quiet: Bench) -> None:
    quiet.ping("vm1", "10.57.0.2", 3, "-i 0.3")
    until(lambda: len(quiet.flows("hv1", IPV4)) >= 2 and len(quiet.flows("hv2", IPV4)) >= 2)
    before, touched = _by_rtnetlink(quiet, REPRESENTOR), _touched(quiet, REPRESENTOR)
    quiet.ping("vm1", "10.57.0.2", PINGS)
    after = _by_rtnetlink(quiet, REPRESENTOR)
    assert [late - early for early, late in zip(before, after, strict=True)] == [PINGS, PINGS]
    assert _touched(quiet, REPRESENTOR) == touched
    places = (_by_stats, _by_sysfs, _by_procfs, _by_ethtool, _by_the_datapath, _by_its_vf)
    assert [place(quiet, REPRESENTOR) for place in places] == [after] * len(places)


def test_an_uplink_counts_what_is_on_the_cable(quiet: Bench) -> None:
    quiet.ping("vm1", "10.57.0.2", 3, "-i 0.3")
    until(lambda: len(quiet.flows("hv1", IPV4)) >= 2 and len(quiet.flows("hv2", IPV4)) >= 2)
    before, touched = _by_rtnetlink(quiet, PF), _touched(quiet, PF)
    quiet.ping("vm1", "10.57.0.2", PINGS)
    after = _by_rtnetlink(quiet, PF)
    assert [late - early for early, late in zip(before, after, strict=True)] == [PINGS, PINGS]
    assert _touched(quiet, PF) == touched
    shown = quiet.ok("hv1", f"ethtool -S {PF}")
    assert (_named(shown, "rx_packets_phy"), _named(shown, "tx_packets_phy")) == after


def test_netdevs_that_hardware_does_not_forward_past_have_no_hits_of_the_cpu(lab: Bench) -> None:
    assert "rx" not in lab.ok("hv1", f"ip -j stats show dev {PF}v1 group offload subgroup cpu_hit")


def _both(stats: dict[str, dict[str, int]]) -> Both:
    return stats["rx"]["packets"], stats["tx"]["packets"]


def _by_rtnetlink(bench: Bench, device: str) -> Both:
    return _both(json.loads(bench.ok("hv1", f"ip -j -s link show {device}"))[0]["stats64"])


def _by_stats(bench: Bench, device: str) -> Both:
    return _both(json.loads(bench.ok("hv1", f"ip -j stats show dev {device} group link"))[0]["stats64"])


def _touched(bench: Bench, device: str) -> Both:
    shown = bench.ok("hv1", f"ip -j stats show dev {device} group offload subgroup cpu_hit")
    return _both(json.loads(shown)[0]["stats64"])


def _by_sysfs(bench: Bench, device: str) -> Both:
    statistics = f"/sys/class/net/{device}/statistics"
    rx, tx = bench.ok("hv1", f"cat {statistics}/rx_packets {statistics}/tx_packets").split()
    return int(rx), int(tx)


def _by_procfs(bench: Bench, device: str) -> Both:
    words = bench.ok("hv1", f"grep -w {device} /proc/net/dev").split(":")[1].split()
    return int(words[1]), int(words[9])


def _by_ethtool(bench: Bench, device: str) -> Both:
    shown = bench.ok("hv1", f"ethtool -S {device}")
    return _named(shown, "vport_rx_packets"), _named(shown, "vport_tx_packets")


def _by_the_datapath(bench: Bench, device: str) -> Both:
    shown = bench.ok("hv1", "ovs-dpctl show -s").split(f": {device}\n")[1]
    return _named(shown, "RX packets"), _named(shown, "TX packets")


def _by_its_vf(bench: Bench, _representor: str) -> Both:
    """What the guest has sent, and received."""
    rx, tx = _both(json.loads(bench.ok("vm1", "ip -j -s link"))[-1]["stats64"])
    return tx, rx


def _named(shown: str, name: str) -> int:
    return int(shown.split(f"{name}:")[1].split()[0])


COLLECTOR = """
import socket, struct
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 6343))
print("ready", flush=True)
while True:
    data = sock.recv(65536)
    at, (count,) = 28, struct.unpack_from(">I", data, 24)
    for _ in range(count):
        kind, size = struct.unpack_from(">II", data, at)
        if kind == 1:  # a flow sample: rate, input, output; one of its records is the packet's beginning
            rate, _, _, came, went, records = struct.unpack_from(">6I", data, at + 16)
            record = at + 40
            for _ in range(records):
                what, length = struct.unpack_from(">II", data, record)
                if what == 1:
                    print((rate, came, went, data[record + 24 : record + 38].hex()), flush=True)
                record += 8 + length
        at += 8 + size
"""
"""An sFlow collector (version 5)."""


def test_an_sflow_collector_gets_samples_and_what_is_sampled_is_not_in_hardware(quiet: Bench) -> None:
    """As mlx5 and Open vSwitch 3 do not offload it; the kernel's datapath samples."""
    ports = [int(quiet.ok("hv1", f"cat /sys/class/net/{device}/ifindex")) for device in (REPRESENTOR, PF)]
    addresses = [bytes.fromhex(quiet.ok(guest, "cat /sys/class/net/eth0/address").replace(":", "")) for guest in GUESTS]
    quiet.ok("hv1", "ip link set lo up")
    quiet.ping("vm1", "10.57.0.2", 1)  # the bridge learns where both are
    collector = quiet.start("hv1", sys.executable, "-c", COLLECTOR)
    try:
        assert collector.stdout
        assert collector.stdout.readline() == "ready\n"
        create = '--id=@s create sflow agent=lo target=\\"127.0.0.1:6343\\" sampling=1 polling=0'
        quiet.ok("hv1", f"ovs-vsctl -- {create} -- set bridge br-int sflow=@s")
        quiet.ping("vm1", "10.57.0.2", 3)
        told = [ast.literal_eval(collector.stdout.readline()) for _ in range(6)]
        there = (1, *ports, (addresses[1] + addresses[0] + b"\x08\0").hex())
        back = (1, *reversed(ports), (addresses[0] + addresses[1] + b"\x81\0").hex())
        assert sorted(told) == sorted([there, back] * 3)
        quiet.flow("hv1", IPV4, "in_port(eth3)", "sFlow", kind="ovs")
        explained = quiet.run("hv1", f"{sys.executable} -m asap2.cli.main host explain").stdout
        assert "action.sampling" in explained
    finally:
        quiet.ok("hv1", "ovs-vsctl clear bridge br-int sflow")
        collector.kill()
        collector.communicate()
