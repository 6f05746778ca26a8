# SPDX-License-Identifier: Apache-2.0
"""Places for the labs of tests, each owned by a process: what it leaves behind when it is killed is taken down.

Beside each lab runs a small program (:mod:`asap2.lab.keeper`) that waits for the owner's end. Should that have been
killed too, the next owner takes the lab down: the place's name tells the process that owns it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from asap2.lab.watched import started_at

PLACES = Path("/run")
_NAME = re.compile(r"asap2\.test-(\d+)-(\d+)-\d+")
_number = itertools.count()


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A path for a lab of this process, at which nothing is yet; the lab must be down at the end of the block."""
    sweep()
    root = PLACES / f"asap2.test-{os.getpid()}-{started_at(os.getpid())}-{next(_number)}"
    owner = os.pidfd_open(os.getpid())
    try:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "asap2.lab.keeper", root, str(owner)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            pass_fds=[owner],
            start_new_session=True,
        )
    finally:
        os.close(owner)
    try:
        yield root
    finally:
        keeper.kill()
        keeper.wait()


def sweep() -> None:
    """Take down the labs of owners that are dead."""
    for root in PLACES.glob("asap2.test-*"):
        name = _NAME.fullmatch(root.name)
        if name and started_at(int(name[1])) != int(name[2]):
            with contextlib.suppress(Asap2Error, OSError):  # its keeper may be at it
                Lab(Layout(root)).down()
