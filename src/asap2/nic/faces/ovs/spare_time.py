# SPDX-License-Identifier: Apache-2.0
"""Whether the daemon has time for who floods it.

A port that sends more new flows than can be served costs more than its packets: each makes Open vSwitch execute it, put
a flow, dump that flow with every round of its revalidator, and delete it. While the daemon has no time for anything
else, those rounds take so long that Open vSwitch lowers its flow limit and removes the flows of all. So what a flood
elicits may take half of the time, whatever it is and whatever else the machine does: the packets beyond that are lost
in the program, where they cost next to nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

MOST_NS = 20_000_000
"""How much rest, or work, counts: a longer pause gives no right to a longer flood."""


class SpareTime:
    """The balance of rest and work. *now* is a clock of nanoseconds."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._balance = MOST_NS
        self._since = now()

    @property
    def left(self) -> bool:
        """Whether there was as much rest as work."""
        return self._balance >= 0

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """Work, in a block; what is between two blocks is rest."""
        self._balance = min(MOST_NS, self._balance + self._passed())
        try:
            yield
        finally:
            self._balance = max(-MOST_NS, self._balance - self._passed())

    def _passed(self) -> int:
        now = self._now()
        passed, self._since = now - self._since, now
        return passed
