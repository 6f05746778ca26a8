# SPDX-License-Identifier: Apache-2.0
"""The linked lists of masks that packets walk, one for each (table, in port), in order of priority and age."""

from __future__ import annotations

import errno
from bisect import bisect_right
from dataclasses import dataclass, field

from asap2.nic.silicon import maps
from asap2.nic.silicon.indices import Indices
from asap2.nic.silicon.layout import Layout


@dataclass(eq=False, slots=True)
class MaskNode:
    """One mask of a list: record *index*, *rules* how many rules have it."""

    index: int
    priority: int
    mask: bytes
    head: Head
    rules: int = 0
    linked: bool = False


@dataclass(eq=False, slots=True)
class Head:
    """The list of one (table, in port): record *index*; *merged* is the record with the union of the masks."""

    index: int
    table: int
    in_port: int
    merged: int = 0
    union: int = 0
    nodes: list[MaskNode] = field(default_factory=list)
    by_mask: dict[tuple[int, bytes], MaskNode] = field(default_factory=dict)


class MaskLists:
    """All lists. A change becomes visible to packets by one store, and no record is changed while one can reach it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._heads = Indices(len(layout.heads), "pairs of table and port", layout.grace_period)
        self._nodes = Indices(len(layout.nodes), "masks", layout.grace_period)
        self._by_place: dict[tuple[int, int], Head] = {}

    def masks(self, ovs: bool | None) -> int:
        """How many distinct masks rules have: in Open vSwitch tables, in TC chains, or (``None``) in both."""
        heads = (h for h in self._by_place.values() if ovs is None or bool(h.table >> 31) is ovs)
        return len({node.mask for head in heads for node in head.nodes})

    def hold(self, table: int, in_port: int, priority: int, mask: bytes) -> MaskNode:
        """The node for a rule, made where it is new, counted once more, and not yet linked. OSError ENOSPC."""
        head = self._by_place.get((table, in_port)) or self._new_head(table, in_port)
        node = head.by_mask.get((priority, mask))
        if node is None:
            try:
                if len(head.nodes) >= maps.MAX_MASKS:
                    raise OSError(errno.ENOSPC, f"a table has at most {maps.MAX_MASKS} masks for one port")
                node = MaskNode(self._nodes.take(), priority, mask, head)
            except OSError:
                self._forget_if_empty(head)
                raise
            record = self._layout.nodes[node.index]
            record.head, record.priority = head.index, priority
            record.mask[:] = mask
            head.by_mask[priority, mask] = node
        node.rules += 1
        return node

    def publish(self, node: MaskNode) -> None:
        """After a rule was added under *node*: let packets find it."""
        head = node.head
        if not node.linked:
            at = bisect_right(head.nodes, node.priority, key=lambda n: n.priority)
            following = head.nodes[at].index if at < len(head.nodes) else 0
            self._layout.nodes[node.index].next = following
            if not head.merged:
                self._layout.head_of.update(
                    bytes(maps.word(head.table) + maps.word(head.in_port)), maps.word(head.index)
                )
            self._set_union(head, head.union | int.from_bytes(node.mask, "big"))
            self._link(head, at, node.index)
            head.nodes.insert(at, node)
            node.linked = True
        self._layout.heads[head.index].generation = self._layout.next_generation()

    def drop(self, node: MaskNode) -> None:
        """After a rule was removed from under *node*, or was not added after all."""
        head = node.head
        node.rules -= 1
        if not node.rules:
            del head.by_mask[node.priority, node.mask]
            if node.linked:
                at = head.nodes.index(node)
                self._link(head, at, self._layout.nodes[node.index].next)
                del head.nodes[at]
            self._nodes.give(node.index)
            if self._forget_if_empty(head):
                return
            if node.linked:
                union = 0
                for other in head.nodes:
                    union |= int.from_bytes(other.mask, "big")
                self._set_union(head, union)
        self._layout.heads[head.index].generation = self._layout.next_generation()

    def _link(self, head: Head, at: int, index: int) -> None:
        """Let what precedes position *at* point to node *index*."""
        if at:
            self._layout.nodes[head.nodes[at - 1].index].next = index
        else:
            self._layout.heads[head.index].first = index

    def _set_union(self, head: Head, union: int) -> None:
        if head.merged and union == head.union:
            return
        old, head.merged = head.merged, self._nodes.take()
        head.union = union
        record = self._layout.nodes[head.merged]
        record.next, record.head, record.priority = 0, head.index, 0
        record.mask[:] = union.to_bytes(maps.FIELDS_SIZE, "big")
        self._layout.heads[head.index].merged = head.merged
        if old:
            self._nodes.give(old)

    def _new_head(self, table: int, in_port: int) -> Head:
        head = Head(self._heads.take(), table, in_port)
        record = self._layout.heads[head.index]
        record.table, record.in_port, record.first, record.merged = table, in_port, 0, 0
        record.generation = self._layout.next_generation()
        self._by_place[table, in_port] = head
        return head

    def _forget_if_empty(self, head: Head) -> bool:
        if head.by_mask:
            return False
        del self._by_place[head.table, head.in_port]
        if head.merged:
            self._layout.head_of.delete(maps.word(head.table) + maps.word(head.in_port))
            self._nodes.give(head.merged)
        self._heads.give(head.index)
        return True

    def restore(self) -> dict[int, MaskNode]:
        """Read every list from the maps: the linked nodes by index, with no rules yet."""
        nodes: dict[int, MaskNode] = {}
        used: set[int] = set()
        for key, value in self._layout.head_of.items():
            record = self._layout.heads[maps.number(value)]
            head = Head(maps.number(value), maps.number(key), maps.number(key[4:]), record.merged)
            self._by_place[head.table, head.in_port] = head
            if head.merged:
                used.add(head.merged)
                head.union = int.from_bytes(bytes(self._layout.nodes[head.merged].mask), "big")
            at = record.first
            while at:
                found = self._layout.nodes[at]
                node = MaskNode(at, found.priority, bytes(found.mask), head, linked=True)
                head.nodes.append(node)
                head.by_mask[node.priority, node.mask] = node
                nodes[at] = node
                at = found.next
        self._heads.restore(h.index for h in self._by_place.values())
        self._nodes.restore(used | nodes.keys())
        return nodes

    def sweep(self) -> None:
        """After :meth:`restore` and counting the rules: drop nodes without any, and make every list's cache stale."""
        for head in list(self._by_place.values()):
            for node in [n for n in head.nodes if not n.rules]:
                node.rules = 1
                self.drop(node)
            if not head.by_mask:
                if (head.table, head.in_port) in self._by_place:
                    self._forget_if_empty(head)
                continue
            self._layout.heads[head.index].generation = self._layout.next_generation()
