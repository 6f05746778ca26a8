# SPDX-License-Identifier: Apache-2.0
"""Checks and their findings."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asap2.host.inventory import Host, Pf


class Verdict(enum.StrEnum):
    """OK; WARN: it works, and could work better; FAIL: flows will not be offloaded, or not all; UNKNOWN: not told."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One verdict: ``id`` is stable, ``subject`` the device that it is about, ``fix`` a command or what else to do."""

    id: str
    verdict: Verdict
    found: str
    why: str
    fix: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A verdict that has no check yet."""

    verdict: Verdict
    found: str
    fix: str | None = None
    subject: str | None = None


Function = Callable[[Host, tuple[Pf, ...]], Iterator[Result]]
"""A check of a host, as far as the PFs given are concerned."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check with its stable id and the reason why it matters."""

    id: str
    why: str
    function: Function

    def __call__(self, host: Host, pfs: tuple[Pf, ...]) -> list[Finding]:
        """The findings on *host*."""
        return [
            Finding(self.id, one.verdict, one.found, self.why, one.fix, one.subject) for one in self.function(host, pfs)
        ]


def check(id: str, why: str) -> Callable[[Function], Check]:
    """Register a function as a check."""
    return lambda function: Check(id, why, function)


def ok(found: str, subject: str | None = None) -> Result:
    """A finding that nothing is wrong."""
    return Result(Verdict.OK, found, None, subject)


def warn(found: str, fix: str | None = None, subject: str | None = None) -> Result:
    """A finding that something could be better."""
    return Result(Verdict.WARN, found, fix, subject)


def fail(found: str, fix: str | None = None, subject: str | None = None) -> Result:
    """A finding that prevents offload."""
    return Result(Verdict.FAIL, found, fix, subject)


def unknown(found: str, fix: str | None = None, subject: str | None = None) -> Result:
    """A finding that the state is unknown."""
    return Result(Verdict.UNKNOWN, found, fix, subject)


def listed(names: list[str], most: int = 6) -> str:
    """Names for a sentence: all, or the first few and how many more."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
