# SPDX-License-Identifier: Apache-2.0
"""Where a node's pipeline goes on with packets that a NIC's did not finish.

Each place has a number, which the NIC gives with the packet, as mlx5 maps chains to values of metadata register c0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from asap2.nic.silicon import abi
from asap2.nic.silicon.indices import Indices
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.portslots import PortSlots

DELIVER = abi.DELIVER
_RESUME = struct.Struct("=IIII")
_NOWHERE = (DELIVER, 0)
"""Table and slot of a number that is no more: a packet that is still on its way with it is dropped."""


class Resumes:
    """The places of one node. A number is given for good, until :meth:`keep` says which are in use."""

    def __init__(self, layout: Layout, ports: PortSlots) -> None:
        self._layout = layout
        self._ports = ports
        self._numbers: dict[tuple[int, int], int] = {}
        self._held: set[int] = set()
        self._within: dict[int, tuple[int, int]] = {}
        """Port and entry of each number for going on within a rule's actions."""
        self._free = Indices(len(layout.resumes), "places to go on at", layout.grace_period)

    def at(self, table: int, port: int = 0) -> int:
        """The number for going on at *table* as a packet that came in by *port* (0: by where it is); for the table
        :data:`DELIVER`, for delivery to *port*. OSError ENOSPC."""
        place = (table, port)
        number = self._numbers.get(place)
        if number is None:
            number = self._free.take()
            try:
                slot = self._ports.refer(port) if port else 0
            except OSError:
                self._free.give(number)
                raise
            record = self._layout.resumes[number]
            record.table, record.slot = table, slot
            self._numbers[place] = number
        return number

    def hold(self, table: int, port: int = 0) -> int:
        """As :meth:`at`, until :meth:`give_back`."""
        number = self.at(table, port)
        self._held.add(number)
        return number

    def give_back(self, table: int, port: int = 0) -> None:
        """Undo :meth:`hold`, or :meth:`at`; nothing when there is no such number."""
        number = self._numbers.get((table, port))
        if number is not None:
            self._held.discard(number)
            self._give(table, port)

    def begin(self, rule: int, table: int, port: int, entry: int) -> int:
        """A number for going on with the action list at *entry*, within the *rule* of a *table*, as a packet that came
        in by *port*, until :meth:`end`. OSError ENOSPC."""
        number = self._free.take()
        try:
            slot = self._ports.refer(port)
        except OSError:
            self._free.give(number)
            raise
        record = self._layout.resumes[number]
        record.table, record.slot, record.rule, record.entry = table, slot, rule, entry
        self._within[number] = port, entry
        return number

    def change(self, number: int, entry: int) -> int:
        """Let packets with a number of :meth:`begin` go on with another list; the old one. KeyError."""
        port, old = self._within[number]
        self._within[number] = port, entry
        self._layout.resumes[number].entry = entry
        return old

    def end(self, number: int) -> int:
        """Undo :meth:`begin`; the entry. KeyError."""
        port, entry = self._within.pop(number)
        record = self._layout.resumes[number]
        record.table, record.slot = _NOWHERE
        record.rule = record.entry = 0
        self._ports.release(port)
        self._free.give(number)
        return entry

    @property
    def within(self) -> dict[int, int]:
        """The entry of each number of :meth:`begin`."""
        return {number: entry for number, (_, entry) in self._within.items()}

    @property
    def places(self) -> dict[int, tuple[int, int]]:
        """Table and port of each number of :meth:`at`."""
        return {number: place for place, number in self._numbers.items()}

    def rule_of(self, number: int) -> int:
        """The rule that packets with a number of :meth:`begin` go on within."""
        return int(self._layout.resumes[number].rule)

    def keep(self, used: Iterable[int]) -> None:
        """Take back every number that is neither in *used* nor held."""
        kept = self._held.union(used)
        for (table, port), number in list(self._numbers.items()):
            if number not in kept:
                self._give(table, port)

    def _give(self, table: int, port: int) -> None:
        number = self._numbers.pop((table, port))
        self._free.give(number)
        self._layout.resumes[number].table = self._layout.resumes[number].slot = 0
        if port:
            self._ports.release(port)

    def restore(self) -> None:
        """Read everything from the maps; after the ports."""
        for number, (table, slot, _, entry) in enumerate(_RESUME.iter_unpack(bytes(self._layout.resumes))):
            if (table or slot) and (table, slot) != _NOWHERE:
                port = self._ports.id_of(slot) if slot else 0
                if entry:
                    self._within[number] = port, entry
                else:
                    self._numbers[table, port] = number
                if port:
                    self._ports.refer(port)
        self._free.restore([*self._numbers.values(), *self._within])
