# SPDX-License-Identifier: Apache-2.0
"""Directories that tests of several users share."""

from __future__ import annotations

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
