# SPDX-License-Identifier: Apache-2.0
"""Action lists in the program's memory: linked entries, and lists that end alike share them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from asap2.nic.layer_actions import PushNsh
from asap2.nic.rules import Action, Ct, CtHardware, Encap, Psample, SetTunnel
from asap2.nic.silicon import abi, actioncodes, maps
from asap2.nic.silicon.encaps import Encaps, Kept
from asap2.nic.silicon.indices import Indices
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.meters import Meters
from asap2.nic.silicon.portslots import PortSlots


class _List(NamedTuple):
    """An argument that names a list: the *entry* that starts it, 0 for the empty one, and the upper half."""

    entry: int
    parameter: int


_Argument = int | Encap | SetTunnel | PushNsh | Ct | CtHardware | Psample | _List
Content = tuple[int, _Argument, int]
"""What an entry holds: op, argument, and the entry that follows."""

_TO_PORTS = (abi.Op.OUTPUT, abi.Op.ENTER)
_LISTS = (abi.Op.CLONE, abi.Op.SAMPLE, abi.Op.CHECK_LENGTH, abi.Op.DEC_TTL, abi.Op.METER, abi.Op.CHANCE)
_PORT = 0xFFFF_FFFF
"""The part of their argument that names a port: by its id here, by its slot in the program's memory."""


class ActionLists:
    """Each distinct list once, however many rules have it; entries never change while anything refers to them."""

    def __init__(self, layout: Layout, ports: PortSlots, meters: Meters) -> None:
        self._layout = layout
        self._ports = ports
        self._meters = meters
        self._encaps = Encaps(layout)
        self._entries = Indices(len(layout.entries), "actions", layout.grace_period)
        self._known: dict[Content, int] = {}
        self._content: dict[int, Content] = {}
        self._references: dict[int, int] = {}

    def intern(self, actions: Sequence[Action]) -> int:
        """The entry that starts *actions*, 0 for none, kept until :meth:`release`. OSError ENOSPC."""
        return self._intern(actioncodes.encode_actions(actions))

    def _intern(self, codes: Sequence[actioncodes.Code]) -> int:
        entry = 0
        for op, argument in reversed(codes):
            arg: _Argument
            if isinstance(argument, actioncodes.Nested):
                try:
                    arg = _List(self._intern(argument.codes), argument.parameter)
                except OSError:
                    self.release(entry)
                    raise
            else:
                arg = argument
            content = (op, arg, entry)
            known = self._known.get(content)
            if known is None:
                try:
                    known = self._new(content)
                except OSError:
                    self.release(entry)
                    if isinstance(arg, _List):
                        self.release(arg.entry)
                    raise
            else:
                # The list that starts there holds its rest already.
                self._drop_reference(entry)
                if isinstance(arg, _List):
                    self._drop_reference(arg.entry)
            self._references[known] += 1
            entry = known
        return entry

    def content(self, entry: int) -> Content | None:
        """What *entry* holds now; None for 0, the empty list."""
        return self._content.get(entry)

    def hold(self, entry: int, content: Content | None) -> bool:
        """Intern once more the list that starts at *entry*, if that still holds the very *content* that it did."""
        if self._content.get(entry) is not content:
            return False
        if entry:
            self._references[entry] += 1
        return True

    def kept(self, slot: int) -> Kept | None:
        """What a slot holds; None: nothing."""
        return self._encaps.read(slot) if self._encaps.holds(slot) else None

    def take_tunnel(self, tunnel: SetTunnel) -> int:
        """A slot that holds *tunnel*, until :meth:`give_tunnel`. OSError ENOSPC."""
        return self._encaps.take(tunnel)

    def give_tunnel(self, slot: int) -> None:
        """Undo :meth:`take_tunnel`."""
        self._encaps.give(slot)

    def _new(self, content: Content) -> int:
        op, arg, following = content
        number = self._entries.take()
        try:
            if isinstance(arg, _List):
                if op == abi.Op.METER:
                    self._meters.hold(arg.parameter)
                arg = arg.parameter << 32 | arg.entry
            elif not isinstance(arg, int):
                arg = self._encaps.take(arg)
            elif op in _TO_PORTS:
                arg = arg & ~_PORT | self._ports.refer(arg & _PORT)
        except OSError:
            self._entries.give(number)
            raise
        record = self._layout.entries[number]
        record.next, record.op, record.arg = following, op, arg
        self._known[content] = number
        self._content[number] = content
        self._references[number] = 0
        return number

    def _drop_reference(self, entry: int) -> None:
        if entry:
            self._references[entry] -= 1

    def release(self, entry: int) -> None:
        """Undo one :meth:`intern`."""
        while entry:
            self._references[entry] -= 1
            if self._references[entry]:
                return
            content = self._content.pop(entry)
            del self._known[content], self._references[entry]
            if isinstance(content[1], _List):
                if content[0] == abi.Op.METER:
                    self._meters.release(content[1].parameter)
                self.release(content[1].entry)
            elif not isinstance(content[1], int):
                self._encaps.give(self._layout.entries[entry].arg)
            elif content[0] in _TO_PORTS:
                self._ports.release(content[1] & _PORT)
            self._entries.give(entry)
            entry = content[2]

    def read(self, entry: int) -> tuple[Action, ...]:
        """The list that starts at *entry*, from the program's memory."""
        return actioncodes.decode_actions(self._codes(entry))

    def _codes(self, entry: int) -> list[actioncodes.Code]:
        codes: list[actioncodes.Code] = []
        while entry:
            record = self._layout.entries[entry]
            arg = self._argument(record)
            if isinstance(arg, _List):
                codes.append((record.op, actioncodes.Nested(tuple(self._codes(arg.entry)), arg.parameter)))
            else:
                codes.append((record.op, arg))
            entry = record.next
        return codes

    def _argument(self, record: maps.EntryRecord) -> _Argument:
        if record.op in _TO_PORTS:
            return record.arg & ~_PORT | self._ports.id_of(record.arg & _PORT)
        if record.op in (
            abi.Op.ENCAP,
            abi.Op.SET_TUNNEL,
            abi.Op.PUSH_NSH,
            abi.Op.CT,
            abi.Op.CT_HARDWARE,
            abi.Op.PSAMPLE,
        ):
            return self._encaps.read(record.arg)
        if record.op in _LISTS:
            return _List(record.arg & _PORT, record.arg >> 32)
        return record.arg

    def restore(self, starts: Sequence[int]) -> None:
        """Take over the lists that start at *starts*, one for each reference."""
        tunnels: set[int] = set()
        waiting = list(starts)
        while waiting:
            entry = waiting.pop()
            while entry:
                if entry in self._references:
                    self._references[entry] += 1
                    break
                record = self._layout.entries[entry]
                arg = self._argument(record)
                if isinstance(arg, _List):
                    if record.op == abi.Op.METER:
                        self._meters.hold(arg.parameter)
                    waiting.append(arg.entry)
                elif not isinstance(arg, int):
                    tunnels.add(record.arg)
                elif record.op in _TO_PORTS:
                    self._ports.refer(arg & _PORT)
                content = (record.op, arg, record.next)
                self._known[content] = entry
                self._content[entry] = content
                self._references[entry] = 1
                entry = record.next
        self._entries.restore(self._references)
        self._encaps.restore(tunnels)
