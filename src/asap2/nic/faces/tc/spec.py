# SPDX-License-Identifier: Apache-2.0
"""What each stage of a filter's way hands to the next.

A request is decoded to :class:`Asked`, translated to :class:`FilterSpec`, judged by :mod:`.capability`, planned for a
pipeline as :class:`Planned`, and written there as :class:`Placed`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from asap2.netlink.codec import Attrs
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.port_ranges import PortRange, matches
from asap2.nic.faces.tc.steps import Step
from asap2.nic.function import Pf
from asap2.nic.rules import Action, CtHardware, Match, Rule
from asap2.nic.silicon.pipeline import Pipeline

SKIP_HW: Final = 1
SKIP_SW: Final = 2
IN_HW: Final = 4
NOT_IN_HW: Final = 8
VERBOSE: Final = 16
"""TCA_CLS_FLAGS_*."""
RECEIVE: Final = "/receive"


class Asked(NamedTuple):
    """A request for a filter, decoded: its *handle* (0: any), its *options*, and whether it may add, or only add."""

    handle: int
    options: Attrs
    payload: bytes
    """The request, from struct tcmsg on."""
    create: bool
    excl: bool


class FilterSpec(NamedTuple):
    """A filter in the eSwitch's vocabulary, on whichever device it is."""

    kind: str
    chain: int
    prio: int
    rank: int
    """Its place among the filters of its priority."""
    match: Match
    steps: tuple[Step, ...]
    flags: int = 0
    ranges: tuple[PortRange, ...] = ()
    """Ranges of ports, beside the match."""
    indev: int = 0
    """The device by which packets come in, beside the match (0: any)."""

    def exactly(self) -> Iterator[FilterSpec]:
        """The filters with masks alone that together are this one."""
        return (self._replace(match=match, ranges=()) for match in matches(self.match, self.ranges))

    @property
    def priority(self) -> int:
        """The rule's priority: masks of one priority are met in the order in which they came (fl_mask_lookup)."""
        return self.prio << 16 | self.rank


class Planned(NamedTuple):
    """The rule of a filter for a pipeline that supports it; ``pf`` is None for the node's own."""

    pipeline: Pipeline
    rule: Rule
    device: int
    pf: Pf | None = None
    receive: bool = False
    rests: tuple[tuple[Action, ...], ...] = ()
    """What software does with a packet that a :class:`.CtHardware` of the rule leaves to it, one for each of them."""
    software: Pipeline | None = None
    """The pipeline that goes on with such packets."""
    resumes: tuple[int, ...] = ()
    """The numbers by which it does."""

    def placed(self, handle: int) -> Placed:
        """The rule, once the pipeline has it by this *handle*."""
        return Placed(
            self.pipeline,
            handle,
            self.rule.in_port,
            self.pf,
            self.device,
            self.receive,
            self.software,
            self.resumes,
        )

    def resuming(self, software: Placed) -> Planned:
        """The same with numbers by which packets go on in the *software* rule. NetlinkError ENOSPC."""
        pipeline, numbers = software.pipeline, list[int]()
        try:
            for rest in self.rests:
                numbers.append(pipeline.resume_within(software.handle, rest))
        except OSError as error:
            _end(pipeline, numbers)
            raise NetlinkError(error.errno or errno.ENOSPC) from None
        left = iter(numbers)
        actions = tuple(
            replace(action, resume=next(left)) if isinstance(action, CtHardware) else action
            for action in self.rule.actions
        )
        rule = replace(self.rule, actions=actions)
        return self._replace(rule=rule, software=pipeline, resumes=tuple(numbers))

    def end_resumes(self) -> None:
        """The rule is not placed: nothing goes on in software by its numbers."""
        _end(self.software, self.resumes)


def _end(software: Pipeline | None, resumes: Iterable[int]) -> None:
    if software is not None:
        for number in resumes:
            software.end_resume(number)


@dataclass(slots=True)
class Placed:
    """A rule in a pipeline; ``pf`` is None for the node's own."""

    pipeline: Pipeline
    handle: int
    in_port: int
    pf: Pf | None = None
    device: int = 0
    """The device whose packets it is for, of those that share a block."""
    receive: bool = False
    """Whether it is of a function's receive side."""
    software: Pipeline | None = None
    """The pipeline that goes on with packets that the rule leaves to it within its actions."""
    resumes: tuple[int, ...] = ()
    """The numbers by which it does."""

    def remove(self) -> None:
        """Take the rule away."""
        self.pipeline.remove(self.handle)
        self.end_resumes()

    def end_resumes(self) -> None:
        """Nothing goes on in software any more by the numbers of this rule."""
        _end(self.software, self.resumes)
        self.resumes = ()

    @property
    def name(self) -> bytes:
        """ "NIC/PF", with "/receive" behind it or without, or empty for software: what is kept of it over a restart."""
        if self.pf is None:
            return b""
        return f"{self.pf.nic.name}/{self.pf.index}{RECEIVE if self.receive else ''}".encode()

    @property
    def rule(self) -> Rule:
        """The rule, as the pipeline has it."""
        return self.pipeline.rule(self.handle)
