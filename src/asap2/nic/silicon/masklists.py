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
from asap2.nic.silicon.map_sizes import Layout


@dataclass(eq=False, slots=True)
class MaskNode:
    """One mask of a list: record *index*, *rules* how many rules have it; *union*: the record of the list's union with
    it, until it is linked, where that is a new one."""

    index: int
    priority: int
    mask: bytes
    masks: MaskList
    rules: int = 0
    linked: bool = False
    union: int = 0


@dataclass(eq=False, slots=True)
class MaskList:
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
        # Never more than mask_list_of has room for: linking a list must not fail.
        limit = min(len(layout.mask_lists), layout.mask_list_of.max_entries + 1)
        self._indices = Indices(limit, "pairs of table and port", layout.grace_period)
        self._nodes = Indices(len(layout.nodes), "masks", layout.grace_period)
        self._by_place: dict[tuple[int, int], MaskList] = {}

    def masks(self, ovs: bool | None) -> int:
        """How many distinct masks rules have: in Open vSwitch tables, in TC chains, or (``None``) in both."""
        lists = (h for h in self._by_place.values() if ovs is None or bool(h.table >> 31) is ovs)
        return len({node.mask for masks in lists for node in masks.nodes})

    def hold(self, table: int, in_port: int, priority: int, mask: bytes) -> MaskNode:
        """The node for a rule, made where it is new, counted once more, and not yet linked. OSError ENOSPC."""
        masks = self._by_place.get((table, in_port)) or self._new_list(table, in_port)
        node = masks.by_mask.get((priority, mask))
        if node is None:
            node = self._new_node(masks, priority, mask)
            masks.by_mask[priority, mask] = node
        node.rules += 1
        return node

    def _new_node(self, masks: MaskList, priority: int, mask: bytes) -> MaskNode:
        taken: list[int] = []
        try:
            if len(masks.nodes) >= abi.MASKS:
                raise OSError(errno.ENOSPC, f"a table has at most {abi.MASKS} masks for one port")
            taken.append(self._nodes.take())
            node = MaskNode(taken[0], priority, mask, masks)
            union = masks.union | int.from_bytes(mask, "big")
            if union != masks.union or not masks.merged:
                taken.append(self._nodes.take())
                node.union = self._union_record(taken[1], masks, union)
        except OSError:
            for index in taken:
                self._nodes.give(index)
            self._forget_if_empty(masks)
            raise
        record = self._layout.nodes[node.index]
        record.list, record.priority, record.width = masks.index, priority, maps.width(mask)
        record.mask[:] = mask
        return node

    def publish(self, node: MaskNode) -> None:
        """After a rule was added under *node*: let packets find it. This cannot fail."""
        masks = node.masks
        if not node.linked:
            new = not masks.merged
            if node.union:
                self._set_union(masks, masks.union | int.from_bytes(node.mask, "big"), node.union)
                node.union = 0
            at = bisect_right(masks.nodes, node.priority, key=lambda n: n.priority)
            self._layout.nodes[node.index].next = masks.nodes[at].index if at < len(masks.nodes) else 0
            self._link(masks, at, node.index)
            masks.nodes.insert(at, node)
            masks.masks[node.mask] = masks.masks.get(node.mask, 0) + 1
            node.linked = True
            self._layout.mask_lists[masks.index].generation = self._layout.next_generation()
            if new:
                key = maps.word(masks.table) + maps.word(masks.in_port)
                self._layout.mask_list_of.update(key, maps.word(masks.index))
        else:
            self._layout.mask_lists[masks.index].generation = self._layout.next_generation()

    def changed(self, node: MaskNode) -> None:
        """After a rule under *node* was given other actions: what packets have noted of them is stale."""
        self._layout.mask_lists[node.masks.index].generation = self._layout.next_generation()

    def drop(self, node: MaskNode) -> None:
        """After a rule was removed from under *node*, or was not added after all."""
        masks = node.masks
        node.rules -= 1
        if not node.rules:
            del masks.by_mask[node.priority, node.mask]
            if node.union:
                self._nodes.give(node.union)
            if node.linked:
                at = masks.nodes.index(node, bisect_left(masks.nodes, node.priority, key=lambda n: n.priority))
                self._link(masks, at, self._layout.nodes[node.index].next)
                del masks.nodes[at]
                masks.masks[node.mask] -= 1
            self._nodes.give(node.index)
            if self._forget_if_empty(masks):
                return
            if node.linked and not masks.masks[node.mask]:
                del masks.masks[node.mask]
                self._narrow(masks)
        self._layout.mask_lists[masks.index].generation = self._layout.next_generation()

    def _narrow(self, masks: MaskList) -> None:
        """Take out of the union what no mask needs any more, if there is room: the cache serves more packets then."""
        union = 0
        for mask in masks.masks:
            union |= int.from_bytes(mask, "big")
        if union != masks.union:
            with contextlib.suppress(OSError):
                self._set_union(masks, union, self._union_record(self._nodes.take(), masks, union))

    def _link(self, masks: MaskList, at: int, index: int) -> None:
        """Let what precedes position *at* point to node *index*."""
        if at:
            self._layout.nodes[masks.nodes[at - 1].index].next = index
        else:
            self._layout.mask_lists[masks.index].first = index

    def _union_record(self, index: int, masks: MaskList, union: int) -> int:
        record = self._layout.nodes[index]
        mask = union.to_bytes(KEY_SIZE, "big")
        record.next, record.list, record.priority, record.width = 0, masks.index, 0, maps.width(mask)
        record.mask[:] = mask
        return index

    def _set_union(self, masks: MaskList, union: int, index: int) -> None:
        old, masks.merged, masks.union = masks.merged, index, union
        self._layout.mask_lists[masks.index].merged = index
        if old:
            self._nodes.give(old)

    def _new_list(self, table: int, in_port: int) -> MaskList:
        masks = MaskList(self._indices.take(), table, in_port)
        record = self._layout.mask_lists[masks.index]
        record.table, record.in_port, record.first, record.merged = table, in_port, 0, 0
        record.generation = self._layout.next_generation()
        self._by_place[table, in_port] = masks
        return masks

    def _forget_if_empty(self, masks: MaskList) -> bool:
        if masks.by_mask:
            return False
        del self._by_place[masks.table, masks.in_port]
        self._layout.mask_lists[masks.index].generation = 0
        if masks.merged:
            self._layout.mask_list_of.delete(maps.word(masks.table) + maps.word(masks.in_port))
            self._nodes.give(masks.merged)
        self._indices.give(masks.index)
        return True

    def restore(self) -> dict[int, MaskNode]:
        """Read every list from the maps: the linked nodes by index, with no rules yet."""
        nodes: dict[int, MaskNode] = {}
        used: set[int] = set()
        for key, value in self._layout.mask_list_of.items():
            record = self._layout.mask_lists[maps.number(value)]
            masks = MaskList(maps.number(value), maps.number(key), maps.number(key[4:]), record.merged)
            self._by_place[masks.table, masks.in_port] = masks
            if masks.merged:
                used.add(masks.merged)
                masks.union = int.from_bytes(bytes(self._layout.nodes[masks.merged].mask), "big")
            at = record.first
            while at:
                found = self._layout.nodes[at]
                node = MaskNode(at, found.priority, bytes(found.mask), masks, linked=True)
                masks.nodes.append(node)
                masks.masks[node.mask] = masks.masks.get(node.mask, 0) + 1
                masks.by_mask[node.priority, node.mask] = node
                nodes[at] = node
                at = found.next
        self._indices.restore(h.index for h in self._by_place.values())
        self._nodes.restore(used | nodes.keys())
        return nodes

    def sweep(self) -> None:
        """After :meth:`restore` and counting the rules: drop nodes without any, and make every list's cache stale."""
        for masks in list(self._by_place.values()):
            for node in [n for n in masks.nodes if not n.rules]:
                node.rules = 1
                self.drop(node)
            if not masks.by_mask:
                if (masks.table, masks.in_port) in self._by_place:
                    self._forget_if_empty(masks)
                continue
            self._layout.mask_lists[masks.index].generation = self._layout.next_generation()
