# SPDX-License-Identifier: Apache-2.0
"""Keep a node's redirectd running (netlink/redirectd.c), for programs that make their system calls themselves.

redirectd is two processes that replace each other, and this starts one more: it waits in a file's lock until both are
dead. The programs that they served stay refused then, others are served.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asap2.netlink
from asap2.lab.redirect import SOCKET
from asap2.lab.watched import Watched
from asap2.netlink.listener import path_in

PROGRAM = Path(asap2.netlink.__file__).with_name("redirectd")
_TRY_AGAIN = 1.0


class Redirector:
    """The redirectd of the node whose directory is *directory* that this process has started."""

    def __init__(self, directory: Path) -> None:
        self.look_at = 0.0
        """Monotonic time of the next look if no descriptor becomes ready."""
        self._command = [
            str(PROGRAM),
            str(path_in(directory).with_name(Path(SOCKET).name)),
            str(directory / "redirect.lock"),
        ]
        self._environment = os.environ | {"ASAP2_NETLINK_SOCK": str(path_in(directory))}
        self._process: Watched | None = None
        self._started = 0.0

    def descriptors(self) -> Iterator[int]:
        """Descriptors that become readable when it is time to look."""
        if self._process is not None:
            yield self._process.descriptor

    def look(self, now: float) -> None:
        """Start one if there is none."""
        if self._process is not None and self._process.ended():
            self.forget()
            self.look_at = self._started + _TRY_AGAIN
        if self._process is not None or now < self.look_at:
            return
        self._started, self.look_at = now, now + _TRY_AGAIN
        try:
            started = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, cwd="/", env=self._environment)
            started.returncode = 0  # it is ours to wait for, not Popen's
            self._process = Watched(started.pid)
            self.look_at = math.inf
        except OSError as error:
            print(f"supervisor: cannot start {PROGRAM}: {error.strerror}", file=sys.stderr, flush=True)

    def forget(self) -> None:
        """Watch it no longer; another is started at the next look."""
        if self._process is not None:
            self._process.close()
        self._process = None
        self.look_at = 0.0

    def end(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill(signal.SIGTERM)
