# SPDX-License-Identifier: Apache-2.0
"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """``tables``: rules and masks of each NIC whose lookups are measured. ``few_flows`` fit into any cache,
    ``many_flows`` come round robin, ``cold_flows`` are each seen once. ``runs`` of the program in one measurement,
    ``packets_seconds`` of real packets. ``batch_rules`` in one file of ``tc -batch``. ``new_flows`` sent with at most
    ``window`` of them on their way; ``first_packets`` sent one at a time, ``pause`` seconds after the last came. Each
    path carries small packets ``turns`` times a round. So many flows at once are ``held`` for ``held_seconds``. A
    flood is ``flood_flows`` new flows, ``flood_rate`` a second."""

    tables: tuple[tuple[int, int], ...] = (
        (1, 1),
        (1_000, 1),
        (1_000, 16),
        (1_000, 64),
        (100_000, 1),
        (100_000, 16),
        (100_000, 64),
        (1_000_000, 1),
        (1_000_000, 16),
        (1_000_000, 64),
    )
    few_flows: int = 16
    many_flows: int = 100_000
    cold_flows: int = 20_000
    runs: int = 400_000
    packets_seconds: float = 0.3
    batch_rules: int = 15_000
    new_flows: int = 2_000
    window: int = 64
    first_packets: int = 200
    pause: float = 0.002
    turns: int = 3
    held: tuple[int, ...] = (20_000, 100_000)
    held_seconds: float = 4.0
    flood_flows: int = 60_000
    flood_rate: int = 30_000


FULL = Sizes()
