# SPDX-License-Identifier: Apache-2.0
"""The flows of a datapath: by the name that user space gave them, by key, and by what overlaps.

As net/openvswitch/flow_table.c has them: an array of masks, and under each its flows by masked key.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.rules import Counters, Match


@dataclass(slots=True)
class Flow:
    """A flow: ``key``, masked, ``mask`` and ``actions`` are what user space is given back, ``exact`` its whole key.

    ``entry`` is the table and match of its rules in the pipeline, None when no packet can be like that. There is a rule
    for each port that it takes packets of: for one port, or for all where it does not match on ``in_port`` (None).
    ``checked`` is the key and the mask that its actions were checked for, where those are not its own: whoever changes
    a flow's actions may name it by its UFID and give another key (ovs_flow_cmd_set).
    ``handles`` are theirs. ``place`` is where a :class:`FlowTable` has the flow: mask and masked key as numbers
    (:func:`asap2.nic.faces.ovs.key.number`)."""

    ufid: bytes | None
    exact: bytes
    key: bytes
    mask: bytes
    actions: bytes
    in_port: int | None
    entry: tuple[int, Match] | None
    place: tuple[int, int]
    handles: tuple[int, ...] = ()
    cookies: tuple[int, ...] = ()
    base: Counters = field(default_factory=Counters)
    checked: tuple[bytes, bytes] | None = None

    @property
    def identity(self) -> bytes:
        """What user space names it by."""
        return self.ufid if self.ufid is not None else self.exact

    def takes_from(self, number: int) -> bool:
        """Whether it takes packets of port *number*."""
        return self.in_port is None or self.in_port == number


def written(match: ovs_key.FlowMatch) -> tuple[bytes, bytes]:
    """The whole key of *match* and its mask, as attributes."""
    return ovs_key.emit(match.key, match.key), ovs_key.emit(match.masked(), match.mask, is_mask=True)


def flow_of(ufid: bytes | None, match: ovs_key.FlowMatch, actions: bytes) -> Flow:
    """A flow as user space asks for it, without rules."""
    key = match.masked()
    exact, mask = written(match)
    return Flow(
        ufid,
        exact,
        ovs_key.emit(key, key),
        mask,
        actions,
        in_port_of(match),
        None,
        (ovs_key.number(match.mask), ovs_key.number(key)),
    )


def in_port_of(match: ovs_key.FlowMatch) -> int | None:
    """The port that a flow takes packets of; None: any."""
    return match.key["in_port"] if match.mask.get("in_port") else None


class FlowTable:
    """Flows, none of which has the identity of another."""

    def __init__(self) -> None:
        self._named: dict[bytes, Flow] = {}
        self._under: dict[int, dict[int, Flow]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._named)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self._named.values())

    @property
    def masks(self) -> int:
        """How many masks there are."""
        return len(self._order)

    def add(self, flow: Flow) -> None:
        """Add a flow, which no other is in the place of."""
        mask, key = flow.place
        self._named[flow.identity] = flow
        if mask not in self._under:
            self._under[mask] = {}
            self._order.append(mask)
        self._under[mask][key] = flow

    def remove(self, flow: Flow) -> None:
        """Remove a flow."""
        mask, key = flow.place
        del self._named[flow.identity]
        under = self._under[mask]
        if under.get(key) is flow:
            del under[key]
        if not under:
            # The last mask takes its place (tbl_mask_array_del_mask).
            del self._under[mask]
            at = self._order.index(mask)
            self._order[at] = self._order[-1]
            self._order.pop()

    def overlapping(self, key: int) -> Flow | None:
        """The first flow that a packet with *key*, as a number, would meet."""
        for mask in self._order:
            flow = self._under[mask].get(key & mask)
            if flow is not None:
                return flow
        return None

    def of(self, ufid: bytes | None, key: bytes | None) -> Flow | None:
        """The flow of *ufid* or, without one, of the whole *key*, if user space has named it by that."""
        identity = ufid if ufid is not None else key
        return self._named.get(identity) if identity is not None else None

    def to_change(self, ufid: bytes | None, match: ovs_key.FlowMatch, *, modify: bool) -> Flow | None:
        """The flow that a new one with that name and match is to change, ``None``: it is new (ovs_flow_cmd_new).

        EEXIST, without *modify*, when the name is taken, or a flow takes packets with the whole new key already; ENOENT
        when that is to be changed and has another key. What is compared with it is the masked key of a named flow.
        """
        found = self._named.get(ufid) if ufid is not None else None
        key = ovs_key.number(match.key)
        found = found or self.overlapping(key)
        if found is None:
            return None
        if not modify:
            raise NetlinkError(errno.EEXIST)
        if found.ufid is None:
            found = self._named.get(ovs_key.emit(match.key, match.key))
        elif found.place[1] != key:
            found = None
        if found is None:
            raise NetlinkError(errno.ENOENT)
        return found
