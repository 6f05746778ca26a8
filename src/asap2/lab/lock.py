# SPDX-License-Identifier: Apache-2.0
"""The lock of a lab's place: a file in a directory of root's, which is there only while the lock is held."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

DIRECTORY = Path("/run")
"""Only root makes files there. The lab's own place may be anywhere, so the lock is not beside it."""


class Lock:
    """The lock of the lab at *root*, for use in a ``with`` statement.

    It is a flock(2), which only those have who can open the file, and forked children share it: what a killed command
    still had at work ends before the next begins. A file that a killed command left is no lock; the next removes it.
    """

    def __init__(self, root: Path) -> None:
        parent = root.parent.stat()
        self._path = DIRECTORY / f"asap2-{parent.st_dev}-{parent.st_ino}-{root.name}.lock"
        self._file = -1

    def take(self) -> bool:
        """Take the lock; False when another has it. OSError."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), self._path.stat()):
                self._file = file
                return True
        except (BlockingIOError, FileNotFoundError):  # another has it, or has just removed it
            pass
        os.close(file)
        return False

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            os.close(self._file)
            self._file = -1
