# SPDX-License-Identifier: Apache-2.0
"""What a browser is told: the structure when it changes, and the counters that have changed since the last time.

Messages are JSON objects with a key ``type``:

``structure``
    ``snapshot`` is a whole snapshot (docs/schemas/live.json) without counters and details.
``counters``
    ``taken``, seconds since 1970; ``ports``, the counters that have changed, by the port's place in the structure: a
    list of numbers in the order of :class:`asap2.live.Counters`; ``drops`` by the NIC's place: reasons and packets.
``detail``
    ``node``, and ``detail`` as in the schema.
``packets``
    ``ways`` of packets (docs/schemas/trace.json) after the one numbered ``since``; and of all of them: ``about``, which
    they are; ``lost`` and ``left_out``, how much is missing; ``trouble``, why no more come, or null.
``end``
    ``why`` there is nothing to see any more.
"""

from __future__ import annotations

import dataclasses
import json
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from asap2.host.records import to_data
from asap2.live import Counters, Detail, Snapshot, as_data
from asap2.live.host import without_counters

if TYPE_CHECKING:
    from asap2.view.packets import Packets

_numbers = attrgetter(*(one.name for one in dataclasses.fields(Counters)))


def structure(snapshot: Snapshot) -> str:
    """The message of a snapshot's structure."""
    return _text({"type": "structure", "snapshot": as_data(without_counters(snapshot))})


def detail(node: str, found: Detail, listed: str | None = None) -> str:
    """The message of a node's details, with the connections that have the words *listed*, and no others."""
    own = tuple(one for one in found.listings if one.words == listed)
    return _text({"type": "detail", "node": node, "detail": to_data(dataclasses.replace(found, listings=own))})


def packets(found: Packets, since: int) -> str:
    """The message of the ways of packets after the one numbered *since*."""
    about = {"about": found.about, "lost": found.lost, "left_out": found.left_out, "trouble": found.trouble}
    return _text({"type": "packets", "since": since, **about, "ways": found.since(since)})


def end(why: str) -> str:
    """The message that ends a stream."""
    return _text({"type": "end", "why": why})


def counters(snapshot: Snapshot, before: Snapshot | None) -> str:
    """The message of the counters of *snapshot* that differ from those of *before*, of the same structure; of all
    without it."""
    known = [port.counters for node in before.nodes for port in node.ports] if before is not None else []
    ports: dict[int, Any] = {}
    place = 0
    for node in snapshot.nodes:
        for port in node.ports:
            if place >= len(known) or known[place] != port.counters:
                ports[place] = _numbers(port.counters)
            place += 1
    old = [nic.drops for node in before.nodes for nic in node.nics] if before is not None else []
    drops: dict[int, Any] = {}
    for number, nic in enumerate(nic for node in snapshot.nodes for nic in node.nics):
        if number >= len(old) or old[number] != nic.drops:
            drops[number] = {one.reason: one.packets for one in nic.drops}
    return _text({"type": "counters", "taken": round(snapshot.taken, 4), "ports": ports, "drops": drops})


def _text(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
