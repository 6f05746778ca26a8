# SPDX-License-Identifier: Apache-2.0
"""Many conversations through a real kernel's tracker and ours, by Open vSwitch's datapath and by TC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from tests.system.realkernel import ct_cases, ct_compare, ct_fragments, ct_ftp, ct_guest, ct_tc, machine
from tests.system.realkernel.ct_cases import Packet, Step
from tests.system.realkernel.machine import Kernel

_SHARE = 10
"""Conversations for each one of FTP, and for each one in fragments."""
BATCH, PACKETS = 200, 40
"""Conversations in one boot of the kernel, and packets of each."""


@dataclass
class Tally:
    """How many steps were compared, and what differs."""

    compared: int = 0
    differing: list[str] = field(default_factory=list)


def made(random: Random, count: int, packets: int) -> dict[str, list[Step]]:
    """Random conversations, each with its name."""
    talks = {f"conversation {number}": ct_cases.conversation(random, packets) for number in range(count)}
    for number in range(count // _SHARE):
        talks[f"FTP {number}"] = ct_ftp.conversation(random, packets)
        talks[f"fragments {number}"] = ct_fragments.conversation(random, packets)
    return talks


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


def made_for_tc(seed: int, numbers: range, packets: int) -> dict[str, machine.Case]:
    """Random conversations through TC's action ct; each depends on the *seed* and its own number."""
    return {f"TC conversation {number}": ct_tc.case(Random(f"{seed}/{number}"), packets) for number in numbers}


def named_for_tc(named: dict[str, list[Step]]) -> dict[str, machine.Case]:
    """Those of the *named* conversations in which no time passes, through TC's action ct."""
    packets = {name: [step for step in steps if isinstance(step, Packet)] for name, steps in named.items()}
    return {f"TC: {name}": ct_tc.case_of(some) for name, some in packets.items() if len(some) == len(named[name])}


def compare_tc(cases: dict[str, machine.Case]) -> Tally:
    """Have both sides see the *cases*."""
    tally = Tally()
    for (name, case), result in zip(cases.items(), machine.run(list(cases.values())), strict=True):
        found, compared = ct_tc.difference(case, result)
        tally.compared += compared
        if found is not None:
            tally.differing.append(f"{name}, {found}")
    return tally
