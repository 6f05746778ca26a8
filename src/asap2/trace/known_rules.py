# SPDX-License-Identifier: Apache-2.0
"""The rules of a lab's pipelines while they are watched, and why none of them was for a packet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from asap2.errors import Asap2Error
from asap2.nic.fields import FIELD_BITS
from asap2.nic.rules import OVS_TABLE, Masked, Match, Rule
from asap2.nic.silicon import packet
from asap2.nic.silicon.watching import Record
from asap2.nic.watchers import NODE
from asap2.trace import words
from asap2.trace.node import NodeWatch, PortOf, in_nic

_MOST: Final = 4096
"""Rules of one pipeline that are read when watching begins."""
_OUTSIDE: Final = ("tun_", "ct_", "dp_hash", "skb_", "in_tunnel")
"""Fields that a packet's octets do not show."""

_Key = tuple[str, str, int]
_Known = tuple[Rule, int]


class KnownRules:
    """Rules by node, pipeline and handle, and since when each is there, in nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self, nodes: Iterable[NodeWatch] = ()) -> None:
        """Read the rules of the pipelines of *nodes*, before they are watched. Asap2Error."""
        self._known: dict[_Key, _Known] = {}
        self._whole: set[tuple[str, str]] = set()
        for node in nodes:
            for pipeline in node.pipelines:
                rules = node.rules(pipeline, _MOST)
                self.know(node, pipeline, rules, whole=len(rules) < _MOST)

    def know(self, node: NodeWatch, pipeline: str, rules: Mapping[int, Rule], *, whole: bool) -> None:
        """These rules are there already; with *whole*, no others."""
        if whole:
            self._whole.add((node.name, pipeline))
        for handle, rule in rules.items():
            self._known[node.name, pipeline, handle] = rule, 0

    def put(self, node: NodeWatch, pipeline: str, handle: int, rule: Rule, since: int) -> None:
        """A rule was put."""
        self._known[node.name, pipeline, handle] = rule, since

    def get(self, node: NodeWatch, pipeline: str, handle: int) -> Rule | None:
        """A rule; None: nobody knows it any more."""
        known = self._known.get((node.name, pipeline, handle))
        if known is not None:
            return known[0]
        try:
            rule = node.rule(pipeline, handle)
        except Asap2Error:
            return None
        if rule is not None:
            self._known[node.name, pipeline, handle] = rule, 0
        return rule

    def why_not(self, node: NodeWatch, port: PortOf, record: Record, frame: bytes) -> str:
        """Why no rule of a table was for a packet: there was none, or the one that came nearest differs."""
        place = "the NIC" if in_nic(port.pipeline) else "the node"
        table = _table(record.table)
        known = {"ct_state": record.cookie >> 48}
        fields = _fields(frame, known)
        there = {
            handle: _differing(rule.match, fields, known)
            for (name, pipeline, handle), (rule, since) in self._known.items()
            if (name, pipeline) == (node.name, port.pipeline)
            and (rule.in_port, rule.table) == (port.id, record.table)
            and since < record.now
        }
        while there:
            nearest = min(there, key=lambda handle: len(there[handle]))
            if there[nearest]:
                count = "the one rule" if len(there) == 1 else f"the nearest of {len(there)} rules"
                return f"{count} in {table} wants {', '.join(there[nearest][:3])}"
            if node.rule(port.pipeline, nearest) is not None:
                return "the rule for such packets wants another connection, or a tunnel that this one is not in"
            del self._known[node.name, port.pipeline, nearest], there[nearest]  # it had been removed by then
        if (node.name, port.pipeline) not in self._whole:
            return f"none of the rules of {place} in {table} matches"
        return f"{place} has no rule for packets of this port in {table}"

    @staticmethod
    def covers(rule: Rule, frame: bytes) -> bool:
        """Whether a rule matches a packet, as far as its octets show."""
        return not differing(rule.match, frame)


def differing(match: Match, frame: bytes, known: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """What a match wants that a packet does not have, as far as its octets show, and what is *known* of it besides."""
    known = known or {}
    return _differing(match, _fields(frame, known), known)


def _fields(frame: bytes, known: Mapping[str, int]) -> dict[str, int]:
    return (packet.parse(frame) if len(frame) >= packet.HEADER else {}) | dict(known)


def _differing(match: Match, fields: Mapping[str, int], known: Mapping[str, int]) -> tuple[str, ...]:
    found = []
    for name, wanted in match.used().items():
        shown = name in known or not name.startswith(_OUTSIDE)
        if shown and not wanted.covers(fields.get(name, 0)):
            found.append(words.masked(name, Masked(*wanted), FIELD_BITS[name]))
    return tuple(found)


def _table(table: int) -> str:
    """A table as its owner calls it."""
    return f"recirculation {table & ~OVS_TABLE}" if table & OVS_TABLE else f"chain {table}"


def table_title(pipeline: str, table: int) -> str:
    """A table as its owner calls it, and who that is."""
    if pipeline == NODE:
        return f"Open vSwitch's datapath, {_table(table)}" if table & OVS_TABLE else f"TC, {_table(table)}"
    return _table(table)
