# SPDX-License-Identifier: Apache-2.0
"""What `asap2 trace` does: watch the lab, and print ways as text or JSON."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from asap2.answers import answer
from asap2.output import say
from asap2.trace import data, text
from asap2.trace.ask import frame_of, would_happen
from asap2.trace.capture import chosen, interfaces
from asap2.trace.filter import Filter
from asap2.trace.known_rules import KnownRules
from asap2.trace.lab import LabWatch
from asap2.trace.model import Way
from asap2.trace.run import Command, Interrupt, begin, concerns, ways


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line has asked for."""

    guest: str | None = None
    command: tuple[str, ...] = ()
    filter: str | None = None
    count: int | None = None
    seconds: float | None = None
    verbose: bool = False
    as_json: bool = False


def ask(port: str, packet: str, *, verbose: bool, as_json: bool) -> None:
    """Tell what would happen to a *packet*, in hexadecimal, that came in at a *port*. Asap2Error."""
    frame = frame_of(packet)
    with LabWatch() as watch:
        (interface, *_) = chosen(interfaces(watch), [port])
        way = would_happen(watch, interface.key, frame)
    if as_json:
        answer("trace", {"lost": 0, "ways": [data.of(way, timed=False)]})
        return
    for line in text.lines(way, verbose=verbose, timed=False):
        say(line)


def run(asked: Asked) -> int:
    """Trace; the exit status, that of the command if there is one. Asap2Error, OSError."""
    wanted = Filter(asked.filter) if asked.filter is not None else None
    with LabWatch() as watch:
        if asked.guest is not None:
            watch.guest_port(asked.guest)
        traced = _Traced(asked, watch, begin(watch), wanted)
        try:
            traced.run()
        finally:
            status = traced.stop()
        lost = watch.lost
    traced.tell(lost)
    return status


class _Traced:
    """One trace."""

    def __init__(self, asked: Asked, watch: LabWatch, rules: KnownRules, wanted: Filter | None) -> None:
        self._asked, self._watch, self._rules, self._wanted = asked, watch, rules, wanted
        self._shown: list[Way] = []
        self._interrupt = Interrupt()
        self._until = time.monotonic() + asked.seconds if asked.seconds is not None else None
        self._command: Command | None = None
        if asked.guest is not None and asked.command:
            self._command = Command(watch, asked.guest, asked.command, quiet=asked.as_json)
        else:
            say("packets are traced; Ctrl-C ends", file=sys.stderr)

    def run(self) -> None:
        """Show ways until the end."""
        for way in ways(self._watch, self._rules, self._ended):
            if self._full() or not concerns(way, self._asked.guest, self._wanted):
                continue
            self._shown.append(way)
            if not self._asked.as_json and self._command is None:
                self._print(way)

    def _full(self) -> bool:
        return self._asked.count is not None and len(self._shown) >= self._asked.count

    def _ended(self) -> bool:
        if self._interrupt.asked or self._full() or (self._until is not None and time.monotonic() >= self._until):
            return True
        return self._command is not None and self._command.ended()

    def _print(self, way: Way) -> None:
        for line in text.lines(way, verbose=self._asked.verbose):
            say(line)
        say()

    def stop(self) -> int:
        """End the command; its exit status."""
        return self._command.stop() if self._command is not None else 0

    def tell(self, lost: int) -> None:
        """Show what is left to show, and how much was *lost*."""
        ordered = sorted(self._shown, key=lambda way: way.began)
        if self._asked.as_json:
            answer("trace", {"lost": lost, "ways": [data.of(way) for way in ordered]})
        elif self._command is not None:
            say()
            for way in ordered:
                self._print(way)
        if not self._asked.as_json:
            for line in text.round_trips(ordered):
                say(line)
        if lost:
            say(f"asap2: {lost} steps were lost: packets came faster than they are read", file=sys.stderr)
