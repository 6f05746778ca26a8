# SPDX-License-Identifier: Apache-2.0
"""Directories for tests in which several users take part."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A directory that every user can enter. None of pytest's: each run of it that begins closes all of them."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def in_chroot() -> bool:
    """Whether "/" is no mount point."""
    mount_points = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return "/" not in mount_points


def open_the_root() -> None:
    """Let every user enter the root directory of a chroot: one that mktemp made is closed to all but root."""
    if in_chroot():
        os.chmod("/", os.stat("/").st_mode | 0o011)
