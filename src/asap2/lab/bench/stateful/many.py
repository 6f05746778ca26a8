# SPDX-License-Identifier: Apache-2.0
"""Hardware with many connections: packets that hit another each, against packets of one."""

from __future__ import annotations

import os
from pathlib import Path

from asap2.lab.bench.scale import table
from asap2.lab.bench.scale.generator import Generator, received
from asap2.lab.execute import run
from asap2.lab.layout import Layout
from asap2.lab.topology import Topology
from asap2.namespaces import in_netns

_SOURCES = 0x0B00_0000
"""11.0.0.0: the connections' source addresses."""
_PORTS = 50_000
_ROOM = 0.95
"""How much of a node's table is filled: in a full one, connections would go to make room for others."""


class Many:
    """So *many* connections of UDP from the client to the server of *node*, or as many as it has room for."""

    def __init__(self, layout: Layout, plan: Topology, node: str, many: int) -> None:
        client, server = (guest for guest in plan.guests if guest.node == node)
        self._node = layout.node(node) / "ns"
        self.many = many = min(many, int(_ROOM * self._connections("max")))
        macs = [bytes.fromhex((guest.mac or "").replace(":", "")) for guest in (server, client)]
        destination = int.from_bytes(bytes(map(int, (server.address or "").split("/")[0].split("."))), "big")
        head = b"".join(macs)
        frames = [head + table.frame(_SOURCES + n // _PORTS, destination, 1024 + n % _PORTS)[12:] for n in range(many)]
        self._sender, self._receiver = (
            os.open(layout.guest(guest.name) / "ns" / "net", os.O_RDONLY | os.O_CLOEXEC) for guest in (client, server)
        )
        self._generator = Generator(self._sender, "eth0", frames)

    def measure(self, seconds: float) -> dict[str, float]:
        """Packets a second of all connections round robin, and of one. All have been seen before."""
        flush(self._node)
        self._generator.send_some(self.many)
        figures = {"one_packets_per_second": self._packets(seconds, 1)}
        figures["many_packets_per_second"] = self._packets(seconds, self.many)
        figures["connections"] = self._connections("count")
        flush(self._node)
        return figures

    def _connections(self, what: str) -> float:
        return float(run(self._node, "cat", f"/proc/sys/net/netfilter/nf_conntrack_{what}"))

    def _packets(self, seconds: float, flows: int) -> float:
        def count() -> float:
            before = received("eth0")
            elapsed = self._generator.send_for(seconds, flows)
            return (received("eth0") - before) / elapsed

        return in_netns(self._receiver, count)

    def close(self) -> None:
        """Let go of everything."""
        self._generator.close()
        for fd in (self._sender, self._receiver):
            os.close(fd)


def flush(node: Path) -> None:
    """Forget the connections of a node."""
    run(node, "ovs-appctl", "dpctl/flush-conntrack")
