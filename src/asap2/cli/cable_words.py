# SPDX-License-Identifier: Apache-2.0
"""The words of ``asap2 lab cable``: ends, then keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from asap2.errors import UsageError
from asap2.lab.impairment import GOOD, KEYS, Impairment

CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command line asks for: at most two ``ends`` of a cable, and what to change."""

    ends: tuple[str, ...]
    clear: bool = False
    values: dict[str, str] = field(default_factory=dict)

    def change(self, impairment: Impairment) -> Impairment:
        """The impairment as it is to be; UsageError."""
        return (GOOD if self.clear else impairment).changed(self.values)


def read(words: Sequence[str]) -> Asked:
    """What *words* ask for; UsageError."""
    start = next((at for at, word in enumerate(words) if word in (*KEYS, CLEAR)), len(words))
    ends, rest = tuple(words[:start]), list(words[start:])
    if len(ends) > 2:
        raise UsageError(f"{ends[2]!r} is neither an end of the cable nor one of {', '.join(KEYS)}, {CLEAR}")
    if rest and not ends:
        raise UsageError("which cable? `asap2 lab cable END END …`; `asap2 lab cable` lists them")
    clear = CLEAR in rest
    if clear:
        rest.remove(CLEAR)
    values: dict[str, str] = {}
    while rest:
        key = rest.pop(0)
        if not rest:
            raise UsageError(f"{key} needs a value")
        values[key] = rest.pop(0)
    return Asked(ends, clear, values)
