# SPDX-License-Identifier: Apache-2.0
"""Which tunnels the NICs' rules have sent packets into."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.nic.faces.tc.actions import Mirred
from asap2.nic.faces.tc.filters import Filters
from asap2.nic.rules import Encap, SetTunnel


def used_since(filters: Filters, since_ns: int) -> Iterator[tuple[int, SetTunnel]]:
    """The tunnels that hardware has sent packets into since *since_ns* (CLOCK_MONOTONIC), each once: the tunnel
    device's ifindex and the tunnel."""
    found = set()
    for _, one in filters.all():
        into = [pair for pair in _tunnels(one.steps) if pair not in found] if one.in_hw else []
        for placed in one.placed if into else ():
            if placed.pf is None or placed.pipeline.counters([placed.handle])[0].used_ns <= since_ns:
                continue
            if any(isinstance(action, Encap) for action in placed.rule.actions):  # else it has left them to the host
                found.update(into)
                yield from into
                break


def _tunnels(steps: tuple[object, ...]) -> Iterator[tuple[int, SetTunnel]]:
    tunnel = None
    for step in steps:
        if isinstance(step, SetTunnel):
            tunnel = step
        elif isinstance(step, Mirred) and tunnel is not None:
            yield step.ifindex, tunnel
            tunnel = None
