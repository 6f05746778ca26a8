# SPDX-License-Identifier: Apache-2.0
"""Each way to limit a rate, at each rate, by UDP as fast as it goes, and by TCP: the rate that comes through.

=========  =============================================================================
``vf``     ``ip link set PF vf N max_tx_rate``: what the VF sends waits
``meter``  act_police in hardware (``skip_sw``), as Open vSwitch offloads meters: drops
``police`` act_police in software (``skip_hw``): drops
=========  =============================================================================

Rates count a packet's octets from its Ethernet header on; those of act_police in software from its IP header on, as the
kernel's do. TCP's packets are full ones. The first second does not count: a bucket is full at first.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Final

from asap2.lab.background import Program
from asap2.lab.execute import run as execute
from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from asap2.lab.topology import Topology, parse

KINDS: Final = ("vf", "meter", "police")
PROTOCOLS: Final = ("udp", "tcp")
RATES: Final = (1, 10, 100, 1000, 5000)
"""Mbit/s."""
SECONDS: Final = 10
TOLERANCE: Final = 3.0
"""Per cent that a rate may be off."""
_WARM_UP: Final = 1
_LEAST_BURST: Final = 70_000
"""Octets: software drops super-packets that are longer than the burst."""
_PF, _ADDRESS = "enp3s0f0", "10.9.30.2"
_DATAGRAM, _SEGMENT = 1400, 1448
"""Payload of a UDP datagram, and of a full TCP segment with timestamps."""
_IP_UDP, _IP_TCP, _ETHERNET = 28, 52, 14
_MOST_AT_ONCE: Final = 40
_PORT: Final = 7790
_PROGRAM: Final = (sys.executable, "-m", "asap2.lab.bench.rates.udp")


def topology() -> Topology:
    """The lab's node and guests."""
    return parse(resources.files("asap2.lab").joinpath("bench/topologies/rates.toml").read_text())


def run(lab: Lab, tell: Callable[[str], object], seconds: int = SECONDS) -> dict[str, Any]:
    """Measure every rate for so many seconds; *tell* is called with a line about each. The lab is brought up for it and
    taken down after it."""
    found: list[dict[str, Any]] = []
    try:
        lab.up(topology())
        node = lab.layout.node("hv1") / "ns"
        _forward(node)
        execute(lab.layout.guest("vm1") / "ns", "ping", "-q", "-c", "2", "-i", "0.2", "-w", "30", _ADDRESS)
        for kind in KINDS:
            for rate in RATES:
                _limit(node, kind, rate)
                for protocol in PROTOCOLS:
                    measured = _measure(lab.layout, kind, protocol, rate, seconds)
                    off = 100 * (measured / rate - 1)
                    found.append({"kind": kind, "protocol": protocol, "asked": rate, "measured": measured, "off": off})
                    tell(f"{kind:6} {protocol} {rate:5} Mbit/s: {measured:9.3f} Mbit/s, {off:+.2f} %")
            _limit(node, kind, 0)
    finally:
        lab.down()
    return {"seconds": seconds, "tolerance_percent": TOLERANCE, "rates": found}


def _forward(node: Path) -> None:
    """Rules that send from each guest to the other, in hardware."""
    for one, other in (("eth0", "eth1"), ("eth1", "eth0")):
        execute(node, "ip", "link", "set", one, "up")
        execute(node, "tc", "qdisc", "add", "dev", one, "ingress")
        _filter(node, one, 9, "all", _redirect(other))


def _redirect(device: str) -> str:
    return f"action mirred egress redirect dev {device}"


def _filter(node: Path, device: str, priority: int, protocol: str, options: str) -> None:
    place = f"dev {device} ingress protocol {protocol} prio {priority} handle 1 flower"
    execute(node, "tc", "filter", "replace", *f"{place} {options}".split())


def _remove(node: Path, priority: int) -> None:
    execute(node, "sh", "-c", f"tc filter del dev eth0 ingress prio {priority} 2>/dev/null || true")


def _limit(node: Path, kind: str, rate: int) -> None:
    """Limit what the first guest sends, or (0) end the limit."""
    if kind == "vf":
        execute(node, "ip", "link", "set", _PF, "vf", "0", "max_tx_rate", str(rate))
        return
    _remove(node, 1)
    if not rate:
        return
    if kind == "police":  # where hardware has no rule, the representor gets the packets
        _remove(node, 9)
        _filter(node, "eth0", 9, "arp", _redirect("eth1"))
    burst = max(_LEAST_BURST, rate * 6250)
    police = f"action police rate {rate}mbit burst {burst}b mtu 64kb conform-exceed drop/pipe"
    where = "skip_sw" if kind == "meter" else "skip_hw"
    _filter(node, "eth0", 1, "ip", f"{where} {police} {_redirect('eth1')}")


def _measure(layout: Layout, kind: str, protocol: str, rate: int, seconds: int) -> float:
    """Mbit/s that the second guest got, as the limit counts."""
    server, client = layout.guest("vm2") / "ns", layout.guest("vm1") / "ns"
    if protocol == "udp":
        payload, headers, octets = _DATAGRAM, _IP_UDP, _udp(client, server, rate, seconds)
    else:
        payload, headers, octets = _SEGMENT, _IP_TCP, _tcp(client, server, seconds)
    whole = payload + headers + (0 if kind == "police" else _ETHERNET)
    return octets * 8 / 1e6 * whole / payload


def _udp(client: Path, server: Path, rate: int, seconds: int) -> float:
    """Octets of payload a second of UDP as fast as it goes: the higher the rate, the more in one super-packet."""
    sink = [*_PROGRAM, "sink", str(_PORT), str(_WARM_UP), str(seconds)]
    at_once = min(_MOST_AT_ONCE, max(1, rate // 20))
    with Program(server, sink) as receiver:
        receiver.read_until("ready")
        with Program(client, [*_PROGRAM, "source", _ADDRESS, str(_PORT), str(_DATAGRAM), str(at_once)]):
            receiver.read_until(r"[\d.]+ octets")
    found = re.search(r"([\d.]+) octets", receiver.output)
    assert found
    return float(found[1])


def _tcp(client: Path, server: Path, seconds: int) -> float:
    """Octets of payload a second of one TCP stream."""
    command = ["iperf3", "--client", _ADDRESS, "--time", str(seconds), "--omit", str(_WARM_UP), "--json"]
    with Program(server, ["iperf3", "--server", "--one-off"]) as program:
        program.read_until("Server listening")
        told = json.loads(execute(client, *command))["end"]
    return float(told["sum_received"]["bits_per_second"]) / 8
