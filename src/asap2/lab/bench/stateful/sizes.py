# SPDX-License-Identifier: Apache-2.0
"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """New connections are made for ``connect_seconds``. ``many`` connections come round robin for ``packets_seconds``,
    and so does one. Each path carries small packets ``turns`` times a round. One connection has ``requests``."""

    connect_seconds: float = 2.0
    many: int = 500_000
    packets_seconds: float = 2.0
    turns: int = 3
    requests: int = 498
    """With handshake and close a connection of 1000 packets, or a few more where an acknowledgement comes by itself."""


FULL = Sizes()
