# SPDX-License-Identifier: Apache-2.0
"""The ways of packets that browsers are shown: what :mod:`asap2.trace.shown` gives."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

MOST = 200
"""Ways that are kept, the newest ones."""
Way = Mapping[str, Any]
"""What docs/schemas/trace.json calls one of the ``ways``."""


class Packets:
    """The ways that are there, of which *about* says where they come from. Not for two threads at once."""

    def __init__(self, about: str) -> None:
        self.about = about
        self.trouble: str | None = None
        """Why no more come."""
        self.lost = self.left_out = 0
        """Steps of which nobody knows; ways that were too many to be told."""
        self._ways: deque[Way] = deque(maxlen=MOST)
        self._number = 0
        self.version = 0
        """Another number whenever anything has changed."""

    def add(self, way: Way) -> None:
        """One more."""
        self._number += 1
        self.version += 1
        self._ways.append({**way, "number": self._number})

    def since(self, number: int) -> list[Way]:
        """The ways whose numbers are larger; 0 for all that there are."""
        return [way for way in self._ways if way["number"] > number]

    @property
    def newest(self) -> int:
        """The number of the newest way; 0 without any."""
        return self._number

    def read(self) -> None:
        """Take in what has come, without waiting."""

    def stop(self) -> None:
        """Nobody looks: nothing comes any more until the next :meth:`read`."""
