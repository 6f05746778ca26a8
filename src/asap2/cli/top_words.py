# SPDX-License-Identifier: Apache-2.0
"""The options of ``asap2 top`` and ``asap2 host top``, and what both do with them."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from asap2.cli import typer
from asap2.cli.options import AsJson as AsJson

if TYPE_CHECKING:
    from collections.abc import Callable

    from asap2.live import Collector
    from asap2.top.plain import View
    from asap2.top.watch import Watch


class By(StrEnum):
    """The columns that rows can be sorted by."""

    NODE = "node"
    PORT = "port"
    IN = "in"
    IN_BITS = "in-bits"
    GUEST = "guest"
    KIND = "kind"
    REPRESENTOR = "representor"
    BRIDGE = "bridge"
    OUT = "out"
    OUT_BITS = "out-bits"
    HARDWARE = "hardware"
    REFUSED = "refused"
    TO = "to"
    COUNTED = "counted"
    WHERE = "where"
    REASON = "reason"
    MATCH = "match"


Batch = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Print N rounds as plain text (default in a pipe: until interrupted)."),
]
Flows = Annotated[bool, typer.Option("--flows", help="Show flows of Open vSwitch instead of ports.")]
Sort = Annotated[By | None, typer.Option(help="Column to sort by (default: in, the packets per second).")]
Reverse = Annotated[bool, typer.Option("--reverse", help="Reverse the order.")]
Filter = Annotated[str, typer.Option("--filter", metavar="WORDS", help="Show only rows that have all of these words.")]
Interval = Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="Refresh interval.")]


def show(
    kind: str,
    opened: Callable[[], Collector],
    batch: int | None,
    flows: bool,
    sort: By | None,
    reverse: bool,
    words: str,
    interval: float,
    as_json: bool,
) -> int:
    """Show what the collector sees that *opened* gives; the exit status. Answers in JSON are of a *kind*. Asap2Error
    when there is nothing to see."""
    from asap2.errors import UsageError
    from asap2.top import rows
    from asap2.top.plain import View
    from asap2.top.watch import Watch

    names = [column.name for column in (rows.FLOWS if flows else rows.PORTS)]
    if sort is not None and sort.value not in names:
        what = "flows" if flows else "ports"
        raise UsageError(f"{what} have no column {sort.value}; they have {', '.join(names)}")
    view = View(flows, sort.value if sort else rows.NUMBERS_FIRST, reverse, words)
    watch = Watch(opened)
    try:
        if as_json or batch is not None or not _interactive():
            _print(watch, view, interval, batch, kind if as_json else None)
            return 0
        from asap2.extras import need

        need("top")
        watch.look(flows=False)  # what is wrong at once is said in one sentence
        watch.close()
        from asap2.top.app import run

        return run(watch, view, interval)
    finally:
        watch.close()


def _interactive() -> bool:
    """Whether there is a terminal that a program can draw on."""
    usable = os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    return usable and sys.stdin.isatty() and sys.stdout.isatty()


def _print(watch: Watch, view: View, interval: float, count: int | None, kind: str | None) -> None:
    from asap2.answers import answer
    from asap2.host.records import to_data
    from asap2.output import say
    from asap2.screen import Screen
    from asap2.top import plain, rows

    screen = Screen()
    for number, moment in enumerate(plain.moments(watch, view, interval, count)):
        if kind is not None:
            answer(kind, to_data(rows.round_of(moment)), indent=None)
            continue
        if number:
            say()
        screen.write("".join(f"{line}\n" for line in plain.lines(moment, view, screen.width)))
