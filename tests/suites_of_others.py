# SPDX-License-Identifier: Apache-2.0
"""What runs of testsuites that others wrote have in common: outcomes, and the lab with a node that they run in."""

from __future__ import annotations

import contextlib
import enum
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ASAP2: Final = Path(sys.executable).with_name("asap2")


class Outcome(enum.Enum):
    """What became of a test."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"
    MISSING = "did not end"


@contextlib.contextmanager
def lab(topology: Path) -> Iterator[dict[str, str]]:
    """A lab of its own, of the file *topology*; the environment in which commands find it."""
    with tempfile.TemporaryDirectory(prefix="asap2-suite-") as root:
        environment = {**os.environ, "ASAP2_LAB": os.environ.get("ASAP2_LAB", f"{root}/lab")}
        subprocess.run([ASAP2, "lab", "up", topology], env=environment, check=True, stdout=subprocess.DEVNULL)
        try:
            yield environment
        finally:
            subprocess.run([ASAP2, "lab", "down"], env=environment, check=True, stdout=subprocess.DEVNULL)
