# SPDX-License-Identifier: Apache-2.0
"""Rounds as plain text, for pipes and files: what the program on a terminal shows, one below the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from asap2.live import Snapshot
from asap2.output import line
from asap2.quantities import percent, short
from asap2.top import rows
from asap2.top.columns import Column, Row, arranged, fit
from asap2.top.rows import FLOWS, NUMBERS_FIRST, PORTS, Totals
from asap2.top.watch import Moment, Watch

_FLOWS_SECONDS = 10.0
"""How long the first reading of the flows may take before rounds begin without it."""
_AGAIN = 0.1


@dataclass(frozen=True, slots=True)
class View:
    """What is shown: *flows* or ports, in the order of the column *sort*, of those that have the words of *filter*."""

    flows: bool = False
    sort: str = NUMBERS_FIRST
    reverse: bool = False
    filter: str = ""


def moments(watch: Watch, view: View, interval: float, count: int | None) -> Iterator[Moment]:
    """*count* looks, or looks without end, each *interval* seconds after the one before. The first is one with rates.

    Raises:
        Asap2Error: there is nothing to look at (any more).
    """
    _begin(watch, view)
    due = time.monotonic()
    while count is None or count > 0:
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        yield watch.look(flows=view.flows)
        count = None if count is None else count - 1


def _begin(watch: Watch, view: View) -> None:
    """Look for the first time, and until the flows of all nodes have been read, if they are to be shown."""
    give_up = time.monotonic() + _FLOWS_SECONDS
    while True:
        moment = watch.look(flows=view.flows)
        waiting = [node for node in moment.snapshot.nodes if node.state == "up" and node.detail is None]
        if not view.flows or not waiting or time.monotonic() > give_up:
            return
        time.sleep(_AGAIN)


def lines(moment: Moment, view: View, width: int) -> list[str]:
    """One round, in lines of at most *width* characters."""
    made = [line(heading(moment.snapshot)), summary(rows.totals(moment)), *map(line, rows.troubles(moment.snapshot))]
    if view.flows:
        found = rows.flows(moment)
        made.append("")
        if found is None:
            return [*made, "the flows are being read"]
        return made + table(FLOWS, rows.chosen(found, view.filter), view, width)
    return [*made, "", *table(PORTS, rows.chosen(rows.ports(moment), view.filter), view, width)]


def heading(snapshot: Snapshot) -> str:
    """What is watched, and when."""
    when = datetime.fromtimestamp(snapshot.taken).strftime("%H:%M:%S")
    if snapshot.source != "lab":
        return f"{snapshot.source} {snapshot.name}, {when}"
    nodes, guests = len(snapshot.nodes), len(snapshot.guests)
    return f"lab {snapshot.name}, {_number(nodes, 'node')}, {_number(guests, 'guest')}, {when}"


def summary(totals: Totals) -> str:
    """The totals in one line."""
    share = "nothing passes" if totals.hardware is None else f"{percent(totals.hardware)} % in hardware"
    return f"{share}, {short(totals.packets)} packets/s, {short(totals.bits)}bit/s, {short(totals.refused)} refused/s"


def table(columns: Sequence[Column[Row]], found: Sequence[Row], view: View, width: int) -> list[str]:
    """The *found* rows in the view's order, below the headings."""
    shown = fit(columns, found, width)
    found = arranged(columns, found, view.sort, reverse=view.reverse)
    made = [" ".join(column.head(size) for column, size in shown)]
    made += [" ".join(column.cell(row, size) for column, size in shown) for row in found]
    return [text.rstrip() for text in made]


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
