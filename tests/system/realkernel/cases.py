# SPDX-License-Identifier: Apache-2.0
"""Random cases: filters come and go on some ports, frames come in between."""

from __future__ import annotations

from itertools import islice
from random import Random

from asap2.netlink.tables import tc
from asap2.netlink.tables.actions import Bitfield32
from asap2.netlink.tables.tc import RTM_DELCHAIN, RTM_GETCHAIN, RTM_NEWCHAIN
from tests.system.realkernel import flows, frames, rewrites
from tests.system.realkernel.actions import actions
from tests.system.realkernel.machine import Ask, Step, send

IN_PORTS = (0, 1, 2)
"""Ports that frames come in by; the others are only sent to."""


def case(random: Random) -> list[Step]:
    """One case. It begins and ends without qdiscs, and asks for all filters before its end."""
    ports = random.sample(IN_PORTS, random.choice((1, 1, 2)))
    flavour = random.random()
    if flavour < 0.15:
        whole = iter(lambda: frames.frame(random, damaged=False), b"")
        seen = [(frame, 0) for frame in islice(filter(rewrites.rewritable, whole), random.randint(1, 5))]
        scene = flows.Scene(random, [frame for frame, _ in seen], rewriting=True)
    elif flavour < 0.25:
        seen = [frames.super_packet(random) for _ in range(random.randint(1, 3))]
        scene = flows.Scene(random, [frame for frame, _ in seen], pushes=False)
    else:
        seen = [(frames.frame(random), 0) for _ in range(random.randint(1, 5))]
        scene = flows.Scene(random, [frame for frame, _ in seen])
    steps: list[Step] = [flows.add_qdisc(port) for port in ports]
    added: list[Ask] = []
    for _ in range(random.choice((1, 1, 2))):
        for _ in range(random.randint(1, 5)):
            added.append(scene.add_filter(random.choice(ports)))
            steps.append(added[-1])
        if random.random() < 0.3:
            steps.append(_change(scene, random.choice(added)))
        steps += [send(random.choice(ports), *random.choice(seen)) for _ in range(random.randint(1, 8))]
    if random.random() < 0.3:
        steps += _questions(random, random.choice(added), random.choice(ports))
    steps += [flows.dump(port) for port in ports]
    return steps + [flows.remove_qdisc(port) for port in ports]


def _questions(random: Random, request: Ask, port: int) -> list[Step]:
    """What programs ask beside dumps, and what they do with chains."""
    asked: list[Step] = [
        flows.get(request, random.choice((0, 1, 2, 9))),
        flows.dump(port, dump_flags=Bitfield32(1, 1)),
        flows.dump(port, chain=random.choice((0, 1, 7, 9))),
        flows.dump(port, tc.info(random.choice((0, 1, 2, 9)), random.choice((0, 0, 3, 0x0800, 0x8100)))),
        flows.chain(random.choice((RTM_NEWCHAIN, RTM_DELCHAIN, RTM_GETCHAIN)), port, random.choice((0, 1, 7, 9))),
        flows.chain(RTM_GETCHAIN, port, random.choice((0, 1, 7, 9))),
    ]
    return random.sample(asked, random.randint(1, 3))


def _change(scene: flows.Scene, request: Ask) -> Step:
    """A filter less, or another action for it."""
    handle = scene.random.choice((0, 1, 1, 2))
    if scene.random.random() < 0.5:
        return flows.remove(request, handle)
    return flows.rewrite(request, handle, actions(scene.random, 3, 0, pushes=scene.pushes))
