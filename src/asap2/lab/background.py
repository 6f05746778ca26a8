# SPDX-License-Identifier: Apache-2.0
"""A program that runs in a node or guest in the background, and reports its progress on its output.

It has a terminal of its own, as a person's would: so it writes each line at once, and tcpdump shows packets at once.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.lab.enter import environment, moved_in

PATIENCE = 300.0
"""Seconds that a program may take to begin, and to end when it has been told to: one that takes longer hangs, on a slow
machine, too."""


class Program:
    """*command*, started in *bundle*'s namespaces."""

    def __init__(self, bundle: Path, command: Sequence[str], variables: dict[str, str] | None = None) -> None:
        self.command = " ".join(command)
        self.output = ""
        self._pty, theirs = pty.openpty()
        try:
            self.process = moved_in(
                bundle,
                lambda: subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=theirs,
                    env=environment() | (variables or {}),
                    start_new_session=True,
                ),
            )
        except BaseException:
            os.close(self._pty)
            raise
        finally:
            os.close(theirs)

    def read_until(self, pattern: str, seconds: float = PATIENCE) -> None:
        """Return when the output matches *pattern*; Asap2Error when it does not in time."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.output):
            if not self._read(max(0.0, deadline - time.monotonic())):
                self.kill()
                raise Asap2Error(
                    f"`{self.command}` did not begin: {' '.join(self.output.split()) or 'it said nothing'}"
                )

    def read_more(self, seconds: float) -> None:
        """Read output for *seconds*."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self._read(left):
            pass

    def read_until_quiet(self, seconds: float = 0.25) -> None:
        """Return when there has been no output for *seconds*."""
        while self._read(seconds):
            pass

    def interrupt(self) -> int:
        """Type Ctrl-C, wait for the end and return the exit status. :attr:`output` is then complete."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """Wait for the program, which must be about to end, and return its exit status."""
        while self._read(PATIENCE):
            pass
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
        self.kill()
        return self.process.returncode

    def kill(self) -> None:
        """Kill the program."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._pty >= 0:
            os.close(self._pty)
            self._pty = -1

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self, seconds: float) -> bool:
        """Read output that arrives within *seconds*; False if none does or the program has closed its terminal."""
        if self._pty < 0 or not select.select([self._pty], [], [], seconds)[0]:
            return False
        data = b""
        with contextlib.suppress(OSError):  # EIO: the terminal's other end is closed
            data = os.read(self._pty, 65536)
        self.output += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)
