# SPDX-License-Identifier: Apache-2.0
"""Requests that take long: they are served in parts, and others in between."""

from __future__ import annotations

import errno
import logging
import math
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from asap2.netlink.wire import NetlinkError

log = logging.getLogger(__name__)

PART_NS = 2_000_000
"""How long one goes on while others wait."""

Served = tuple[int, int]
"""How many bytes of a batch were served, and how many after them are the kernel's."""


class Unfinished:
    """The rest of a request: *steps*, with *lock* held, and then *finish*, which gets the error if there was one."""

    def __init__(
        self, steps: Iterator[None], lock: threading.RLock, finish: Callable[[NetlinkError | None], Served]
    ) -> None:
        self._steps = steps
        self._lock = lock
        self._finish = finish

    def go_on(self, until: float) -> Served | None:
        """Make steps until that time (of the monotonic clock, in ns), at least one; None: there is more to do."""
        error = None
        try:
            with self._lock:
                for _ in self._steps:
                    if time.monotonic_ns() >= until:
                        return None
        except Exception as failed:
            log.exception("a request that is served in parts")
            number = failed.errno if isinstance(failed, OSError) else None
            error = NetlinkError(number or errno.EINVAL)
        return self._finish(error)

    def complete(self) -> Served:
        """Do all the rest."""
        served = self.go_on(math.inf)
        assert served is not None
        return served


class Rounds:
    """Has requests go on in turn, a part in each round of a selector, which does not wait while there is one."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Unfinished, Callable[[Served], None]]] = deque()
        self._ready = os.eventfd(1, os.EFD_CLOEXEC)
        self._selector: selectors.BaseSelector | None = None

    def add(self, selector: selectors.BaseSelector, request: Unfinished, served: Callable[[Served], None]) -> None:
        """Have *request* go on in the rounds of *selector*; *served* is called in the end."""
        if not self._waiting:
            selector.register(self._ready, selectors.EVENT_READ, self._go_on)
            self._selector = selector
        self._waiting.append((request, served))

    def _go_on(self, _mask: int) -> None:
        request, served = self._waiting.popleft()
        result = request.go_on(time.monotonic_ns() + PART_NS)
        if result is None:
            self._waiting.append((request, served))
            return
        self._rest()
        served(result)

    def _rest(self) -> None:
        if not self._waiting and self._selector is not None:
            self._selector.unregister(self._ready)
            self._selector = None

    def close(self) -> None:
        """Leave all as it is."""
        self._waiting.clear()
        self._rest()
        os.close(self._ready)
