# SPDX-License-Identifier: Apache-2.0
"""New connections a second through a path, and how many packets of one connection its host sees."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from asap2.lab.background import Program
from asap2.lab.bench.paths import TrafficPath, representors
from asap2.lab.bench.stateful.many import flush
from asap2.lab.execute import run

PORT = 7780
_PROGRAM = (sys.executable, "-m", "asap2.lab.bench.stateful.connect")


def new_connections(path: TrafficPath, seconds: float) -> dict[str, float]:
    """``connections_per_second`` of TCP connect, request, answer, close, one after another."""
    if path.host:  # those of before, in TIME_WAIT, would fill the table in the end
        flush(path.host.layout.node(path.host.node) / "ns")
    run(path.client, "sh", "-c", "cd /proc/sys/net/ipv4; echo 1 > tcp_tw_reuse; echo 1024 65000 > ip_local_port_range")
    with Program(path.server, [*_PROGRAM, "server", str(PORT)]) as server:
        server.read_until("ready")
        return {
            "connections_per_second": float(
                run(path.client, *_PROGRAM, "client", path.address, str(PORT), str(seconds))
            )
        }


def one_connection(path: TrafficPath, requests: int) -> dict[str, float]:
    """Packets of a TCP connection with so many requests: ``connection_packets`` that the client sent and received, and
    ``host_packets`` of these that came to the host of the *path*. A connection before it has had the flows made."""
    assert path.host is not None
    node = path.host.layout.node(path.host.node) / "ns"
    with Program(path.server, [*_PROGRAM, "server", str(PORT)]) as server:
        server.read_until("ready")
        run(path.client, *_PROGRAM, "one", path.address, str(PORT), "2")
        before = _seen(node), _segments(path.client)
        run(path.client, *_PROGRAM, "one", path.address, str(PORT), str(requests))
        after = _seen(node), _segments(path.client)
    return {"host_packets": after[0] - before[0], "connection_packets": after[1] - before[1]}


def _seen(node: Path) -> int:
    """Packets that the representors' netdevs have received: those that hardware left to the host."""
    total = 0
    for name in representors(node):
        told = run(node, "ip", "-j", "stats", "show", "dev", name, "group", "offload", "subgroup", "cpu_hit")
        (stats,) = json.loads(told)
        total += stats["stats64"]["rx"]["packets"]
    return total


def _segments(guest: Path) -> int:
    """TCP segments in and out of a guest."""
    names, values = (line.split() for line in run(guest, "cat", "/proc/net/snmp").splitlines() if "Tcp:" in line)
    return sum(int(values[names.index(counter)]) for counter in ("InSegs", "OutSegs"))
