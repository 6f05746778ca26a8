# SPDX-License-Identifier: Apache-2.0
"""The daemon's log: to standard error, and bounded, in lines a minute of one kind and in size.

What is said again and again is said a few times, then counted: as Open vSwitch does. When the file behind standard
error is too long, its older half goes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time

from asap2.logfile import shorten

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
BURST = 20
"""Lines of one kind that are written in a minute."""
_PERIOD = 60.0
_MOST_KINDS = 1000
MOST_OCTETS = 4 << 20
"""Of the file."""


class Repetition(logging.Filter):
    """Lets :data:`BURST` lines of a kind pass in a minute; the first one later says how many did not.

    Lines are of a kind when the same statement makes them, because of the same exception if of one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether *record* passes."""
        kind = (record.pathname, record.lineno, _raised_at(record))
        now = time.monotonic()
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        began, count = self._kinds.get(kind, (now, 0))
        if now - began >= _PERIOD:
            if count > BURST:
                record.msg, record.args = f"{record.getMessage()} ({count - BURST} lines like this were left out)", ()
            began, count = now, 0
        self._kinds[kind] = began, count + 1
        return count < BURST


def _raised_at(record: logging.LogRecord) -> object:
    """The kind of exception and where it was raised."""
    if not record.exc_info or record.exc_info[2] is None:
        return None
    trace = record.exc_info[2]
    while trace.tb_next is not None:
        trace = trace.tb_next
    return record.exc_info[0], trace.tb_frame.f_code, trace.tb_lineno


class BoundedHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error, and keeps the file behind it below :data:`MOST_OCTETS`."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; when there is no room for it, go on."""
        super().emit(record)
        with contextlib.suppress(OSError, ValueError):
            shorten(self.stream.fileno(), MOST_OCTETS)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A log that cannot be written is no reason to write about it."""


def log_to_stderr() -> None:
    """Set logging up; the environment variable ASAP2_LOG gives the level."""
    handler = BoundedHandler()
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(Repetition())
    logging.basicConfig(level=os.environ.get("ASAP2_LOG", "INFO"), handlers=[handler])
