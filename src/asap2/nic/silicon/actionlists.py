# SPDX-License-Identifier: Apache-2.0
"""Action lists in the program's memory: linked cells, and lists that end alike share them."""

from __future__ import annotations

from collections.abc import Sequence

from asap2.nic.rules import Action
from asap2.nic.silicon import actioncodes, maps
from asap2.nic.silicon.encaps import Encaps
from asap2.nic.silicon.indices import Indices
from asap2.nic.silicon.layout import Layout
from asap2.nic.silicon.portslots import PortSlots

Content = tuple[int, actioncodes.Argument, int]
"""What a cell holds: op, argument, and the cell that follows."""

_TO_PORTS = (maps.OP_OUTPUT, maps.OP_ENTER)
_PORT = 0xFFFF_FFFF
"""The part of their argument that names a port: by its id here, by its slot in the program's memory."""


class ActionLists:
    """Each distinct list once, however many rules have it; cells never change while anything refers to them."""

    def __init__(self, layout: Layout, ports: PortSlots) -> None:
        self._layout = layout
        self._ports = ports
        self._encaps = Encaps(layout)
        self._cells = Indices(len(layout.cells), "actions", layout.grace_period)
        self._known: dict[Content, int] = {}
        self._content: dict[int, Content] = {}
        self._references: dict[int, int] = {}

    def intern(self, actions: Sequence[Action]) -> int:
        """The cell that starts *actions*, 0 for none, kept until :meth:`release`. OSError ENOSPC."""
        cell = 0
        for op, arg in reversed(actioncodes.encode_actions(actions)):
            content = (op, arg, cell)
            known = self._known.get(content)
            if known is None:
                try:
                    known = self._new(content)
                except OSError:
                    self.release(cell)
                    raise
            else:
                # The list that starts there holds its rest already.
                self._drop_reference(cell)
            self._references[known] += 1
            cell = known
        return cell

    def content(self, cell: int) -> Content | None:
        """What *cell* holds now; None for 0, the empty list."""
        return self._content.get(cell)

    def hold(self, cell: int, content: Content | None) -> bool:
        """Intern once more the list that starts at *cell*, if that still holds the very *content* that it did."""
        if self._content.get(cell) is not content:
            return False
        if cell:
            self._references[cell] += 1
        return True

    def _new(self, content: Content) -> int:
        op, arg, following = content
        number = self._cells.take()
        try:
            if not isinstance(arg, int):
                arg = self._encaps.take(arg)
            elif op in _TO_PORTS:
                arg = arg & ~_PORT | self._ports.refer(arg & _PORT)
        except OSError:
            self._cells.give(number)
            raise
        record = self._layout.cells[number]
        record.next, record.op, record.arg = following, op, arg
        self._known[content] = number
        self._content[number] = content
        self._references[number] = 0
        return number

    def _drop_reference(self, cell: int) -> None:
        if cell:
            self._references[cell] -= 1

    def release(self, cell: int) -> None:
        """Undo one :meth:`intern`."""
        while cell:
            self._references[cell] -= 1
            if self._references[cell]:
                return
            content = self._content.pop(cell)
            del self._known[content], self._references[cell]
            if not isinstance(content[1], int):
                self._encaps.give(self._layout.cells[cell].arg)
            elif content[0] in _TO_PORTS:
                self._ports.release(content[1] & _PORT)
            self._cells.give(cell)
            cell = content[2]

    def read(self, cell: int) -> tuple[Action, ...]:
        """The list that starts at *cell*, from the program's memory."""
        actions: list[Action] = []
        while cell:
            record = self._layout.cells[cell]
            actions += actioncodes.decode_action(record.op, self._argument(record))
            cell = record.next
        return tuple(actions)

    def _argument(self, record: maps.CellRecord) -> actioncodes.Argument:
        if record.op in _TO_PORTS:
            return record.arg & ~_PORT | self._ports.id_of(record.arg & _PORT)
        if record.op in (maps.OP_ENCAP, maps.OP_SET_TUNNEL):
            return self._encaps.read(record.arg)
        return record.arg

    def restore(self, starts: Sequence[int]) -> None:
        """Take over the lists that start at *starts*, one for each reference."""
        tunnels: set[int] = set()
        for start in starts:
            cell = start
            while cell:
                if cell in self._references:
                    self._references[cell] += 1
                    break
                record = self._layout.cells[cell]
                arg = self._argument(record)
                if not isinstance(arg, int):
                    tunnels.add(record.arg)
                elif record.op in _TO_PORTS:
                    self._ports.refer(arg & _PORT)
                content = (record.op, arg, record.next)
                self._known[content] = cell
                self._content[cell] = content
                self._references[cell] = 1
                cell = record.next
        self._cells.restore(self._references)
        self._encaps.restore(tunnels)
