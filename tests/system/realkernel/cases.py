# SPDX-License-Identifier: Apache-2.0
"""Random cases: filters come and go on some ports, frames come in between."""

from __future__ import annotations

from random import Random

from tests.system.realkernel import flows, frames
from tests.system.realkernel.actions import actions
from tests.system.realkernel.machine import Ask, Step, send


def case(random: Random) -> list[Step]:
    """One case. It begins and ends without qdiscs, and asks for all filters before its end."""
    ports = random.sample(range(3), random.choice((1, 1, 2)))
    seen = [frames.frame(random) for _ in range(random.randint(1, 5))]
    steps: list[Step] = [flows.add_qdisc(port) for port in ports]
    protocols: dict[tuple[int, int, int], int] = {}
    added: list[Ask] = []
    for _ in range(random.choice((1, 1, 2))):
        for _ in range(random.randint(1, 5)):
            added.append(flows.add_filter(random, random.choice(ports), seen, protocols))
            steps.append(added[-1])
        if random.random() < 0.3:
            steps.append(_change(random, random.choice(added)))
        steps += [send(random.choice(ports), random.choice(seen)) for _ in range(random.randint(1, 8))]
    steps += [flows.dump(port) for port in ports]
    return steps + [flows.remove_qdisc(port) for port in ports]


def _change(random: Random, request: Ask) -> Step:
    """A filter less, or another action for it."""
    handle = random.choice((0, 1, 1, 2))
    if random.random() < 0.5:
        return flows.remove(request, handle)
    return flows.rewrite(request, handle, actions(random, 3, 0))
