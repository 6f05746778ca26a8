# SPDX-License-Identifier: Apache-2.0
"""Many conversations through a real kernel's tracker and ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from tests.system.realkernel import ct_cases, ct_compare, ct_guest
from tests.system.realkernel.ct_cases import Step
from tests.system.realkernel.machine import Kernel

BATCH, PACKETS = 200, 40
"""Conversations in one boot of the kernel, and packets of each."""


@dataclass
class Tally:
    """How many steps were compared, and what differs."""

    compared: int = 0
    differing: list[str] = field(default_factory=list)


def made(random: Random, count: int, packets: int) -> dict[str, list[Step]]:
    """Random conversations, each with its name."""
    return {f"conversation {number}": ct_cases.conversation(random, packets) for number in range(count)}


def compare(conversations: dict[str, Sequence[Step]] | dict[str, list[Step]]) -> Tally:
    """Have both sides see *conversations*."""
    cases = [[("conversation", [ct_cases.request(step) for step in steps])] for steps in conversations.values()]
    with Kernel(cases, program=ct_guest.__file__) as kernel:
        results = kernel.raw_results()
    tally = Tally()
    for (name, steps), (told,) in zip(conversations.items(), results, strict=True):
        found, compared = ct_compare.difference(steps, told)
        tally.compared += compared
        if found is not None:
            tally.differing.append(f"{name}, {found}")
        tally.differing += [f"{name}: not read as written: {step}" for step in steps if not ct_compare.as_read(step)]
    return tally
