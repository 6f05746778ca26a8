# SPDX-License-Identifier: Apache-2.0
"""Watch a node's Open vSwitch programs from outside: the part of systemd that notices when a program ends.

What is to be done then, a process inside the node does (:func:`asap2.lab.units.main_exited`).
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from asap2.lab import units
from asap2.lab.enter import environment, moved_in
from asap2.lab.watched import Watched, started_at

_TRY_AGAIN = 1.0


class Services:
    """The services of the node whose directory is *directory*."""

    def __init__(self, directory: Path) -> None:
        self.look_at = 0.0
        """Monotonic time of the next look if no descriptor becomes ready."""
        self._bundle = directory / "ns"
        self._records = directory / "units"
        self._changed = os.open(self._records / units.CHANGED, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._main: dict[str, Watched] = {}
        self._job: dict[str, Watched] = {}
        self._status: dict[str, int | None] = {}
        """Exit states of main processes that have not been handled yet."""

    def descriptors(self) -> Iterator[int]:
        """Descriptors that become readable when it is time to look."""
        yield self._changed
        for process in (*self._main.values(), *self._job.values()):
            yield process.descriptor

    def forget(self) -> None:
        """Forget all watches, and look at everything again."""
        for process in (*self._main.values(), *self._job.values()):
            process.close()
        self._main.clear()
        self._job.clear()
        self.look_at = 0.0

    def look(self) -> None:
        """Make the node handle programs that have ended."""
        now = time.monotonic()
        due = now >= self.look_at
        with contextlib.suppress(BlockingIOError):
            due |= bool(os.read(self._changed, 4096))
        for watched in (self._main, self._job):
            for name, process in list(watched.items()):
                if process.ended():
                    if watched is self._main:
                        self._status[name] = process.wait_status()
                    process.close()
                    del watched[name]
                    due = True
        if due:
            self.look_at = math.inf
            for daemon in units.DAEMONS:
                self._look_at(daemon, now)

    def _look_at(self, daemon: str, now: float) -> None:
        record = units.read(self._records, daemon)
        watched = self._main.get(daemon)
        if watched is not None and (record.state != "active" or watched.pid != record.pid):
            watched.close()
            del self._main[daemon]
            watched = None
        if record.state == "active" and watched is None and record.started == started_at(record.pid):
            with contextlib.suppress(ProcessLookupError):
                self._main[daemon] = Watched(record.pid)
                return
        if record.state in ("active", "auto-restart") and daemon not in self._main and daemon not in self._job:
            self.look_at = now + _TRY_AGAIN
            status = self._status.pop(daemon, None)
            self._start(daemon, "main-exited", daemon, *([] if status is None else [str(status)]))

    def switch_was_refused(self) -> None:
        """Have ovs-vswitchd restarted, because it was told that the NIC's devices do not exist."""
        self._start("refused", "switch-was-refused")

    def _start(self, name: str, *words: str) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            started = moved_in(
                self._bundle,
                lambda: subprocess.Popen(
                    [sys.executable, "-m", "asap2.lab.openvswitch", *words],
                    stdin=subprocess.DEVNULL,
                    cwd="/",
                    env=environment(),
                    start_new_session=True,
                ),
            )
            started.returncode = 0  # it is ours to wait for, not Popen's
            self._job[name] = Watched(started.pid)
