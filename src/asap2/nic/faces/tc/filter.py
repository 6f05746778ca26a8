# SPDX-License-Identifier: Apache-2.0
"""A filter as the node keeps it (struct cls_fl_filter of net/sched/cls_flower.c), and what it has counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc.counted import NOTHING, Counted
from asap2.nic.faces.tc.flower import FlowerKey, Identity
from asap2.nic.faces.tc.spec import SKIP_HW, Placed
from asap2.nic.faces.tc.templates import Template
from asap2.nic.rules import Ct, Decap, Goto, Pass, SetTunnel

_ETH_HLEN: Final = 14


@dataclass(slots=True)
class Filter:
    """One filter: what it matches and does, and where its rule is."""

    handle: int
    identity: Identity
    masks: tuple[tuple[str, int], ...]
    """What its key is, masked, and the masks."""
    classid: int | None
    flags: int
    listed: tuple[tc_actions.Listed, ...]
    steps: tuple[tc_actions.Step, ...]
    placed: tuple[Placed, ...]
    """Where the rule is: the eSwitch, the node's pipeline, or both where both see such packets: those in tunnels, and
    of internal ports, whose own packets are the node's."""
    made_ns: int = 0
    first_ns: int = 0
    record: bytes = b""
    """Where the journal keeps it."""
    before: Counted = NOTHING
    """What its rule had counted when the filter took the place of another: new actions count from 0."""
    rank: int = 0
    """Its place among the filters of its priority."""
    request: bytes = b""
    """The payload of the request that made it, from struct tcmsg on."""
    template: Template | None = None
    indices: tuple[int, ...] = ()
    """The indices of its actions."""
    shared: bool = False
    """Whether an action of its is, or was, one that others may use too."""
    translated: FlowerKey | None = None
    """Its key, unless it was made from a template: then it is in the request."""
    hardware: Placed | None = field(init=False)
    """Its rule in the eSwitch."""

    def __post_init__(self) -> None:
        self.put_in(self.placed)

    def put_in(self, places: tuple[Placed, ...]) -> None:
        """Its rule is in these *places* now."""
        self.placed, self.hardware = places, None
        for placed in places:
            if placed.pf is not None:
                self.hardware = placed
                break

    @property
    def in_hw(self) -> bool:
        """Whether an eSwitch has the rule."""
        return self.hardware is not None

    @property
    def in_hw_count(self) -> int:
        """How many eSwitches have the rule."""
        return 0 if self.hardware is None else sum(placed.pf is not None for placed in self.placed)

    def state(self, counted: Counted) -> tc_actions.ActionState:
        """What its actions share, with what it has counted."""
        return tc_actions.ActionState(counted, self.made_ns, self.first_ns, self.in_hw, bool(self.flags & SKIP_HW))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its actions."""
        return self.template.kinds if self.template is not None else tuple(one.kind for one in self.listed)

    @property
    def key(self) -> FlowerKey:
        """Its key."""
        if self.translated is not None:
            return self.translated
        assert self.template is not None
        return self.template.key(self.request)

    @property
    def actions(self) -> tuple[tc_actions.Listed, ...]:
        """Its actions as they are given back."""
        if self.listed or self.template is None:
            return self.listed
        return self.template.read(self.request, self.indices)[1]

    @property
    def gives_back(self) -> bool:
        """Whether packets come to other filters in software: those that hardware gives to the host, or of connections
        that it does not carry, or those that a filter of software's alone sends to a chain."""
        what = Goto if self.hardware is None else tc_actions.Trap | Pass | Ct
        return any(isinstance(step, what) for step in tc_actions.flat(self.steps))


def is_tunnel(steps: tuple[tc_actions.Step, ...]) -> bool:
    """Whether packets are put into a tunnel."""
    return any(isinstance(step, SetTunnel) for step in tc_actions.flat(steps))


def uses_tunnel(steps: tuple[tc_actions.Step, ...]) -> bool:
    """Whether software takes over from hardware: where a neighbour is not known, or a packet came in fragments."""
    return any(isinstance(step, SetTunnel | Decap) for step in tc_actions.flat(steps))


def counted(filters: list[Filter]) -> list[Counted]:
    """What each filter has done, as TC counts: software without the Ethernet header, hardware with it."""
    by_pipeline: dict[int, list[tuple[int, Placed]]] = {}
    for index, one in enumerate(filters):
        for placed in one.placed:
            by_pipeline.setdefault(id(placed.pipeline), []).append((index, placed))
    out = [NOTHING] * len(filters)
    for wanted in by_pipeline.values():
        read = wanted[0][1].pipeline.counters([placed.handle for _, placed in wanted])
        for (index, placed), counters in zip(wanted, read, strict=True):
            one, software = filters[index], placed.pf is None
            if counters.packets and not one.first_ns:
                one.first_ns = counters.used_ns
            if software:
                octets = max(0, counters.bytes - _ETH_HLEN * counters.packets)
                done = Counted(counters.packets, octets, counters.used_ns)
            else:
                done = Counted.by_hardware(counters)
            out[index] = out[index].plus(done)
    return [counters.since(one.before) for one, counters in zip(filters, out, strict=True)]
