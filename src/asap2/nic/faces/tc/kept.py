# SPDX-License-Identifier: Apache-2.0
"""What of qdiscs, chains, filters and actions is kept over a daemon's restart: the records of its journal."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from asap2.netlink.tables.actions import ACTION
from asap2.nic.faces.refusal import as_netlink
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc.actions import Instance
from asap2.nic.faces.tc.blocks import Block, Proto
from asap2.nic.faces.tc.chain_templates import ChainTemplate
from asap2.nic.faces.tc.filter import Filter
from asap2.nic.journal import Journal

_QDISC = struct.Struct("=ci")
_SHARED = struct.Struct("=I")
"""The index of the block that a qdisc shares, or 0; its kind follows."""
_CHAIN = struct.Struct("=cq?I")
_PARENT = struct.Struct("=cq?")
_CLASSID = struct.Struct("=I")
_ACTION = struct.Struct("=cI")
_INSTANCE = struct.Struct("=QI?")
"""When made (ns), references that are not filters', whether a filter made it; an action's attributes follow."""
_FILTER = struct.Struct("=cq?III")
_MADE = struct.Struct("=QHHH")
"""When made (ns), protocol, rank, number of places that follow; then come the actions' indices, and the request."""
_PLACE = struct.Struct("=IIiH")
"""Rule handle, in-port, device, length of the place's name that follows."""


class KeptPlace(NamedTuple):
    """Where a filter's rule is: its :attr:`Placed.name` and the rest of it."""

    name: str
    handle: int
    in_port: int
    device: int


class KeptFilter(NamedTuple):
    """A filter's record."""

    record: bytes
    block: int
    """Its :attr:`Block.identity`."""
    egress: bool
    chain: int
    prio: int
    handle: int
    made_ns: int
    protocol: int
    rank: int
    places: tuple[KeptPlace, ...]
    indices: tuple[int, ...]
    request: bytes


class Kept:
    """The records, in the node's *journal*."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def reserve(self) -> None:
        """Refuse a change that could not be kept, before it is made."""
        with as_netlink():
            self.journal.reserve()

    # ---- writing

    def put_qdisc(self, ifindex: int, kind: str, shared: int) -> None:
        """Remember a device's qdisc, and which block it shares (0: none)."""
        self.journal.put(_QDISC.pack(b"q", ifindex), _SHARED.pack(shared) + kind.encode())

    def drop_qdisc(self, ifindex: int) -> None:
        """Forget it."""
        self.journal.delete(_QDISC.pack(b"q", ifindex))

    def put_parent(self, block: Block) -> None:
        """Remember by which parent filters were last put into a block."""
        self.journal.put(_PARENT.pack(b"p", block.identity, block.egress), _CLASSID.pack(block.parent))

    def drop_parent(self, block: Block) -> None:
        """Forget it."""
        self.journal.delete(_PARENT.pack(b"p", block.identity, block.egress))

    def put_chain(self, block: Block, chain: int, template: ChainTemplate | None) -> None:
        """Remember a chain that stays when it is empty."""
        key = _CHAIN.pack(b"c", block.identity, block.egress, chain)
        self.journal.put(key, template.request if template is not None else b"")

    def drop_chain(self, block: Block, chain: int) -> None:
        """Forget it."""
        self.journal.delete(_CHAIN.pack(b"c", block.identity, block.egress, chain))

    def put_action(self, kind: str, instance: Instance) -> None:
        """Remember an action that may be shared."""
        value = _INSTANCE.pack(instance.made_ns, instance.references - instance.bindings, instance.by_filter)
        self.journal.put(_ACTION.pack(b"a", instance.index) + kind.encode(), value + instance.request)

    def drop_action(self, kind: str, index: int) -> None:
        """Forget it."""
        self.journal.delete(_ACTION.pack(b"a", index) + kind.encode())

    def put_filter(self, proto: Proto, one: Filter) -> None:
        """Remember a filter."""
        block = proto.block
        one.record = _FILTER.pack(b"f", block.identity, block.egress, proto.chain, proto.prio, one.handle)
        value = _MADE.pack(one.made_ns, proto.protocol, one.rank, len(one.placed))
        for placed in one.placed:
            value += _PLACE.pack(placed.handle, placed.in_port, placed.device, len(name := placed.name)) + name
        indices = one.indices
        value += struct.pack(f"=B{len(indices)}I", len(indices), *indices)
        self.journal.put(one.record, value + one.request)

    def drop_filter(self, one: Filter) -> None:
        """Forget it."""
        self.journal.delete(one.record)

    # ---- reading

    def _of(self, letter: bytes) -> Iterator[tuple[bytes, bytes]]:
        return ((key, value) for key, value in self.journal.items() if key[:1] == letter)

    def qdiscs(self) -> Iterator[tuple[int, str, int]]:
        """Device, kind, and index of the block that is shared or 0, of each qdisc."""
        for key, value in self._of(b"q"):
            yield _QDISC.unpack(key)[1], value[_SHARED.size :].decode(), *_SHARED.unpack_from(value)

    def parents(self) -> Iterator[tuple[int, bool, int]]:
        """:attr:`Block.identity` and direction of a block, and the parent by which filters were last put there."""
        for key, value in self._of(b"p"):
            _, identity, egress = _PARENT.unpack(key)
            yield identity, egress, *_CLASSID.unpack(value)

    def chains(self) -> Iterator[tuple[int, bool, int, bytes]]:
        """:attr:`Block.identity`, direction, number, and the request for its template or nothing, of each chain."""
        for key, value in self._of(b"c"):
            _, identity, egress, chain = _CHAIN.unpack(key)
            yield identity, egress, chain, value

    def actions(self) -> Iterator[tuple[str, Instance]]:
        """Kind and action, with the references that are not filters', of each that may be shared."""
        for key, value in self._of(b"a"):
            _, index = _ACTION.unpack_from(key)
            made_ns, references, by_filter = _INSTANCE.unpack_from(value)
            request = value[_INSTANCE.size :]
            action = ACTION.decode(request)
            parsed = tc_actions.parse_one(action)
            yield action["kind"], Instance(index, parsed, request, made_ns, references, by_filter=by_filter)

    def filters(self) -> Iterator[KeptFilter]:
        """Each filter's record, in the order in which they were made."""
        for record, value in self._of(b"f"):
            _, identity, egress, chain, prio, handle = _FILTER.unpack(record)
            made_ns, protocol, rank, count = _MADE.unpack_from(value)
            at, places = _MADE.size, []
            for _ in range(count):
                rule_handle, in_port, device, length = _PLACE.unpack_from(value, at)
                at += _PLACE.size + length
                places.append(KeptPlace(value[at - length : at].decode(), rule_handle, in_port, device))
            indices = struct.unpack_from(f"={value[at]}I", value, at + 1)
            request = value[at + 1 + 4 * len(indices) :]
            where = record, identity, egress, chain, prio, handle
            yield KeptFilter(*where, made_ns, protocol, rank, tuple(places), indices, request)
