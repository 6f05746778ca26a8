# SPDX-License-Identifier: Apache-2.0
"""From the counters of devices to those of ports."""

from __future__ import annotations

from asap2.live.counted import Stats
from asap2.live.snapshot import Counters


def split(whole: Stats, seen: Stats, dropped: int) -> Counters:
    """Counters of a port through which *whole* came (received) and left (sent), of which the CPU has *seen* so much."""
    return Counters(
        max(0, whole.rx_packets - seen.rx_packets),
        max(0, whole.rx_bytes - seen.rx_bytes),
        max(0, whole.tx_packets - seen.tx_packets),
        max(0, whole.tx_bytes - seen.tx_bytes),
        seen.rx_packets,
        seen.rx_bytes,
        seen.tx_packets,
        seen.tx_bytes,
        dropped,
    )


def turned(own: Stats) -> Stats:
    """What a device has sent comes in where it is joined, and what it has received left there."""
    return Stats(own.tx_packets, own.rx_packets, own.tx_bytes, own.rx_bytes, own.tx_dropped, own.rx_dropped)
