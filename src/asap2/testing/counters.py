# SPDX-License-Identifier: Apache-2.0
"""The counters of a network device, as ``ip -s link`` and ``ip stats`` print them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asap2.testing.place import Place


@dataclass(frozen=True, slots=True)
class Counters:
    """Packets and octets of a device. A representor counts all that its VF sends and receives, in hardware too;
    ``cpu_…`` is what of that passed the host's CPU. Of other devices ``cpu_…`` is the same as the total."""

    rx_packets: int
    rx_bytes: int
    rx_dropped: int
    tx_packets: int
    tx_bytes: int
    tx_dropped: int
    cpu_rx_packets: int
    cpu_rx_bytes: int
    cpu_tx_packets: int
    cpu_tx_bytes: int

    def __sub__(self, before: Counters) -> Counters:
        """What was counted since *before*."""
        return Counters(*(getattr(self, each.name) - getattr(before, each.name) for each in fields(self)))

    @property
    def hardware_rx_packets(self) -> int:
        """Packets received that did not pass the host's CPU."""
        return self.rx_packets - self.cpu_rx_packets

    @property
    def hardware_tx_packets(self) -> int:
        """Packets sent that did not pass the host's CPU."""
        return self.tx_packets - self.cpu_tx_packets


def read_counters(place: Place, device: str) -> Counters:
    """The counters of *device*; CommandError when there is no such device.

    Those of the CPU are read first: so what hardware has forwarded is never less than nothing.
    """
    offload = ["ip", "-j", "stats", "show", "dev", device, "group", "offload", "subgroup", "cpu_hit"]
    offloaded = place.run(offload, check=False).stdout
    total = _stats(place.run(["ip", "-s", "-j", "link", "show", "dev", device]).stdout)
    cpu = _stats(offloaded) or total
    return Counters(
        *(total[way][figure] for way in ("rx", "tx") for figure in ("packets", "bytes", "dropped")),
        *(cpu[way][figure] for way in ("rx", "tx") for figure in ("packets", "bytes")),
    )


def _stats(printed: str) -> dict[str, dict[str, int]]:
    shown: list[dict[str, Any]] = json.loads(printed or "[]")
    found: dict[str, dict[str, int]] = next((row["stats64"] for row in shown if "stats64" in row), {})
    return found
