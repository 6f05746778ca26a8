# SPDX-License-Identifier: Apache-2.0
"""Finding a network namespace of a node: by a process in it, or by the name that it has there (ip-netns(8))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from asap2.namespaces import in_mntns


def open_namespace(wanted: Callable[[int], bool], known: Iterable[int], mounts: Path) -> int | None:
    """A new descriptor of the network namespace that is *wanted*: one of those open as *known*, any process's, or one
    that has a name in the mount namespace kept at *mounts*; None: there is none."""
    for fd in known:
        if wanted(fd):
            return os.dup(fd)
    found = _opened(Path("/proc").glob("[0-9]*/ns/net"), wanted)
    if found is not None:
        return found
    try:
        inside = os.open(mounts, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return in_mntns(inside, lambda: _opened(Path("/run/netns").iterdir(), wanted))
    except OSError:
        return None
    finally:
        os.close(inside)


def _opened(places: Iterable[Path], wanted: Callable[[int], bool]) -> int | None:
    """A descriptor of the first network namespace at one of *places* that is *wanted*; None: none is."""
    seen = set()
    for place in places:
        with contextlib.suppress(OSError):
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            inode = os.fstat(fd).st_ino
            if inode not in seen and wanted(fd):
                return fd
            seen.add(inode)
            os.close(fd)
    return None
