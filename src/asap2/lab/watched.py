# SPDX-License-Identifier: Apache-2.0
"""Processes that are watched, whoever started them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
from pathlib import Path

_UTIME, _STIME, _STARTTIME, _EXIT_CODE = 11, 12, 19, 49
"""Fields of /proc/PID/stat (proc_pid_stat(5)), counted after the command's name."""
_INFO = struct.Struct("=QQ11Ii")
"""struct pidfd_info (include/uapi/linux/pidfd.h), as it was first: mask, control group, process and user ids, exit
code."""
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
"""PIDFD_GET_INFO."""
_INFO_EXIT = 8


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

    def wait_status(self) -> int | None:
        """How it ended, as wait(2) tells it, though it was no child of ours; None when the kernel does not tell.

        Until its parent has waited for it, /proc has it; after that a pidfd does, from Linux 6.15 on.
        """
        fields = _status(self.pid)
        if fields and fields[0] == b"Z":
            return int(fields[_EXIT_CODE])
        info = bytearray(_INFO.pack(_INFO_EXIT, *(0,) * 13))
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.descriptor, _GET_INFO, info)
            mask, *_, code = _INFO.unpack(info)
            return int(code) if mask & _INFO_EXIT else None
        return None

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
