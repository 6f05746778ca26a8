# SPDX-License-Identifier: Apache-2.0
"""New flows of one guest, quietly and while another guest floods the same switch with new flows of its own."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable

from asap2.lab.bench.scale.burst import PATIENCE, Burst
from asap2.lab.bench.scale.generator import Generator, received
from asap2.lab.bench.scale.sizes import Sizes
from asap2.lab.execute import run
from asap2.lab.layout import Layout
from asap2.lab.topology import Topology
from asap2.namespaces import in_netns

_BATCHES = 1000
"""System calls a second in which the flood is sent."""


class Flood:
    """The first guest of *node* has new flows to the second; the third floods the fourth."""

    def __init__(self, place: Layout, plan: Topology, node: str, sizes: Sizes) -> None:
        self._sizes = sizes
        self._one = Burst(place, plan, node, sizes, offload=True)
        self._other = Burst(place, plan, node, sizes, offload=True, pair=1)
        last = [guest.name for guest in plan.guests if guest.node == node][3]
        self._end = place.guest(last) / "ns" / "net"

    def measure(self) -> dict[str, float]:
        """Median time of a first packet in ms, quietly and in the flood; packets of each guest that did not come."""
        quiet, quiet_lost = self._first_packets(lambda sent: sent < self._sizes.first_packets)
        netns = os.open(self._other.guest / "ns" / "net", os.O_RDONLY | os.O_CLOEXEC)
        generator = Generator(netns, "eth0", self._other.frames(self._sizes.flood_flows))
        os.close(netns)
        before = self._arrived()
        thread = threading.Thread(target=self._send, args=(generator,))
        try:
            thread.start()
            flooded, lost = self._first_packets(lambda _sent: thread.is_alive())
        finally:
            thread.join()
            generator.close()
            came = self._arrived() - before
            run(self._one.node, "ovs-appctl", "revalidator/purge")
        return {
            "quiet_first_packet_ms": statistics.median(quiet),
            "flood_first_packet_ms": statistics.median(flooded),
            "lost": quiet_lost + lost,
            "flood_packets": self._sizes.flood_flows,
            "flood_packets_came": came,
        }

    def _send(self, generator: Generator) -> None:
        some = max(1, self._sizes.flood_rate // _BATCHES)
        began, sent = time.perf_counter(), 0
        while sent < self._sizes.flood_flows:
            generator.send_some(min(some, self._sizes.flood_flows - sent))
            sent += some
            time.sleep(max(0, began + sent / self._sizes.flood_rate - time.perf_counter()))

    def _first_packets(self, go_on: Callable[[int], bool]) -> tuple[list[float], int]:
        times: list[float] = []
        lost = 0
        while go_on(len(times) + lost):
            (frame,) = self._one.frames(1)
            try:
                times.append(self._one.way(frame))
            except TimeoutError:
                lost += 1
            time.sleep(self._sizes.pause)
        return times or [PATIENCE * 1e3], lost

    def _arrived(self) -> int:
        """Packets that the end of the flood has received."""
        netns = os.open(self._end, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return in_netns(netns, lambda: received("eth0"))
        finally:
            os.close(netns)

    def close(self) -> None:
        """Close the sockets."""
        for burst in (self._one, self._other):
            burst.close()
