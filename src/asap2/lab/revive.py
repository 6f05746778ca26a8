# SPDX-License-Identifier: Apache-2.0
"""Repair nodes whose supervisors were all killed. Each ``asap2`` command that looks at a lab does this in passing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PATIENCE = 60.0
"""Seconds that a supervisor may take to start, before the command goes on without it."""


def revive(root: Path) -> None:
    """Start a supervisor for each node of the lab at *root* that lacks one, unless the lab is going up or down. Say of
    each node that no daemon will serve why."""
    for refused in root.glob("nodes/*/refused"):
        with contextlib.suppress(OSError):
            print(f"asap2: {refused.parent.name}: {refused.read_text().strip()}", file=sys.stderr)
    unwatched = list(_unwatched(root))
    if not unwatched:
        return
    from asap2.lab.lock import Lock
    from asap2.lab.node import supervise

    with Lock(root) as lock, contextlib.suppress(OSError):
        if lock.take() and (root / "lab.json").exists():
            for directory in unwatched:
                supervise(directory)
            for directory in unwatched:
                _wait_for_listener(directory)


def _wait_for_listener(directory: Path) -> None:
    """Return once programs of the node can wait for its daemon, or it is certain that they never will."""
    import socket
    import time

    from asap2.netlink.listener import path_in

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking, contextlib.suppress(OSError):
            asking.connect(str(path_in(directory)))
            return
        time.sleep(0.02)


def _unwatched(root: Path) -> Iterator[Path]:
    for file in root.glob("nodes/*/supervisor.lock"):
        with contextlib.suppress(OSError):
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                yield file.parent
            finally:
                os.close(descriptor)
