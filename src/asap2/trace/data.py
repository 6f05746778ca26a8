# SPDX-License-Identifier: Apache-2.0
"""Ways as data for programs: docs/schemas/trace.json."""

from __future__ import annotations

import math
from typing import TypedDict

from asap2.trace import words
from asap2.trace.model import Ending, Medium, Stage, Way


class StepData(TypedDict):
    """One step of a packet. ``microseconds`` are since the first; ``why`` says why hardware does not carry it, or why
    it was dropped; ``rule`` is the rule that decided, with what it ``matches`` on and its ``actions``; ``rewritten``
    are the fields that differ from those that the packet had when it came in there: name, before, after."""

    microseconds: float
    node: str
    device: str
    stage: Stage
    medium: Medium
    text: str
    why: str | None
    rule: str | None
    matches: list[str]
    actions: list[str]
    connection: str | None
    rewritten: list[tuple[str, str, str]]


class WayData(TypedDict):
    """The way of one packet: ``frame`` is its beginning, in hexadecimal, where it was first seen, and ``octets`` its
    length there. ``began`` is in nanoseconds of CLOCK_MONOTONIC, ``microseconds`` until the last guest got it."""

    number: int
    packet: str
    frame: str
    octets: int
    origin: str
    targets: list[str]
    ending: Ending
    in_hardware: bool
    began: int
    microseconds: float
    steps: list[StepData]


def of(way: Way, *, timed: bool = True) -> WayData:
    """*way* as data; not *timed*, where nothing has really happened, all times are 0."""
    began, unit = (way.began, 1000) if timed else (0, math.inf)
    return {
        "number": way.number,
        "packet": words.frame(way.frame, way.length),
        "frame": way.frame.hex(),
        "octets": way.length,
        "origin": way.origin,
        "targets": list(dict.fromkeys(way.targets)),
        "ending": way.ending,
        "in_hardware": way.in_hardware,
        "began": began,
        "microseconds": (way.ended - way.began) / unit,
        "steps": [
            {
                "microseconds": (step.at - way.began) / unit,
                "node": step.node,
                "device": step.device,
                "stage": step.stage,
                "medium": step.medium,
                "text": step.text,
                "why": step.why,
                "rule": step.rule,
                "matches": list(step.mask),
                "actions": list(step.actions),
                "connection": step.connection,
                "rewritten": list(step.rewritten),
            }
            for step in way.steps
        ],
    }
