# SPDX-License-Identifier: Apache-2.0
"""Wait for what no event announces, by looking again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator

_PAUSE = 0.02
"""Seconds between two looks."""


def looks(seconds: float) -> Iterator[None]:
    """Yield once for each look: at least once, the last time after *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() > deadline:
            return
        time.sleep(_PAUSE)
