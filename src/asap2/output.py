# SPDX-License-Identifier: Apache-2.0
"""What commands print, as plain text and as JSON. :mod:`asap2.screen` prints styles and tables.

Text that comes from the system (names of devices, logs, errors, output of programs) reaches a terminal as characters
alone: what could move its cursor, change its title or turn the direction of writing is shown as an escape.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from typing import Any, TextIO

_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
"""C0 without tab and line feed, DEL, C1."""
_DIRECTIONS = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Marks, embeddings and overrides of direction (Unicode TR 9), line and paragraph separators."""
_INVISIBLE = re.compile(f"[{_CONTROLS}{_DIRECTIONS}\ud800-\udfff]")
_UNDECODED = 0xDC00
"""What surrogateescape (PEP 383) adds to an octet that is not UTF-8."""


def visible(text: str) -> str:
    """*text* with an escape for each character that a terminal obeys, and for each octet that is not UTF-8; lines and
    tabs stay."""
    return _INVISIBLE.sub(_escape, text)


def line(text: str) -> str:
    """*text* as :func:`visible` has it, in one line."""
    return visible(text).replace("\n", "\\n")


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    if _UNDECODED + 0x80 <= number <= _UNDECODED + 0xFF:
        number -= _UNDECODED
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}"


def say(text: str = "", *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print *text*, at once."""
    print(visible(text), end=end, file=file or sys.stdout, flush=True)


def say_json(data: Any, *, indent: int | None = 2) -> None:
    """Print *data* as JSON, at once; of one line when *indent* is None."""
    print(json.dumps(data, indent=indent), flush=True)


def tolerate() -> None:
    """Have standard output and error show an escape for what their encoding has not, in place of a failure."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, io.UnsupportedOperation):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
