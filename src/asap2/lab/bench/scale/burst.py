# SPDX-License-Identifier: Apache-2.0
"""New flows through a node's Open vSwitch: how many a second, and how long a first packet takes.

Each flow is one UDP packet whose port and address no packet before it had. The sender waits for what it has sent, so
the node is given as many as it manages and loses none for want of room. Neighbours do not matter: the frames are made
here.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.lab.bench.paths import representors, switch_on
from asap2.lab.bench.scale import table
from asap2.lab.bench.scale.paths import address
from asap2.lab.bench.scale.sizes import Sizes
from asap2.lab.execute import run
from asap2.lab.layout import Layout
from asap2.lab.topology import Topology
from asap2.namespaces import in_netns

PATIENCE = 1.0
"""Seconds after which a packet on its way is taken for lost."""
_PORTS = 60_000


class Burst:
    """Flows from the first guest of *node* to the second, by one OpenFlow rule that looks at addresses and ports.

    With *pair* 1, from the third to the fourth, on the switch that the first pair has set up.
    """

    def __init__(self, place: Layout, plan: Topology, node: str, sizes: Sizes, *, offload: bool, pair: int = 0) -> None:
        self._sizes = sizes
        self.node = place.node(node) / "ns"
        self._offload = offload
        if not pair:
            switch_on(place, node, offload=offload)
            run(self.node, "ovs-ofctl", "del-flows", "br0")
        one, other = [guest for guest in plan.guests if guest.node == node][2 * pair : 2 * pair + 2]
        self.guest = place.guest(one.name)
        self._macs = [bytes.fromhex((guest.mac or "").replace(":", "")) for guest in (one, other)]
        self._source, self._destination = (_number(address(guest)) for guest in (one, other))
        self._openflow(pair)
        self._sender = self._socket(place.guest(one.name), socket.AF_PACKET, socket.SOCK_RAW, ("eth0", 0))
        self._receiver = self._socket(
            place.guest(other.name), socket.AF_INET, socket.SOCK_DGRAM, (address(other), table.DST_PORT)
        )
        self._receiver.settimeout(PATIENCE)
        self._next = 0
        self.lost = 0

    def _openflow(self, pair: int) -> None:
        """To choose a path by the hash of addresses and ports, Open vSwitch must look at all of these: so each
        connection is a flow of its own, as with rules of many tenants."""
        one, other = representors(self.node)[2 * pair : 2 * pair + 2]
        numbers = [run(self.node, "ovs-vsctl", "get", "Interface", name, "ofport").strip() for name in (one, other)]
        split = "multipath(symmetric_l3l4+udp,0,modulo_n,1,0,NXM_NX_REG0[0..7])"
        run(self.node, "ovs-ofctl", "add-flow", "br0", f"in_port={numbers[0]},udp,actions={split},output:{numbers[1]}")

    def _socket(self, guest: Path, family: int, kind: int, place: tuple[str, int]) -> socket.socket:
        netns = os.open(guest / "ns" / "net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            made = in_netns(netns, lambda: socket.socket(family, kind, 0))
            in_netns(netns, lambda: made.bind(place))
        finally:
            os.close(netns)
        return made

    def _frame(self, number: int) -> bytes:
        source = self._source + (number // _PORTS << 8)
        made = table.frame(source, self._destination, 1024 + number % _PORTS, number.to_bytes(4, "big"))
        return self._macs[1] + self._macs[0] + made[12:]

    def measure(self) -> dict[str, float]:
        """Flows a second; median time of a first packet, and of the second packet of the same flow, in milliseconds."""
        try:
            return self._new_flows() | self._first_packets()
        finally:
            run(self.node, "ovs-appctl", "revalidator/purge")

    def _new_flows(self) -> dict[str, float]:
        before = self._flows()
        _, came, seconds = self.make(self._sizes.new_flows)
        made = self._flows() - before
        if not came or not made:
            raise Asap2Error("no new flow came through Open vSwitch")
        return {"flows_per_second": min(came, made) / seconds, "flows_lost": self._sizes.new_flows - came}

    def make(self, count: int) -> tuple[list[bytes], int, float]:
        """Send one packet of each of *count* new flows: the packets, how many came, and seconds until the last did."""
        frames = self.frames(count)
        began = last = time.perf_counter()
        sent = came = lost = 0
        while came + lost < count:
            while sent < count and sent - came - lost < self._sizes.window:
                self._sender.send(frames[sent])
                sent += 1
            try:
                self._receiver.recv(64)
                came += 1
                last = time.perf_counter()
            except TimeoutError:
                lost = sent - came
        self.lost += lost
        return frames, came, last - began

    def frames(self, count: int) -> list[bytes]:
        """A packet of each of *count* new flows, not sent yet."""
        found = [self._frame(self._next + at) for at in range(count)]
        self._next += count
        return found

    def _flows(self) -> int:
        """Flows of the datapath that are where they should be."""
        kind = "offloaded" if self._offload else "ovs"
        return run(self.node, "ovs-appctl", "dpctl/dump-flows", f"type={kind}").count("udp(src=")

    def _first_packets(self) -> dict[str, float]:
        first, second = [], []
        for frame in self.frames(self._sizes.first_packets):
            first.append(self.way(frame))
            time.sleep(self._sizes.pause)
            second.append(self.way(frame))
        return {"first_packet_ms": statistics.median(first), "second_packet_ms": statistics.median(second)}

    def way(self, frame: bytes) -> float:
        """Milliseconds until the frame has come. TimeoutError."""
        began = time.perf_counter()
        self._sender.send(frame)
        self._receiver.recv(64)
        return (time.perf_counter() - began) * 1e3

    def close(self) -> None:
        """Close the sockets."""
        self._sender.close()
        self._receiver.close()


def _number(dotted: str) -> int:
    return int.from_bytes(socket.inet_aton(dotted), "big")
