# SPDX-License-Identifier: Apache-2.0
"""Tracing while a command runs in a guest, or until enough packets were seen."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Final

from asap2.lab.enter import environment, moved_in
from asap2.nic.silicon.abi import WATCH_SHORT
from asap2.trace.filter import Filter
from asap2.trace.known_rules import KnownRules
from asap2.trace.lab import LabWatch, in_order
from asap2.trace.model import Way
from asap2.trace.ways import Ways

SETTLE: Final = 0.3
"""Seconds after which nothing more comes of what happened before."""


def ways(watch: LabWatch, rules: KnownRules, ended: Callable[[], bool]) -> Iterator[Way]:
    """The ways of packets, each when it is complete, until *ended* is true; *rules* are those of :func:`begin`."""
    found = Ways(watch, rules)
    for event in in_order(watch, ended, SETTLE):
        if event is not None:
            found.take(event)
        else:
            yield from found.complete(time.monotonic_ns())
    yield from found.complete(None)


def begin(watch: LabWatch) -> KnownRules:
    """Watch, with as much of each packet as a trace needs; the rules that there are by then. Asap2Error."""
    rules = KnownRules(watch.nodes.values())
    watch.begin(WATCH_SHORT)
    return rules


class Interrupt:
    """Whether somebody has asked this process to end: the first time it ends in order, the second time at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class Command:
    """A command that runs in a guest; what it prints goes where this process prints, or to standard error."""

    def __init__(self, watch: LabWatch, guest: str, command: Sequence[str], *, quiet: bool) -> None:
        """OSError."""
        words = ["sh", "-c", command[0]] if len(command) == 1 else list(command)
        output = sys.stderr if quiet else sys.stdout
        output.flush()

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, env=environment())

        self.process = moved_in(watch.layout.bundle(guest), start)

    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def stop(self) -> int:
        """Have it end, and wait; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait()


def concerns(way: Way, guest: str | None, wanted: Filter | None) -> bool:
    """Whether a way is one of *guest*'s, and is what a filter takes at any of its steps."""
    if guest is not None and guest != way.origin and guest not in way.targets:
        return False
    return wanted is None or any(wanted.takes(frame) for frame in way.frames)
