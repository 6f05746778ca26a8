# SPDX-License-Identifier: Apache-2.0
"""Hardware with many connections: packets that hit another each, against packets of one; and what one takes of memory.

As the lookups of the suite ``scale``, this reaches into the NIC: a node's table is smaller.
"""

from __future__ import annotations

import os
from pathlib import Path

from asap2.lab.bench.scale import table
from asap2.lab.bench.scale.bare import IN, OUT, Bare
from asap2.lab.bench.scale.generator import Generator
from asap2.lab.bench.scale.lookup import Flows, packed
from asap2.lab.execute import run
from asap2.lab.layout import Layout as Place
from asap2.namespaces import in_netns
from asap2.nic.conntrack.table import Connections
from asap2.nic.rules import Ct, CtHardware, Masked, Match, Output, Rule
from asap2.nic.silicon import loader
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.pipeline import Pipeline

_DEVICE = "eth0"
_ZONE = 7
_SOURCES, _DESTINATION = 0x0B00_0000, 0x0C00_0001
"""11.0.0.0 and so on: the connections' source addresses; 12.0.0.1."""
_PORTS = 50_000
_FEW = 1024
"""The table has room for so many more than it holds."""
_MAPS = ("connections", "tuples", "free_connections")


class Many:
    """A NIC's silicon, between a device of a sending and one of a receiving guest, and so *many* connections of UDP."""

    def __init__(self, place: Place, many: int) -> None:
        self._many = many
        self._bare = Bare(place, "many")
        self._bare.wire(_DEVICE)
        self._pinned = self._bare.bpf / "nic"
        self._pipeline = Pipeline.open(self._pinned, max_rules=_FEW, max_connections=many + _FEW)
        self._maps = Layout(self._pinned)
        self._bare.set_ports(self._pipeline, _DEVICE)
        self._rule = self._pipeline.add(Rule(0, IN, 1, Match(eth_type=Masked(0x0800, 0xFFFF)), (Output(OUT),)))
        flows = [(_SOURCES + n // _PORTS, _DESTINATION, 1024 + n % _PORTS) for n in range(many)]
        self._program = Flows(self._bare.bpf / "flows", many)
        self._program.load(packed(flows))
        self._bare.attach(self._pipeline, _DEVICE)
        self._generator = Generator(self._bare.sender, _DEVICE, [table.frame(*flow) for flow in flows])

    def measure(self, seconds: float) -> dict[str, float]:
        """Packets a second of one connection and of all round robin, how many there are, and bytes of memory of each.
        Those of an earlier round have expired, or expire now."""
        connections = Connections(self._maps)
        for _ in connections.delete_all(list(connections)):
            pass
        connections.sweep()
        self._pipeline.replace(self._rule, (Ct(_ZONE, commit=True, offload=True), Output(OUT)))
        sender, _ = self._bare.ends(_DEVICE)
        in_netns(self._bare.silicon, lambda: self._program.run(self._maps.program, sender, self._many, self._many))
        self._pipeline.replace(self._rule, (CtHardware(_ZONE, False, 0), Output(OUT)))
        carried = connections.in_hardware()
        return {
            "one_packets_per_second": self._packets(seconds, 1),
            "many_packets_per_second": self._packets(seconds, self._many),
            "connections": float(carried),
            "bytes_each": sum(map(self._memory, _MAPS)) / carried,
        }

    def _memory(self, name: str) -> int:
        """Bytes that a map takes."""
        fd = loader.pinned(self._pinned / name)
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
        os.close(fd)
        return next(int(line.split()[1]) for line in info.splitlines() if line.startswith("memlock:"))

    def _packets(self, seconds: float, flows: int) -> float:
        return in_netns(self._bare.receiver, lambda: self._generator.rate(seconds, flows, _DEVICE))

    def close(self) -> None:
        """Let go of everything; the lab's end ends it."""
        self._generator.close()
        self._program.close()
        self._maps.close()
        self._bare.close()


def flush(node: Path) -> None:
    """Forget the connections of a node."""
    run(node, "ovs-appctl", "dpctl/flush-conntrack")
