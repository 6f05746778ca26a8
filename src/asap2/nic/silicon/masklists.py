# SPDX-License-Identifier: Apache-2.0
"""The linked lists of masks that packets walk, one for each (table, in port), in order of priority and age."""

from __future__ import annotations

import contextlib
import errno
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from asap2.nic.fields import KEY_SIZE
from asap2.nic.silicon import abi, maps
from asap2.nic.silicon.indices import Indices
from asap2.nic.silicon.layout import Layout


@dataclass(eq=False, slots=True)
class MaskNode:
    """One mask of a list: record *index*, *rules* how many rules have it; *union*: the record of the list's union with
    it, until it is linked, where that is a new one."""

    index: int
    priority: int
    mask: bytes
    head: Head
    rules: int = 0
    linked: bool = False
    union: int = 0


@dataclass(eq=False, slots=True)
class Head:
    """The list of one (table, in port): record *index*; *merged* is the record with the union of the masks."""

    index: int
    table: int
    in_port: int
    merged: int = 0
    union: int = 0
    nodes: list[MaskNode] = field(default_factory=list)
    masks: dict[bytes, int] = field(default_factory=dict)
    """How many of them have each mask."""
    by_mask: dict[tuple[int, bytes], MaskNode] = field(default_factory=dict)


class MaskLists:
    """All lists. A change becomes visible to packets by one store, and no record is changed while one can reach it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        # Never more than head_of has room for: linking a list must not fail.
        limit = min(len(layout.heads), layout.head_of.max_entries + 1)
        self._heads = Indices(limit, "pairs of table and port", layout.grace_period)
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
            node = self._new_node(head, priority, mask)
            head.by_mask[priority, mask] = node
        node.rules += 1
        return node

    def _new_node(self, head: Head, priority: int, mask: bytes) -> MaskNode:
        taken: list[int] = []
        try:
            if len(head.nodes) >= abi.MASKS:
                raise OSError(errno.ENOSPC, f"a table has at most {abi.MASKS} masks for one port")
            taken.append(self._nodes.take())
            node = MaskNode(taken[0], priority, mask, head)
            union = head.union | int.from_bytes(mask, "big")
            if union != head.union or not head.merged:
                taken.append(self._nodes.take())
                node.union = self._union_record(taken[1], head, union)
        except OSError:
            for index in taken:
                self._nodes.give(index)
            self._forget_if_empty(head)
            raise
        record = self._layout.nodes[node.index]
        record.head, record.priority, record.wide = head.index, priority, maps.wide(mask)
        record.mask[:] = mask
        return node

    def publish(self, node: MaskNode) -> None:
        """After a rule was added under *node*: let packets find it. This cannot fail."""
        head = node.head
        if not node.linked:
            new = not head.merged
            if node.union:
                self._set_union(head, head.union | int.from_bytes(node.mask, "big"), node.union)
                node.union = 0
            at = bisect_right(head.nodes, node.priority, key=lambda n: n.priority)
            self._layout.nodes[node.index].next = head.nodes[at].index if at < len(head.nodes) else 0
            self._link(head, at, node.index)
            head.nodes.insert(at, node)
            head.masks[node.mask] = head.masks.get(node.mask, 0) + 1
            node.linked = True
            self._layout.heads[head.index].generation = self._layout.next_generation()
            if new:
                self._layout.head_of.update(maps.word(head.table) + maps.word(head.in_port), maps.word(head.index))
        else:
            self._layout.heads[head.index].generation = self._layout.next_generation()

    def drop(self, node: MaskNode) -> None:
        """After a rule was removed from under *node*, or was not added after all."""
        head = node.head
        node.rules -= 1
        if not node.rules:
            del head.by_mask[node.priority, node.mask]
            if node.union:
                self._nodes.give(node.union)
            if node.linked:
                at = head.nodes.index(node, bisect_left(head.nodes, node.priority, key=lambda n: n.priority))
                self._link(head, at, self._layout.nodes[node.index].next)
                del head.nodes[at]
                head.masks[node.mask] -= 1
            self._nodes.give(node.index)
            if self._forget_if_empty(head):
                return
            if node.linked and not head.masks[node.mask]:
                del head.masks[node.mask]
                self._narrow(head)
        self._layout.heads[head.index].generation = self._layout.next_generation()

    def _narrow(self, head: Head) -> None:
        """Take out of the union what no mask needs any more, if there is room: the cache serves more packets then."""
        union = 0
        for mask in head.masks:
            union |= int.from_bytes(mask, "big")
        if union != head.union:
            with contextlib.suppress(OSError):
                self._set_union(head, union, self._union_record(self._nodes.take(), head, union))

    def _link(self, head: Head, at: int, index: int) -> None:
        """Let what precedes position *at* point to node *index*."""
        if at:
            self._layout.nodes[head.nodes[at - 1].index].next = index
        else:
            self._layout.heads[head.index].first = index

    def _union_record(self, index: int, head: Head, union: int) -> int:
        record = self._layout.nodes[index]
        mask = union.to_bytes(KEY_SIZE, "big")
        record.next, record.head, record.priority, record.wide = 0, head.index, 0, maps.wide(mask)
        record.mask[:] = mask
        return index

    def _set_union(self, head: Head, union: int, index: int) -> None:
        old, head.merged, head.union = head.merged, index, union
        self._layout.heads[head.index].merged = index
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
        self._layout.heads[head.index].generation = 0
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
                head.masks[node.mask] = head.masks.get(node.mask, 0) + 1
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
