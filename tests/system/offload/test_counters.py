# SPDX-License-Identifier: Apache-2.0
"""What representors and uplinks count: all that hardware forwards, and apart from it what the CPU has touched."""

from __future__ import annotations

import json

from tests.system.offload.conftest import PF
from tests.system.offload.labs import IPV4, Bench, until

REPRESENTOR = "eth3"
PINGS = 30
Both = tuple[int, int]


def test_a_representor_counts_what_hardware_forwards_wherever_it_is_asked(idle: Bench) -> None:
    idle.ping("vm1", "10.57.0.2", 3, "-i 0.3")
    until(lambda: len(idle.flows("hv1", IPV4)) >= 2 and len(idle.flows("hv2", IPV4)) >= 2)
    before, touched = _by_rtnetlink(idle, REPRESENTOR), _touched(idle, REPRESENTOR)
    idle.ping("vm1", "10.57.0.2", PINGS)
    after = _by_rtnetlink(idle, REPRESENTOR)
    assert [late - early for early, late in zip(before, after, strict=True)] == [PINGS, PINGS]
    assert _touched(idle, REPRESENTOR) == touched
    places = (_by_stats, _by_sysfs, _by_procfs, _by_ethtool, _by_the_datapath, _by_its_vf)
    assert [place(idle, REPRESENTOR) for place in places] == [after] * len(places)


def test_an_uplink_counts_what_is_on_the_cable(idle: Bench) -> None:
    idle.ping("vm1", "10.57.0.2", 3, "-i 0.3")
    until(lambda: len(idle.flows("hv1", IPV4)) >= 2 and len(idle.flows("hv2", IPV4)) >= 2)
    before, touched = _by_rtnetlink(idle, PF), _touched(idle, PF)
    idle.ping("vm1", "10.57.0.2", PINGS)
    after = _by_rtnetlink(idle, PF)
    assert [late - early for early, late in zip(before, after, strict=True)] == [PINGS, PINGS]
    assert _touched(idle, PF) == touched
    shown = idle.ok("hv1", f"ethtool -S {PF}")
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
