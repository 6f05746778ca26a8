# SPDX-License-Identifier: Apache-2.0
"""Makes a program that differs small: what is not needed for a difference goes, until nothing more can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from asap2.nic.rules import ANY
from tests.system.nic.silicon.steps import Add, Replace, Send, SetPorts, Step

Differs = Callable[[Sequence[Step]], bool]

_PLAIN_SEND = Send(b"")


def shrink(steps: Sequence[Step], differs: Differs) -> list[Step]:
    """A part of *steps* that still *differs*, simpler in its steps too."""
    small = _fewer(list(steps), differs)
    again = True
    while again:
        again = False
        for at in range(len(small)):
            for simpler in _simpler(small[at]):
                tried = [*small[:at], simpler, *small[at + 1 :]]
                if differs(tried):
                    small, again = tried, True
                    break
        fewer = _fewer(small, differs)
        again = again or len(fewer) < len(small)
        small = fewer
    return small


def _fewer(steps: list[Step], differs: Differs) -> list[Step]:
    """Without the steps that can go: first many at a time, then each. Ports are made first, so the first step stays."""
    size = len(steps) // 2
    while size:
        at = 1
        while at < len(steps):
            tried = steps[:at] + steps[at + size :]
            if differs(tried):
                steps = tried
            else:
                at += size
        size //= 2
    return steps


def _simpler(step: Step) -> Iterator[Step]:
    """Steps that say a little less."""
    match step:
        case Send():
            for name in ("segments", "in_metadata", "flow_hash", "came_in", "resume"):
                if getattr(step, name) != getattr(_PLAIN_SEND, name):
                    yield replace(step, **{name: getattr(_PLAIN_SEND, name)})
            for shorter in (len(step.frame) // 2, len(step.frame) - 8, len(step.frame) - 1):
                if shorter >= 15:
                    yield replace(step, frame=step.frame[:shorter])
        case Add(_, rule):
            for at in range(len(rule.actions)):
                yield replace(step, rule=replace(rule, actions=rule.actions[:at] + rule.actions[at + 1 :]))
            for name in rule.match.used():
                yield replace(step, rule=replace(rule, match=rule.match.but(**{name: ANY})))
        case Replace(_, actions):
            for at in range(len(actions)):
                yield replace(step, actions=actions[:at] + actions[at + 1 :])
        case SetPorts(ports):
            for at, port in enumerate(ports):
                if len(port.tables) > 1:
                    yield replace(step, ports=(*ports[:at], replace(port, tables=port.tables[:-1]), *ports[at + 1 :]))
                if port.metadata:
                    yield replace(step, ports=(*ports[:at], replace(port, metadata=False), *ports[at + 1 :]))
