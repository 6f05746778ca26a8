# SPDX-License-Identifier: Apache-2.0
"""``python -m asap2.lab.supervisor DIRECTORY NOTIFY COMMAND...``: keeps a node's daemon running.

It runs in the network namespace of the node whose directory is DIRECTORY. It starts COMMAND, waits until COMMAND has
made the file ``ready``, lays its FUSE tree over the node's /sys, and writes ``ready`` to the file descriptor NOTIFY.
When the daemon dies, it is started anew. SIGTERM ends both. The socket that programs ask is the supervisor's: who asks
while there is no daemon waits for the next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from asap2.lab.filesystem import show_faces
from asap2.lab.syscalls import detach
from asap2.netlink import listener

START_SECONDS = 30.0
"""How long a daemon may take to serve."""
SHORT_LIFE = 2.0
"""Seconds: a daemon that died sooner did not work."""
SHORT_LIVES = 5
"""So many short lives in a row, and it is given up."""


class Supervisor:
    """Keeps one daemon running."""

    def __init__(self, directory: Path, notify: int, command: list[str]) -> None:
        self.directory = directory
        self.notify: int | None = notify
        self.command = command
        self.daemon: subprocess.Popen[bytes] | None = None
        self.listener = listener.listen(listener.path_in(directory))

    def run(self) -> int:
        """Keep the daemon running until told to stop or it cannot be kept; the exit status."""
        signal.signal(signal.SIGTERM, self._stop)
        short_lives = 0
        while short_lives < SHORT_LIVES:
            began = time.monotonic()
            self._clear()
            descriptor = self.listener.fileno()
            environment = os.environ | {listener.VARIABLE: str(descriptor)}
            self.daemon = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, cwd="/", env=environment, pass_fds=[descriptor]
            )
            (self.directory / "daemon.pid").write_text(f"{self.daemon.pid}\n")
            if self._became_ready(self.daemon):
                show_faces(self.directory / "ns", self.directory / "sys", self.directory / "realsys")
                self._tell()
            elif self.notify is not None:
                self.daemon.kill()
                return 1
            status = self.daemon.wait()
            short_lives = short_lives + 1 if time.monotonic() - began < SHORT_LIFE else 0
            print(f"supervisor: the daemon ended with status {status}", file=sys.stderr, flush=True)
        print("supervisor: the daemon does not stay alive; giving it up", file=sys.stderr, flush=True)
        return 1

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait()
        sys.exit(0)

    def _clear(self) -> None:
        """Take away what a dead daemon left: its word that it serves, and its FUSE mount."""
        (self.directory / "ready").unlink(missing_ok=True)
        while True:
            try:
                detach(self.directory / "sys")
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                return

    def _became_ready(self, daemon: subprocess.Popen[bytes]) -> bool:
        descriptor = os.pidfd_open(daemon.pid)
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + START_SECONDS
        try:
            while time.monotonic() < deadline:
                if (self.directory / "ready").exists():
                    return True
                if ended.poll(5):
                    return False
        finally:
            os.close(descriptor)
        print(f"supervisor: the daemon does not serve after {START_SECONDS:g} s", file=sys.stderr, flush=True)
        daemon.kill()
        return False

    def _tell(self) -> None:
        if self.notify is not None:
            with contextlib.suppress(OSError):
                os.write(self.notify, b"ready")
            os.close(self.notify)
            self.notify = None


def main() -> int:
    """Run with the process's arguments."""
    directory = Path(sys.argv[1])
    notify = int(sys.argv[2])
    os.set_inheritable(notify, False)
    return Supervisor(directory, notify, sys.argv[3:]).run()


if __name__ == "__main__":
    sys.exit(main())
