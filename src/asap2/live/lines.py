# SPDX-License-Identifier: Apache-2.0
"""A process that writes lines, which are read without waiting.

It is to end when its standard input does, so that nothing is left behind when its owner is killed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping

_READ = 1 << 20
_MOST = 64 << 20
"""Octets of a line; a process that writes more is taken to have ended."""


class Lines:
    """The module of asap2 that *words* begin with, run with the rest of them as arguments; its standard output. It runs
    where the calling thread is. OSError."""

    def __init__(self, words: list[str], env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(env),
            start_new_session=True,
        )
        self._unread = b""
        self.ended = False
        """Whether nothing more will come."""
        assert self._process.stdout is not None
        self._descriptor = self._process.stdout.fileno()
        os.set_blocking(self._descriptor, False)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def read(self) -> list[bytes]:
        """The lines that have come since the last call."""
        while not self.ended:
            try:
                data = os.read(self._descriptor, _READ)
            except BlockingIOError:
                break
            self._unread += data
            self.ended = not data or len(self._unread) > _MOST
        *lines, self._unread = self._unread.split(b"\n")
        return lines

    def write(self, line: str) -> None:
        """Write a line to the process, unless it has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            os.write(self._process.stdin.fileno(), f"{line}\n".encode())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()
        self.ended = True
