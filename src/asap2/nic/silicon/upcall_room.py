# SPDX-License-Identifier: Apache-2.0
"""What each port of the reference eSwitch has on its way to user space: :mod:`.upcall_accounts` in plain Python."""

from __future__ import annotations

from asap2.nic.silicon.abi import UPCALL_UNIT


class UpcallRoom:
    """A port gives user space a packet only while it has less than :attr:`limit` units on their way there: those of
    packets that user space is not done with. A packet is one unit, and one more for each :data:`.abi.UPCALL_UNIT` bytes
    of it. An eighth more is for packets of ARP and neighbour discovery. There may not be *anybody* who takes them."""

    def __init__(self, *, anybody: bool) -> None:
        self._anybody = anybody
        self.limit = 0
        """Units that each port may have on their way; 0: any number."""
        self._on_their_way: dict[int, int] = {}
        self._lost: dict[int, int] = {}

    def take(self, port_id: int, octets: int, *, about_neighbours: bool) -> bool:
        """A packet of so many *octets* is to go to user space; False: there is no room."""
        on_their_way = self._on_their_way.get(port_id, 0)
        room = self.limit + (-(-self.limit // 8) if about_neighbours else 0)
        if not self._anybody or 0 < room <= on_their_way:
            self.lose(port_id)
            return False
        self._on_their_way[port_id] = on_their_way + 1 + octets // UPCALL_UNIT
        return True

    def lose(self, port_id: int, packets: int = 1) -> None:
        """User space does not get so many of a port."""
        self._lost[port_id] = self.lost(port_id) + packets

    def lost(self, port_id: int) -> int:
        """Packets of a port that user space should have got, and did not."""
        return self._lost.get(port_id, 0)

    def forget(self, port_id: int) -> None:
        """There is no such port any more."""
        self._on_their_way.pop(port_id, None)
        self._lost.pop(port_id, None)

    def restart(self) -> None:
        """Another process takes user space's part: what was on its way is lost."""
        for port_id, units in self._on_their_way.items():
            self.lose(port_id, units)
        self._on_their_way.clear()
