# SPDX-License-Identifier: Apache-2.0
"""``python -m asap2.trace.stream [FILTER]``: the ways of a lab's packets, as lines of JSON, until standard input ends.

For a program that shows them as they pass. Each line is an object with one of the keys ``way`` (docs/schemas/trace.json
has what it is), ``lost`` (steps of which nobody knows, so far), ``left_out`` (ways so far that were one too many in
their second) and ``trouble`` (why there is nothing, and nothing more).
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from typing import Final

from asap2.errors import Asap2Error
from asap2.trace import data
from asap2.trace.filter import Filter
from asap2.trace.lab import LabWatch
from asap2.trace.run import begin, concerns, ways

MOST: Final = 50
"""Ways in a second; more of them nobody reads."""


def ended() -> bool:
    """Whether standard input has."""
    ready, _, _ = select.select([0], [], [], 0)
    return bool(ready) and not os.read(0, 1024)


def run(text: str | None) -> None:
    """Write the ways of the packets that the filter *text* takes. Asap2Error, OSError."""
    wanted = Filter(text) if text is not None else None
    second, number, left_out, lost = 0.0, 0, 0, 0
    with LabWatch() as watch:
        rules = begin(watch)
        _write({"lost": 0})
        for way in ways(watch, rules, ended):
            if not concerns(way, None, wanted):
                continue
            if watch.lost != lost:
                lost = watch.lost
                _write({"lost": lost})
            if time.monotonic() - second >= 1:
                if number > MOST:
                    left_out += number - MOST
                    _write({"left_out": left_out})
                second, number = time.monotonic(), 0
            number += 1
            if number <= MOST:
                _write({"way": data.of(way)})


def _write(line: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Write ways."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(sys.argv[1] if len(sys.argv) > 1 else None)
    except BrokenPipeError:
        return 0
    except (Asap2Error, OSError) as error:
        _write({"trouble": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
