# SPDX-License-Identifier: Apache-2.0
"""Ways as people read them: a line for each step, with the time since the first in microseconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from asap2.trace import words
from asap2.trace.model import Ending, Medium, Stage, Way

_MARKS = {Medium.HARDWARE: "hw", Medium.SOFTWARE: "sw"}


def micros(nanoseconds: int) -> str:
    """Nanoseconds as microseconds."""
    return f"{nanoseconds / 1000:.1f}"


def lines(way: Way, *, verbose: bool = False, timed: bool = True) -> Iterator[str]:
    """The lines of one way; *verbose* with what each rule matches on. Not *timed*: it has not really happened."""
    yield f"packet {way.number}: {words.frame(way.frame, way.length)}"
    width = max(len(micros(step.at - way.began)) for step in way.steps) + 1 if timed else -5
    places = max(len(f"{step.node} {step.device}") for step in way.steps)
    for step in way.steps:
        place = f"{step.node} {step.device}"
        time = f"{micros(step.at - way.began):>{width}} µs  " if timed else ""
        yield f"  {time}{_MARKS[step.medium]}  {place:<{places}}  {step.text}"
        indent = " " * (width + places + 15)
        if step.why:
            yield f"{indent}because {step.why}"
        if step.rewritten:
            yield f"{indent}rewritten: {', '.join(f'{name} {old} to {new}' for name, old, new in step.rewritten)}"
        if step.connection and "connection" not in step.text:
            yield f"{indent}connection: {step.connection}"
        if step.mask and verbose:
            yield f"{indent}matches on {', '.join(step.mask)}"
    yield f"  {summary(way) if timed else ending(way)}"


def ending(way: Way) -> str:
    """What would become of a packet."""
    if way.targets:
        return f"{', '.join(dict.fromkeys(way.targets))} would get it"
    last = way.steps[-1]
    return (
        "Open vSwitch would decide" if last.stage is Stage.UPCALL else f"nobody would get it: {last.why or last.text}"
    )


def summary(way: Way) -> str:
    """What became of a packet, in one sentence."""
    took = f"{micros(way.ended - way.began)} µs"
    if way.ending is Ending.DELIVERED:
        how = "in hardware alone" if way.in_hardware else "partly in software"
        return f"{way.origin} to {', '.join(dict.fromkeys(way.targets))} in {took}, {how}"
    if way.ending is Ending.DROPPED:
        why = next((step.why for step in reversed(way.steps) if step.stage == "drop"), None)
        return f"from {way.origin}, dropped after {took}{f': {why}' if why else ''}"
    return f"from {way.origin}, out of sight after {took}"


def round_trips(ways: Iterable[Way]) -> Iterator[str]:
    """Of each echo request and its reply, the time from the first step of the one to the last of the other."""
    asked: dict[tuple[str, tuple[int, int]], Way] = {}
    for way in ways:
        echo = words.echo_of(way.frame)
        if echo is None or not way.targets:
            continue
        request = asked.pop((way.targets[-1], echo), None)
        if request is not None and way.origin in request.targets:
            took = way.ended - request.began
            yield (
                f"round trip of seq {echo[1]}: {took / 1e6:.3f} ms "
                f"(there {micros(request.ended - request.began)} µs, {request.targets[-1]} itself "
                f"{micros(way.began - request.ended)} µs, back {micros(way.ended - way.began)} µs)"
            )
        else:
            asked[way.origin, echo] = way
