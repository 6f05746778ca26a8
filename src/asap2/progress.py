# SPDX-License-Identifier: Apache-2.0
"""What a command is at, on the last line of the terminal that standard error is; in a pipe or a file, nothing."""

from __future__ import annotations

import os
import shutil
import sys
import time
from types import TracebackType

from asap2.output import line, say

_CLEAR = "\r\x1b[K"
"""To the line's start, and erase it (ECMA-48, EL)."""


class Progress:
    """One line that each :meth:`step` replaces; at the end of the ``with`` statement it is erased."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print *text* on standard error, above the line."""
        self.clear()
        say(text, file=sys.stderr)

    def step(self, what: str) -> None:
        """Show that *what* is being done, and for how long the command has been at work; erase the line if it is
        nothing."""
        if not what:
            self.clear()
        elif self._shown:
            columns = shutil.get_terminal_size().columns
            words = f"{time.monotonic() - self._began:4.1f} s  {line(what)} …"
            sys.stderr.write(_CLEAR + words[: columns - 1])
            sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self.clear()

    def clear(self) -> None:
        """Erase the line, before something else is printed."""
        if self._shown:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
