# SPDX-License-Identifier: Apache-2.0
"""The program's table of ports: which slot each port id has."""

from __future__ import annotations

import struct

from asap2.nic.silicon import abi, maps
from asap2.nic.silicon.abi import LIMITS, STAGES
from asap2.nic.silicon.indices import Indices
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.ports import Deliver, Miss, Port, PortKind


class PortSlots:
    """Slots of ports that exist, and of ports that something refers to, existing or not.

    A packet for a port that does not exist is dropped and counted; when the port comes, the same rules serve it.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._slots = Indices(len(layout.ports), "ports", layout.grace_period)
        self._by_id: dict[int, int] = {}
        self._references: dict[int, int] = {}
        self._ports: dict[int, Port] = {}
        self._limits: dict[int, int] = {}

    @property
    def ports(self) -> dict[int, Port]:
        """The ports that exist, by id."""
        return dict(self._ports)

    def refer(self, port_id: int) -> int:
        """The slot of *port_id*, kept until :meth:`release`."""
        slot = self._by_id.get(port_id)
        if slot is None:
            slot = self._slots.take()
            record = self._layout.ports[slot]
            record.flags = 0
            record.id = port_id
            record.slot = slot
            record.ifindex = 0
            record.flags = abi.PORT_KNOWN
            self._by_id[port_id] = slot
            self._references[port_id] = 0
        self._references[port_id] += 1
        return slot

    def release(self, port_id: int) -> None:
        """Undo one :meth:`refer`."""
        self._references[port_id] -= 1
        if not self._references[port_id]:
            del self._references[port_id]
            slot = self._by_id.pop(port_id)
            self._layout.ports[slot].flags = 0
            self._slots.give(slot)

    def id_of(self, slot: int) -> int:
        """The port id of a slot in use."""
        number: int = self._layout.ports[slot].id
        return number

    def record(self, port_id: int) -> maps.PortRecord | None:
        """What the program has of a port that exists."""
        if port_id not in self._ports:
            return None
        record: maps.PortRecord = self._layout.ports[self._by_id[port_id]]
        return record

    def set(self, port: Port) -> None:
        """Make *port* exist, or change it. A field that stays the same is not touched."""
        old = self._ports.get(port.id)
        slot = self.refer(port.id)
        record = self._layout.ports[slot]
        if old is None:
            record.refused = record.delivered = record.failed = 0
            record.taken = record.given
        miss_slot = self.refer(port.miss_port) if port.miss is Miss.REDIRECT else 0
        tables = self._tables(port)
        if old and (old.ifindex, old.kind) != (port.ifindex, port.kind):
            record.flags &= ~abi.PORT_ENABLED
            self._forget_device(old)
        changes = {
            "kind": int(port.kind),
            "ifindex": port.ifindex,
            "miss_slot": miss_slot,
            "miss": int(port.miss),
            "tell": port.tell,
            "flags": _flags(port),
        }
        if bytes(record.mac) != port.mac:
            record.mac[:] = tuple(port.mac)
        self._set_tables(record, tables)
        for name, value in changes.items():
            if getattr(record, name) != value:
                setattr(record, name, value)
        reads = port.ifindex and not port.tell and port.kind is not PortKind.BONDED
        if reads and (old is None or old.ifindex != port.ifindex or old.kind != port.kind):
            self._layout.devs.update(maps.word(port.ifindex), maps.word(slot))
            self._set_near(port.ifindex, slot)
        self._ports[port.id] = port
        if old:
            self._release_references(old)

    def limit(self, port_id: int, more: int) -> None:
        """There are so many *more* rules in the table of limits for packets of a port, which has that table while there
        are any."""
        rules = self._limits[port_id] = self._limits.get(port_id, 0) + more
        if not rules:
            del self._limits[port_id]
        port = self._ports.get(port_id)
        if port is not None:
            self._set_tables(self._layout.ports[self._by_id[port_id]], self._tables(port))

    def _tables(self, port: Port) -> tuple[int, ...]:
        return (LIMITS, *port.tables) if port.id in self._limits else port.tables

    @staticmethod
    def _set_tables(record: maps.PortRecord, tables: tuple[int, ...]) -> None:
        """A packet that is between two tables goes on behind the one it was in, or tries a table twice, or misses one:
        once."""
        record.n_tables = min(record.n_tables, len(tables))
        padded = tables + (0,) * (STAGES - len(tables))
        if tuple(record.tables) != padded:
            record.tables[:] = list(padded)
        record.n_tables = len(tables)

    def remove(self, port_id: int) -> None:
        """Make the port not exist. KeyError when it does not."""
        port = self._ports.pop(port_id)
        record = self._layout.ports[self._by_id[port_id]]
        record.flags = abi.PORT_KNOWN
        self._forget_device(port)
        record.ifindex = 0
        self._release_references(port)

    def _release_references(self, port: Port) -> None:
        if port.miss is Miss.REDIRECT:
            self.release(port.miss_port)
        self.release(port.id)

    def _forget_device(self, port: Port) -> None:
        if not port.ifindex:
            return
        key = maps.word(port.ifindex)
        slot = self._layout.devs.lookup(key)
        if slot is not None and self.id_of(maps.number(slot)) == port.id:
            self._layout.devs.delete(key)
            self._set_near(port.ifindex, 0)

    def _set_near(self, ifindex: int, slot: int) -> None:
        """Let the program find the slot of a device without a hash: of those with the same low bits, the last."""
        struct.pack_into("=I", self._layout.near, ifindex % abi.NEAR * 4, slot)

    def restore(self) -> None:
        """Read everything from the maps. References by rules are for the caller to add again."""
        for slot in range(1, len(self._layout.ports)):
            record = self._layout.ports[slot]
            if record.flags & abi.PORT_KNOWN:
                self._by_id[record.id] = slot
                self._references[record.id] = 0
        self._slots.restore(self._by_id.values())
        for key, value in self._layout.devs.items():
            self._set_near(maps.number(key), maps.number(value))
        for port_id, slot in self._by_id.items():
            record = self._layout.ports[slot]
            if record.ifindex:
                self._ports[port_id] = _port(record, self.id_of(record.miss_slot))
        for port in self._ports.values():
            self.refer(port.id)
            if port.miss is Miss.REDIRECT:
                self.refer(port.miss_port)

    def sweep(self) -> None:
        """After :meth:`restore` and all references: give back what nothing refers to."""
        for port in self._ports.values():
            self._set_tables(self._layout.ports[self._by_id[port.id]], self._tables(port))
        for port_id in [p for p, n in self._references.items() if not n]:
            self._references[port_id] = 1
            self.release(port_id)


def _flags(port: Port) -> int:
    flags = abi.PORT_KNOWN
    flags |= abi.PORT_ENABLED if port.enabled else 0
    flags |= abi.PORT_INTERNAL if port.kind is PortKind.INTERNAL else 0
    flags |= abi.PORT_PEER if port.deliver is Deliver.PEER else 0
    flags |= abi.PORT_INGRESS if port.deliver is Deliver.INGRESS else 0
    flags |= abi.PORT_PEER_ANY if port.peer_any else 0
    flags |= abi.PORT_WIRE if port.kind is PortKind.UPLINK else 0
    flags |= abi.PORT_METADATA if port.metadata else 0
    flags |= abi.PORT_RESUME if port.resumes else 0
    flags |= abi.PORT_BEHIND if port.tell else 0
    flags |= abi.PORT_ARRIVED if port.kind is PortKind.NODE else 0
    flags |= abi.PORT_BARE if port.bare else 0
    flags |= abi.PORT_VEILED if port.veiled else 0
    flags |= port.tunnel_port << 16
    return flags


def _port(record: maps.PortRecord, miss_port: int) -> Port:
    deliver = Deliver.EGRESS
    if record.flags & abi.PORT_PEER:
        deliver = Deliver.PEER
    if record.flags & abi.PORT_INGRESS:
        deliver = Deliver.INGRESS
    miss = Miss(record.miss)
    return Port(
        record.id,
        record.ifindex,
        PortKind(record.kind),
        bytes(record.mac),
        deliver,
        tuple(table for table in record.tables[: record.n_tables] if table != LIMITS),
        miss,
        miss_port if miss is Miss.REDIRECT else 0,
        bool(record.flags & abi.PORT_ENABLED),
        bool(record.flags & abi.PORT_PEER_ANY),
        bool(record.flags & abi.PORT_METADATA),
        record.flags >> 16,
        bool(record.flags & abi.PORT_RESUME),
        record.tell,
        bool(record.flags & abi.PORT_BARE),
        bool(record.flags & abi.PORT_VEILED),
    )
