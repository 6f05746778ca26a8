# SPDX-License-Identifier: Apache-2.0
"""A process inside a node that reads the node's flows and connections, for as long as somebody wants them.

What ``asap2 host`` reads of a host is read of a node from inside it. The process writes one line of JSON each time, and
ends when its standard input does, so nothing is left behind when its owner is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time

from asap2.host.records import RecordError, from_data, to_data
from asap2.lab.enter import environment, moved_in
from asap2.lab.layout import ROOT_VARIABLE, Layout
from asap2.live.lines import Lines
from asap2.live.snapshot import Detail

_READ = 1 << 16
_AGAIN = 3.0
"""Seconds until an agent that has ended is started again."""


class Agent:
    """The agent in the node called *name*, which looks every *seconds* seconds."""

    def __init__(self, layout: Layout, name: str, seconds: float) -> None:
        self._layout = layout
        self._name = name
        self._seconds = seconds
        self._process: Lines | None = None
        self._latest: Detail | None = None
        self._not_before = 0.0
        self._listed: frozenset[str] = frozenset()
        self._start()

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none."""
        return self._process.pid if self._process is not None else None

    def list_connections(self, wanted: frozenset[str]) -> None:
        """Have connections listed that have all words of one of these texts."""
        self._listed = wanted
        self._tell()

    def latest(self) -> Detail | None:
        """The newest details, without waiting; None until there are any."""
        if self._process is None:
            if time.monotonic() >= self._not_before:
                self._start()
            return self._latest
        lines = self._process.read()
        if lines:
            with contextlib.suppress(ValueError, RecordError):
                self._latest = from_data(Detail, json.loads(lines[-1]))
        if self._process.ended:
            self._failed(f"the reader of flows in {self._name} has ended")
        return self._latest

    def close(self) -> None:
        """End the agent."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _start(self) -> None:
        words = ["asap2.live.agent", str(self._seconds)]
        env = environment() | {ROOT_VARIABLE: str(self._layout.root)}
        try:
            self._process = moved_in(self._layout.bundle(self._name), lambda: Lines(words, env))
        except OSError as error:
            self._failed(f"the reader of flows in {self._name} cannot be started: {error.strerror}")
            return
        if self._listed:
            self._tell()

    def _tell(self) -> None:
        if self._process is not None:
            self._process.write(json.dumps(sorted(self._listed)))

    def _failed(self, why: str) -> None:
        self.close()
        self._not_before = time.monotonic() + _AGAIN
        self._latest = Detail(time.time(), trouble=why)


def main() -> int:
    """Write the details of this host every so many seconds, until standard input ends. A line of it is a list of texts:
    which connections are wanted one by one."""
    from asap2.live.detail import DetailReader

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seconds = float(sys.argv[1])
    reader = DetailReader()
    due, unread = time.monotonic(), b""
    while True:
        try:
            line = json.dumps(to_data(reader.read()), separators=(",", ":"))
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            return 0
        due = max(due + seconds, time.monotonic())
        while select.select([0], [], [], max(0.0, due - time.monotonic()))[0]:
            data = os.read(0, _READ)
            if not data:
                return 0
            *lines, unread = (unread + data).split(b"\n")
            if lines:
                reader.listed = frozenset(json.loads(lines[-1]))
                due = time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
