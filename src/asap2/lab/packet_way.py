# SPDX-License-Identifier: Apache-2.0
"""The way of one packet between two guests as a drawing, made from what was captured and counted.

``tcpdump`` on its representor shows which packets a host handled; the counter of its rule says how many an eSwitch
forwarded by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from asap2 import bars
from asap2.bars import Bar
from asap2.screen import Part, Text, styled


class Way(StrEnum):
    """How a packet passed a hypervisor."""

    HOST = "host"
    """The host saw it."""
    NIC = "nic"
    """The host did not see it, and the eSwitch counted as many packets as the host did not see."""
    UNKNOWN = "unknown"
    """The host did not see it, and the eSwitch counted another number."""


_STYLES = {Way.HOST: "yellow", Way.NIC: "green", Way.UNKNOWN: "red"}
_LEAST_INNER = 21
"""Columns between the two ports of an eSwitch."""
_BAR_COLUMNS = 72


@dataclass(frozen=True, slots=True)
class Passage:
    """A hypervisor that packets pass: its name, its guest's VF and that one's representor, the numbers (from 1) of the
    packets that were ``seen`` at the representor, how many the eSwitch's rule ``counted``, and what that rule does."""

    host: str
    vf: int
    representor: str
    seen: Collection[int]
    counted: int
    actions: Sequence[str]

    def way(self, number: int, sent: int) -> Way:
        """The way of packet *number* of the *sent* packets."""
        if number in self.seen:
            return Way.HOST
        return Way.NIC if self.counted == sent - len(self.seen) else Way.UNKNOWN


def draw(number: int, sent: int, guests: tuple[str, str], passages: tuple[Passage, Passage]) -> list[Text]:
    """The way of packet *number* of *sent* from the one of *guests* through both *passages* to the other: a row for the
    names, one for the hosts if a host saw it, one for the NICs. With names like hv1 and vm1, they fit into 80
    columns."""
    boxes = [_Box.of(one, one.way(number, sent), out=not place) for place, one in enumerate(passages)]
    first = f"  {guests[0]} ─ "
    rows: list[list[Part]] = [[" " * len(first), *boxes[0].name, "   ", *boxes[1].name]]
    if any(one.way(number, sent) is Way.HOST for one in passages):
        rows.append([f"{'  host':{len(first)}}", *boxes[0].host, "   ", *boxes[1].host])
    rows.append([first, *boxes[0].nic, " ═ ", *boxes[1].nic, f" ─ {guests[1]}"])
    return [styled(*row[:-1], row[-1].rstrip() if isinstance(row[-1], str) else row[-1]) for row in rows]


def shares(passages: Sequence[Passage], sent: int) -> list[Text]:
    """Bars: how many of the *sent* packets each host handled, and how many its NIC."""
    made = []
    for one in passages:
        for who, amount, way in (("host", len(one.seen), Way.HOST), ("NIC", one.counted, Way.NIC)):
            made.append(Bar(f"{one.host}, {who}", amount, f"{amount} of {sent}", _STYLES[way]))
    return bars.lines(made, _BAR_COLUMNS)


@dataclass(frozen=True, slots=True)
class _Box:
    """A hypervisor in three rows of the same width."""

    name: list[Part]
    host: list[Part]
    nic: list[Part]

    @classmethod
    def of(cls, passage: Passage, way: Way, *, out: bool) -> _Box:
        """*out*: packets leave by its wire; else they come in there."""
        ports = (f"VF {passage.vf}", "p0") if out else ("p0", f"VF {passage.vf}")
        stops = (passage.representor, "Open vSwitch") if out else ("Open vSwitch", passage.representor)
        above = f" {' ▶ '.join(stops)} "
        rule = {Way.HOST: "no rule", Way.NIC: f" {', '.join(passage.actions)} ", Way.UNKNOWN: " seen nowhere "}[way]
        inner = max(_LEAST_INNER, len(above), len(rule) + 2)
        left, right = (" " * len(port) for port in ports)
        blank: list[Part] = [f"{left} {' ' * inner} {right}"]
        name: list[Part] = [f"{left} {passage.host:^{inner}} {right}"]
        style = _STYLES[way]
        if way is Way.HOST:
            return cls(
                name,
                [left, (f"┌{above:─^{inner}}┐", style), right],
                [ports[0], (f"┘{rule:^{inner}}└", style), ports[1]],
            )
        return cls(name, blank, [ports[0], (f" {rule:{'─' if way is Way.NIC else ' '}^{inner}} ", style), ports[1]])
