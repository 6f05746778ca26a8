# SPDX-License-Identifier: Apache-2.0
"""Processes that are watched, whoever started them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

_UTIME, _STIME, _STARTTIME = 11, 12, 19
"""Fields of /proc/PID/stat (proc_pid_stat(5)), counted after the command's name."""


class Watched:
    """A process, a child of ours or not. ProcessLookupError when there is none."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.descriptor = os.pidfd_open(pid)

    def ended(self) -> bool:
        """Whether it is dead; a child is reaped then."""
        with contextlib.suppress(ChildProcessError):
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return bool(select.select([self.descriptor], [], [], 0)[0])

    def cpu_time(self) -> int:
        """Clock ticks of CPU time that it has used."""
        fields = _status(self.pid)
        return int(fields[_UTIME]) + int(fields[_STIME]) if fields else 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def close(self) -> None:
        """Watch it no longer."""
        os.close(self.descriptor)


def started_at(pid: int) -> int:
    """When process *pid* started, in clock ticks since the machine did: no other has both. 0 when there is none, or
    only its exit status."""
    fields = _status(pid)
    return int(fields[_STARTTIME]) if fields and fields[0] not in (b"Z", b"X") else 0


def _status(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []
