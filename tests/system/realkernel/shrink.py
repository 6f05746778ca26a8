# SPDX-License-Identifier: Apache-2.0
"""Makes cases that differ small: what is not needed for the difference goes, until nothing more can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import tc
from tests.system.realkernel import machine
from tests.system.realkernel.machine import Case, Result, Step, ask

Removal = tuple[Any, ...]
"""A step, or an option of a request, or an action of its list, by number and name."""
Differs = Callable[[Case, Result], bool]


@dataclass
class _Shrinking:
    case: list[Step]
    gone: frozenset[Removal] = frozenset()
    works: tuple[frozenset[Removal], ...] = ()
    done: bool = False


def shrink(cases: Sequence[Case], differs: Differs, *, rounds: int = 12) -> list[list[Step]]:
    """*cases*, each as small as found in some *rounds*; every round is one boot of the kernel for all of them."""
    all_of_them = [_Shrinking(list(case)) for case in cases]
    for _ in range(rounds):
        attempts = [(one, gone) for one in all_of_them if not one.done for gone in _attempts(one)]
        if not attempts:
            break
        tried = [_without(one.case, gone) for one, gone in attempts]
        results = machine.run(tried)
        found: dict[int, list[frozenset[Removal]]] = {}
        for (one, gone), case, result in zip(attempts, tried, results, strict=True):
            if differs(case, result):
                found.setdefault(id(one), []).append(gone)
        for one in all_of_them:
            if not one.done:
                _learn(one, found.get(id(one), []))
    return [_without(one.case, one.gone) for one in all_of_them]


def _attempts(one: _Shrinking) -> Iterator[frozenset[Removal]]:
    """Single removals; or, when some are known to work, those together: all, halves, quarters and each alone."""
    if not one.works:
        yield from (one.gone | {removal} for removal in _removals(one.case) if not _covered(removal, one.gone))
        return
    parts = 1
    while parts < 2 * len(one.works):
        size = -(-len(one.works) // parts)
        for at in range(0, len(one.works), size):
            yield one.gone.union(*one.works[at : at + size])
        parts *= 2


def _learn(one: _Shrinking, works: list[frozenset[Removal]]) -> None:
    if not one.works:
        one.works = tuple(works)
        one.done = not works
        return
    one.works = ()
    if works:
        one.gone = max(works, key=len)
    else:
        one.done = True


def _covered(removal: Removal, gone: frozenset[Removal]) -> bool:
    return removal in gone or removal[:1] in gone


def _removals(case: Case) -> Iterator[Removal]:
    for number, step in enumerate(case):
        if step[0] == "send":
            yield (number,)
        elif step[1] in (tc.RTM_NEWTFILTER, tc.RTM_DELTFILTER, tc.RTM_GETTFILTER):
            yield (number,)
            if step[1] == tc.RTM_NEWTFILTER:
                yield from ((number, *where) for where in _parts(step[3]))


def _parts(payload: bytes) -> Iterator[Removal]:
    _, attrs = tc.TC.decode(payload)
    yield from ((name,) for name in attrs if name not in ("kind", "options"))
    for name, value in attrs["options"].items():
        if name == "act" and isinstance(value, Attrs):
            yield from ((name, number) for number in value)
        elif not str(name).endswith("_mask"):
            yield (name,)


def _without(case: Case, gone: frozenset[Removal]) -> list[Step]:
    made: list[Step] = []
    for number, step in enumerate(case):
        if (number,) in gone:
            continue
        wanted = [removal[1:] for removal in gone if removal[0] == number]
        if wanted and step[0] == "ask":
            step = ask(step[1], step[2], _thinner(step[3], wanted))
        made.append(step)
    return made


def _thinner(payload: bytes, gone: list[Removal]) -> bytes:
    header, attrs = tc.TC.decode(payload)
    options = attrs["options"]
    for name, *number in gone:
        if number:
            options["act"].pop(number[0], None)
        elif name in options:
            options.pop(name)
            options.pop(f"{name}_mask", None)
        else:
            attrs.pop(name, None)
    if "act" in options:
        options["act"] = list(options["act"].values())
    return tc.TC.encode(header, attrs)
