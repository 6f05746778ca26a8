# SPDX-License-Identifier: Apache-2.0
"""How much is given to each receiver of upcalls at once.

What waits in a receiver's socket is first in, first out, whosever it is. So little is put there when several ports have
something: the rest waits where it is served in turn (:mod:`.ovs_turns`). The packets of one port alone go by the batch,
since receivers are quicker then.
"""

from __future__ import annotations

from collections.abc import Callable

SHARED_ROOM, ROOM = 1, 32 << 10
"""Bytes, with the kernel's overhead: a receiver's socket gets another packet where fewer wait. That is one at a time
when several ports have packets, and about two dozen small ones when one port has."""
_OVERHEAD = 1024
"""The kernel's for one small message, about."""


class Receivers:
    """The sockets that upcalls go to; *waiting* gives the bytes in each by port id, None where that cannot be known."""

    def __init__(self, waiting: Callable[[], dict[int, int] | None]) -> None:
        self._waiting = waiting
        self._queued: dict[int, int] = {}
        self._looked = False

    def begin(self) -> None:
        """A new round of sending: look again at what waits."""
        self._looked = False

    def has_room(self, portid: int, room: int) -> bool:
        """Whether less than *room* waits at a receiver. One that is gone takes everything: who sends then learns of
        it."""
        if self._queued.get(portid, room) < room:
            return True
        if not self._looked:
            self._looked = True
            self._queued = self._waiting() or {}
        return self._queued.get(portid, 0) < room

    def sent(self, portid: int, size: int) -> None:
        """A message of *size* bytes has been sent."""
        if portid in self._queued:
            self._queued[portid] += size + _OVERHEAD


def receiver_of(portids: tuple[int, ...], packet_hash: int, *, shared: bool, new: bool) -> int:
    """The port id among *portids* that a packet goes to; 0 for none.

    While ports compete for receivers (*shared*), one receiver is kept for packets of ports that have nothing else
    waiting (*new*): it is idle when they come.
    """
    if shared and len(portids) > 1:
        if new:
            return portids[-1]
        portids = portids[:-1]
    return portids[packet_hash % len(portids)] if portids else 0
