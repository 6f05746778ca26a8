# SPDX-License-Identifier: Apache-2.0
"""Packets that user space hands in: new ones with their actions, and ones that go on where the program had to stop."""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from asap2.nic.rules import OVS_TABLE, Action, Ct, Match, SetTunnel
from asap2.nic.silicon import abi, actioncodes, maps
from asap2.nic.silicon.actionlists import ActionLists
from asap2.nic.silicon.encaps import Kept
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.portslots import PortSlots

_PASSING: Final = 64
"""So many action lists of packets that were handed in are kept for their fragments."""


class HandedIn(NamedTuple):
    """What becomes of a packet that user space hands in, as if it had come in by *port* and been looked up in *table*:
    the *actions* are done. What it does not show itself is given: the *tunnel* that it came in, *mark* and *priority*,
    the kernel's hash of its flow (``None``: the kernel computes it) and the hash that an action has computed. A *bare*
    packet begins with its network header; what stands in front of that is room for an Ethernet header."""

    actions: tuple[Action, ...]
    port: int
    table: int
    tunnel: SetTunnel | None = None
    mark: int = 0
    priority: int = 0
    dp_hash: int = 0
    skb_hash: int | None = None
    bare: bool = False
    tracked: Mapping[str, int] = MappingProxyType({})
    """Its ``ct_`` fields."""
    mru: int = 0
    """The length of the largest fragment that it was put together of; 0: it was not."""


class HandingIn:
    """The place in the program's memory that says what becomes of the packet that is handed in next."""

    def __init__(self, layout: Layout, actions: ActionLists, ports: PortSlots) -> None:
        self._layout = layout
        self._actions = actions
        self._ports = ports
        self._passing: deque[int] = deque()

    @contextlib.contextmanager
    def hand_in(self, way: HandedIn) -> Iterator[int]:
        """The mark of a packet that goes the *way* when it is transmitted on the device of
        :meth:`.Pipeline.attach_onward`.

        Raises :class:`OSError` as :meth:`.Pipeline.add`.
        """
        reason = actioncodes.unsupported(Match(), way.actions)
        if reason:
            raise OSError(errno.EOPNOTSUPP, reason)
        entry = self._actions.intern(way.actions)
        try:
            with self._on_its_way(way, entry) as mark:
                yield mark
        finally:
            if _tracks(way.actions):
                # A fragment may come back, and the whole packet goes on in the list.
                self._passing.append(entry)
                entry = self._passing.popleft() if len(self._passing) > _PASSING else 0
            if entry:
                self._actions.release(entry)

    @contextlib.contextmanager
    def hand_on(self, way: HandedIn, cookie: int) -> Iterator[int]:
        """As :meth:`hand_in`, of a packet that was put together of fragments: it is tracked as the *cookie* of its last
        one says, and goes on with the actions behind that, not with those of *way*."""
        with self._on_its_way(way, cookie & 0xFFFF_FFFF, cookie >> 32) as mark:
            yield mark

    def kept(self, slot: int) -> Kept | None:
        """The action in a slot that the program has named; None: there is none any more."""
        return self._actions.kept(slot)

    def port_of(self, cookie: int) -> int:
        """The port that a packet that is to be cut goes out of; 0: it is no more."""
        return self._ports.id_of(cookie & 0xFFFF_FFFF)

    @contextlib.contextmanager
    def _on_its_way(self, way: HandedIn, entry: int, tracking: int = 0) -> Iterator[int]:
        going = self._layout.continuation
        with contextlib.ExitStack() as held:
            going.entry, going.tracking = entry, tracking
            going.slot = self._ports.refer(way.port)
            held.callback(self._ports.release, way.port)
            going.tunnel = 0
            if way.tunnel is not None:
                going.tunnel = self._actions.take_tunnel(way.tunnel)
                held.callback(self._actions.give_tunnel, going.tunnel)
            stage = abi.LAST_STAGE if way.table & OVS_TABLE else 0
            going.table, going.stage, going.dp_hash = way.table, stage, way.dp_hash
            going.mark, going.priority = way.mark, way.priority
            going.hash, going.has_hash = way.skb_hash or 0, way.skb_hash is not None
            going.no_ethernet, going.mru = way.bare, way.mru
            going.tracked[:] = list(maps.encode_tracked(way.tracked))
            yield abi.CONTINUE_MARK


def _tracks(actions: tuple[Action, ...]) -> bool:
    """Whether connections are looked for."""
    return any(isinstance(action, Ct) or any(map(_tracks, actioncodes.lists_in(action))) for action in actions)
