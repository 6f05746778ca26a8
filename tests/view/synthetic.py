# SPDX-License-Identifier: Apache-2.0
"""A collector of a lab that is not there: nodes in any number, whose counters move with each sample."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from asap2.host.connections import Entry, Listing
from asap2.live import (
    Bridge,
    Cable,
    Connections,
    Counters,
    Detail,
    Flow,
    Guest,
    Nic,
    Node,
    Port,
    PortKind,
    Snapshot,
)

VFS = 4
"""VFs of each node, of which the first two are guests'."""


def structure(nodes: int) -> Snapshot:
    """*nodes* nodes at a switch (two: joined by a cable), each with two guests and a bridge."""
    made = tuple(_node(f"hv{number}") for number in range(1, nodes + 1))
    guests = tuple(
        Guest(f"{node.name}-vm{vf}", node.name, f"{node.name}/nic0/pf0vf{vf}", "eth0", (f"10.0.0.{vf}/24",))
        for node in made
        for vf in (0, 1)
    )
    uplinks = [f"{node.name}/enp3s0f0" for node in made]
    cables = (Cable((uplinks[0], uplinks[1])),) if nodes == 2 else tuple(Cable((end, "tor")) for end in uplinks)
    return Snapshot(time.time(), "lab", "synthetic", made, guests, cables)


def _node(name: str) -> Node:
    uplink = Port(f"{name}/enp3s0f0", "enp3s0f0", PortKind.UPLINK, "nic0", 0, bridge="br-int", up=True)
    ports = [uplink, Port(f"{name}/br-int", "br-int", PortKind.INTERNAL, bridge="br-int", up=True)]
    for vf in range(VFS):
        own, other = f"{name}/nic0/pf0vf{vf}", f"{name}/eth{vf}"
        guest = f"{name}-vm{vf}" if vf < 2 else None
        bridge = "br-int" if vf < 2 else None
        ports.append(Port(own, "eth0", PortKind.VF, "nic0", 0, vf, guest, None, other, True))
        ports.append(Port(other, f"eth{vf}", PortKind.REPRESENTOR, "nic0", 0, vf, None, bridge, own, True))
    nic = Nic("nic0", "ConnectX-5", "0000:03:00.0", "switchdev", ("enp3s0f0",))
    names = ("br-int", "enp3s0f0", "eth0", "eth1")
    return Node(name, "up", (nic,), tuple(ports), (Bridge("br-int", names),))


class Synthetic:
    """Every port of a guest or an uplink carries 1000 packets a sample in hardware, 10 in software, and refuses 1."""

    def __init__(self, nodes: int) -> None:
        self.generation = 1
        self.samples = 0
        self.closed = False
        self.wanted: frozenset[str] = frozenset()
        self.listed: set[str] = set()
        self.now = structure(nodes)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(node.name for node in self.now.nodes)

    def want_flows(self, nodes: Iterable[str]) -> None:
        """Have details of these nodes."""
        self.wanted = frozenset(nodes)

    def want_connections(self, wanted: Mapping[str, frozenset[str]]) -> None:
        """List connections."""
        self.listed = {text for texts in wanted.values() for text in texts}

    def sample(self) -> Snapshot:
        """The next moment."""
        self.samples += 1
        number = self.samples
        moved = Counters(*(1000 * number,) * 4, *(10 * number,) * 4, number)
        nodes = tuple(
            replace(
                node,
                ports=tuple(
                    replace(port, counters=moved) if (port.vf or 0) < 2 and port.nic else port for port in node.ports
                ),
                detail=self._detail() if node.name in self.wanted else None,
            )
            for node in self.now.nodes
        )
        return replace(self.now, taken=time.time(), nodes=nodes)

    def _detail(self) -> Detail:
        packets = 100 * (self.samples // 10 + 1)
        flows = (
            Flow("u1", "eth0", ("enp3s0f0",), "in_port(eth0)", "enp3s0f0", packets, 9, "yes", "offloaded", "", "", ""),
            Flow(
                *("u2", "eth0", ("br-int",), "in_port(eth0),eth_type(0x0806)", "br-int", 5, 300, "no"),
                *("nic.to-host", "its packets go to the host", "output to br-int", "nothing"),
            ),
        )
        entries = (
            Entry("tcp", "src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=80", 7, "ESTABLISHED", 5, True),
            Entry("icmp", "src=10.0.0.1 dst=10.0.0.3", 7, "UNREPLIED", 0, False),
        )
        listings = []
        for text in sorted(self.listed):
            found = tuple(one for one in entries if all(word in one.text for word in text.split()))
            listings.append(Listing(text, 300 * len(found), found))
        return Detail(float(self.samples // 10), flows, Connections(3, 1), listings=tuple(listings))

    def close(self) -> None:
        """There is nothing to close."""
        self.closed = True
