# SPDX-License-Identifier: Apache-2.0
"""What `asap2 capture` does: watch the lab, and write a pcapng file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from asap2.output import say
from asap2.trace import capture
from asap2.trace.filter import Filter
from asap2.trace.known_rules import KnownRules
from asap2.trace.lab import LabWatch, in_order
from asap2.trace.pcapng import Writer
from asap2.trace.run import SETTLE, Interrupt
from asap2.version import version


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line has asked for."""

    file: str
    ports: tuple[str, ...]
    filter: str | None
    count: int | None
    seconds: float | None
    snap: int


def run(asked: Asked) -> None:
    """Capture. Asap2Error, OSError."""
    wanted = Filter(asked.filter) if asked.filter is not None else None
    interrupt = Interrupt()
    with LabWatch() as watch:
        chosen = capture.chosen(capture.interfaces(watch), asked.ports)
        rules = KnownRules(watch.nodes.values())
        with _opened(asked.file) as output:
            writer = Writer(output, f"asap2 {version()}")
            numbers = {one.key: writer.interface(one.name, one.about) for one in chosen}
            writer.flush()
            watch.begin(asked.snap)
            say(f"{len(chosen)} ports are captured; Ctrl-C ends", file=sys.stderr)
            _Capturing(asked, watch, capture.Capture(watch, rules, chosen), writer, numbers, wanted, interrupt).run()
            writer.flush()
    lost = f"; {watch.lost} records were lost: packets came faster than they are read" if watch.lost else ""
    say(f"{writer.packets} packets were captured{lost}", file=sys.stderr)


class _Capturing:
    """One capture, which ends with statistics of each interface."""

    def __init__(
        self,
        asked: Asked,
        watch: LabWatch,
        packets: capture.Capture,
        writer: Writer,
        numbers: dict[capture.Key, int],
        wanted: Filter | None,
        interrupt: Interrupt,
    ) -> None:
        self._asked, self._watch, self._packets = asked, watch, packets
        self._writer, self._numbers, self._wanted = writer, numbers, wanted
        self._epoch = time.time_ns() - time.monotonic_ns()
        self._until = time.monotonic() + asked.seconds if asked.seconds is not None else None
        self._interrupt = interrupt

    def run(self) -> None:
        """Write packets until the end."""
        for event in in_order(self._watch, self._ended, SETTLE):
            if event is not None:
                self._packets.take(event)
            else:
                self._write(time.monotonic_ns() - round(2 * SETTLE * 1e9))
        self._write(None)
        lost = f"{self._watch.lost} records of the lab were lost" if self._watch.lost else ""
        for number in self._numbers.values():
            self._writer.statistics(number, time.time_ns(), lost)

    def _ended(self) -> bool:
        if self._interrupt.asked or self._full():
            return True
        return self._until is not None and time.monotonic() >= self._until

    def _full(self) -> bool:
        return self._asked.count is not None and self._writer.packets >= self._asked.count

    def _write(self, before: int | None) -> None:
        for packet in self._packets.over(before):
            if self._full():
                break
            if self._wanted is None or self._wanted.takes(packet.frame, packet.length):
                number = self._numbers[packet.key]
                self._writer.packet(
                    *(number, packet.at + self._epoch, packet.frame, packet.length, packet.direction, packet.comment)
                )
        self._writer.flush()


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """The file to write to. OSError."""
    if name == "-":
        yield sys.stdout.buffer
        return
    with Path(name).open("wb") as output:
        yield output
