# SPDX-License-Identifier: Apache-2.0
"""TC actions as steps: actions of rules, and steps that become such actions, or are dropped, when a rule is placed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from asap2.nic.rules import Action, Ct, Decap, Psample, SetTunnel
from asap2.nic.silicon.metering import Limit


@dataclass(frozen=True, slots=True)
class Mirred:
    """Send to device ``ifindex``, into its receive path when ``ingress``; ``final`` for a redirect."""

    ifindex: int
    ingress: bool
    final: bool


@dataclass(frozen=True, slots=True)
class Trap:
    """Pass the packet to the host through the representor."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """The list ends without a verdict: the packet goes on to the network stack."""


@dataclass(frozen=True, slots=True)
class PacketType:
    """Take the packet for one of this type (PACKET_*), which changes nothing in a packet of a pipeline."""

    type: int


@dataclass(frozen=True, slots=True)
class Csum:
    """Compute the checksums of *headers* (TCA_CSUM_UPDATE_FLAG_*); the pipelines always keep them valid."""

    headers: int


@dataclass(frozen=True, slots=True)
class Beyond:
    """What no NIC takes, with the words in which the kernel refuses it (None: an error alone).

    *software*, where it is not empty, says that the node's pipeline cannot do it either.
    """

    hardware: str | None = None
    software: str = ""


NO_MARK: Final = Beyond("mlx5_core: Not implemented offload action")
"""What an eSwitch says of a mark, which a function's receive side can set: it stands before the mark, and is known by
its identity."""


@dataclass(frozen=True, slots=True)
class Continue:
    """Continue with the filters of the next priority; *anew*: with the first of the block's first chain."""

    anew: bool = False


@dataclass(frozen=True, slots=True)
class Police:
    """Check packets with the meter of action police *index*: do *exceeded* with those over the limit, and continue with
    the others. *limit* is the one that software applies; *exceed* and *conform* are the verdicts (TC_ACT_*)."""

    index: int
    limit: Limit
    exceed: int
    conform: int
    exceeded: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class AtRandom:
    """Do *instead* with packets that are chosen at random, so many of 2^32 (*probability*, of which the greatest stands
    for all; None: by counting), and continue with the others. No driver hears of it. *verdict* is that of *instead*
    (TC_ACT_*)."""

    probability: int | None
    verdict: int
    instead: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class PushLabel:
    """Push a label stack entry, which has the bottom bit if it is the only one."""

    lse: int
    ethertype: int


Step = Action | Mirred | Trap | GoOn | PacketType | Csum | Police | AtRandom | Continue | PushLabel | Beyond


def sampled(steps: tuple[Step, ...], ifindex: int, out: int = 0) -> tuple[Step, ...]:
    """*steps* as software samples packets that come in by device *ifindex*, or go *out* by another."""
    return tuple(
        replace(step, ifindex=ifindex, out=out)
        if isinstance(step, Psample)
        else replace(step, exceeded=sampled(step.exceeded, ifindex, out))
        if isinstance(step, Police)
        else replace(step, instead=sampled(step.instead, ifindex, out))
        if isinstance(step, AtRandom)
        else step
        for step in steps
    )


def sampled_first(steps: tuple[Step, ...], ifindex: int, tunnel: SetTunnel | None) -> tuple[Step, ...]:
    """*steps* as mlx5 samples packets, which come from device *ifindex*, out of a *tunnel*: before all other actions
    since the last that ends a part of a rule (en/tc/sample.c, mlx5e_tc_sample_offload()), without a number."""
    done: list[Step] = []
    start = 0
    for step in steps:
        if isinstance(step, Psample):
            done.insert(start, replace(step, ifindex=ifindex, tunnel=tunnel, counted=False))
            start = len(done)
            continue
        if isinstance(step, Police):
            step = replace(step, exceeded=sampled_first(step.exceeded, ifindex, tunnel))
        done.append(step)
        if isinstance(step, Police | Ct | Decap):
            start = len(done)
    return tuple(done)


def flat(steps: tuple[Step, ...]) -> Iterator[Step]:
    """*steps*, and the steps in them for packets over a limit, or chosen at random."""
    for step in steps:
        yield step
        if isinstance(step, Police):
            yield from flat(step.exceeded)
        elif isinstance(step, AtRandom):
            yield from flat(step.instead)
