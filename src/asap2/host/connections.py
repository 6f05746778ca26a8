# SPDX-License-Identifier: Apache-2.0
"""What a host tells of the connections that its kernel tracks, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tracked:
    """``count`` connections with the same status (IPS_*) and, for TCP, state (TCP_CONNTRACK_*), which decide whether a
    NIC carries them. ``example`` is one of them."""

    protocol: int
    zone: int
    status: int
    tcp_state: int | None
    helper: bool
    count: int
    example: str


@dataclass(frozen=True, slots=True)
class Connections:
    """The number of connections that the kernel tracks, its limit, and the number that a NIC carries (None: unknown).
    ``tracked_as`` groups all connections, if they were listed."""

    tracked: int
    most: int
    in_hardware: int | None
    tracked_as: tuple[Tracked, ...] = ()

    @property
    def in_software(self) -> int:
        """Those that no NIC is known to carry."""
        return self.tracked - (self.in_hardware or 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One connection. ``original`` is the tuple of its first packet as conntrack(8) writes it, ``state`` the state of a
    TCP connection, "ASSURED", "REPLIED" or "UNREPLIED" of another."""

    protocol: str
    original: str
    zone: int
    state: str
    mark: int
    hardware: bool

    @property
    def text(self) -> str:
        """What words are looked for in."""
        place = "hardware" if self.hardware else "software"
        return f"{self.protocol} {self.original} zone={self.zone} mark={self.mark} {self.state} {place}".lower()


@dataclass(frozen=True, slots=True)
class Listing:
    """The connections that have all *words* in them, parts of words or more, in any order: how many there are, and the
    first few."""

    words: str
    matching: int
    entries: tuple[Entry, ...]
