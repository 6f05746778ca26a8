# SPDX-License-Identifier: Apache-2.0
"""Which connections of the redirect library the server takes: all may connect, nobody may take every descriptor."""

from __future__ import annotations

import errno
import os
import resource
import socket
import time
from collections import Counter

MOST_OF_PROCESS = 1024
"""Connections of one process: each of its threads that asks has one."""
MOST_OF_USER = 2048
"""Connections of one user, other than root."""
_SHARE = 4
"""A user other than root gets no more than one in so many of the descriptors that this process may open."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REST = 0.05
"""Seconds to wait when not even the last descriptor is left."""


class Admission:
    """Counts connections by process and user, and keeps a descriptor with which to refuse when there are no others."""

    def __init__(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most_of_user = min(MOST_OF_USER, max(1, limit // _SHARE))
        self._most_of_process = min(MOST_OF_PROCESS, max(1, limit // _SHARE))
        self._of_process: Counter[int] = Counter()
        self._of_user: Counter[int] = Counter()
        self._last = self._open_last()

    def enter(self, pid: int, uid: int) -> bool:
        """Count a connection of process *pid* of user *uid*; False, and no change, when it has too many."""
        if self._of_process[pid] >= self._most_of_process or (uid and self._of_user[uid] >= self._most_of_user):
            return False
        self._of_process[pid] += 1
        self._of_user[uid] += 1
        return True

    def leave(self, pid: int, uid: int) -> None:
        """Undo :meth:`enter`."""
        for counts, key in ((self._of_process, pid), (self._of_user, uid)):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]

    def refuse(self, listener: socket.socket, error: OSError) -> bool:
        """Take the next connection of *listener*, which accept(2) could not because of *error*, and end it; else it
        would be reported as ready again and again. False when there is none."""
        if error.errno not in _EXHAUSTED:
            return False
        if self._last is not None:
            os.close(self._last)
            self._last = None
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return False
        except OSError:
            time.sleep(_REST)
            return False
        finally:
            self._last = self._open_last()
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        if self._last is not None:
            os.close(self._last)
            self._last = None

    @staticmethod
    def _open_last() -> int | None:
        try:
            return os.open("/", os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return None


def raise_limit() -> None:
    """Let this process open as many descriptors as it may allow itself."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
