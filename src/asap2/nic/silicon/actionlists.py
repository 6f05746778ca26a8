# SPDX-License-Identifier: Apache-2.0
"""Action lists in the program's memory: linked cells, and lists that end alike share them."""

from __future__ import annotations

from collections.abc import Sequence

from asap2.nic.rules import Action
from asap2.nic.silicon import maps
from asap2.nic.silicon.indices import Indices
from asap2.nic.silicon.layout import Layout
from asap2.nic.silicon.portslots import PortSlots


class ActionLists:
    """Each distinct list once, however many rules have it; cells never change while anything refers to them."""

    def __init__(self, layout: Layout, ports: PortSlots) -> None:
        self._layout = layout
        self._ports = ports
        self._cells = Indices(len(layout.cells), "actions", layout.grace_period)
        self._known: dict[tuple[int, int, int], int] = {}
        self._content: dict[int, tuple[int, int, int]] = {}
        self._references: dict[int, int] = {}

    def intern(self, actions: Sequence[Action]) -> int:
        """The cell that starts *actions*, 0 for none, kept until :meth:`release`. OSError ENOSPC."""
        cell = 0
        for op, arg in reversed(maps.encode_actions(actions)):
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

    def _new(self, content: tuple[int, int, int]) -> int:
        op, arg, following = content
        number = self._cells.take()
        if op == maps.OP_OUTPUT:
            try:
                arg = self._ports.refer(arg)
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
            if content[0] == maps.OP_OUTPUT:
                self._ports.release(content[1])
            self._cells.give(cell)
            cell = content[2]

    def read(self, cell: int) -> tuple[Action, ...]:
        """The list that starts at *cell*, from the program's memory."""
        actions = []
        while cell:
            record = self._layout.cells[cell]
            arg = self._ports.id_of(record.arg) if record.op == maps.OP_OUTPUT else record.arg
            actions.append(maps.decode_action(record.op, arg))
            cell = record.next
        return tuple(actions)

    def restore(self, starts: Sequence[int]) -> None:
        """Take over the lists that start at *starts*, one for each reference."""
        for start in starts:
            cell = start
            while cell:
                if cell in self._references:
                    self._references[cell] += 1
                    break
                record = self._layout.cells[cell]
                arg = record.arg
                if record.op == maps.OP_OUTPUT:
                    arg = self._ports.id_of(arg)
                    self._ports.refer(arg)
                content = (record.op, arg, record.next)
                self._known[content] = cell
                self._content[cell] = content
                self._references[cell] = 1
                cell = record.next
        self._cells.restore(self._references)
