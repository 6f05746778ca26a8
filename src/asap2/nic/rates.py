# SPDX-License-Identifier: Apache-2.0
"""What a function may send: limits in whole Mbit/s, as mlx5 sets them (esw/qos.c, apply_police_params)."""

from __future__ import annotations

from typing import Final

from asap2.nic.silicon.metering import NSEC_PER_SEC, Limit

_OCTETS_OF_MBIT: Final = 125_000
_LEAST_BURST: Final = 32_768
"""Octets."""
_BURST_NS: Final = NSEC_PER_SEC // 50


def limit_of(mbit: int) -> Limit:
    """The limit at *mbit* Mbit/s. Hardware makes a function's queues wait; this lets bursts of 20 ms through and drops
    what is beyond."""
    rate = mbit * _OCTETS_OF_MBIT
    return Limit(rate, max(_BURST_NS, _LEAST_BURST * NSEC_PER_SEC // rate))


def round_mbit(octets: int) -> int:
    """A rate in octets a second in Mbit/s, to the nearest."""
    return (octets * 8 + 500_000) // 1_000_000
