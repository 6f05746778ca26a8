# SPDX-License-Identifier: Apache-2.0
"""How bad a cable is, in the units of tc(8): ``10ms``, ``1%``, ``100mbit``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from asap2.errors import UsageError

KEYS = ("delay", "jitter", "loss", "rate")
_NUMBER = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)([a-zA-Z%]*)", re.ASCII)
_TIMES = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
MOST_TIME = 60 * _TIMES["s"]
LEAST_RATE, MOST_RATE = 8_000, 400 * 10**9
"""Bits a second: a slower cable would hold a packet for seconds; none is faster."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a cable does to the packets in each direction: ``delay`` and ``jitter`` in nanoseconds, ``loss`` in
    millionths of the packets, ``rate`` in bits a second (0: its own)."""

    delay: int = 0
    jitter: int = 0
    loss: int = 0
    rate: int = 0

    def __bool__(self) -> bool:
        return self != Impairment()

    def __str__(self) -> str:
        return " ".join(f"{key} {value}" for key, value in self.as_words().items()) or "none"

    def as_words(self) -> dict[str, str]:
        """Those values that are not 0, as :func:`parse` takes them."""
        written = {
            "delay": _written(self.delay, _TIMES),
            "jitter": _written(self.jitter, _TIMES),
            "loss": f"{self.loss / 10_000:.6g}%",
            "rate": _written(self.rate, _RATES),
        }
        return {key: text for key, text in written.items() if getattr(self, key)}

    def as_data(self) -> dict[str, Any]:
        """The values for programs, in units that the keys name."""
        return {
            "delay_ms": self.delay / 10**6,
            "jitter_ms": self.jitter / 10**6,
            "loss_percent": self.loss / 10**4,
            "rate_mbit": self.rate / 10**6,
        }

    def changed(self, words: dict[str, str]) -> Impairment:
        """This one with the values of *words* in place of its own; UsageError."""
        values = {key: getattr(self, key) for key in KEYS} | {key: _value(key, text) for key, text in words.items()}
        made = Impairment(**values)
        if made.jitter > made.delay:
            raise UsageError(f"jitter {made.as_words()['jitter']} is more than the delay: a packet cannot come early")
        return made


GOOD = Impairment()
"""Of a cable that does nothing to packets."""


def _value(key: str, text: str) -> int:
    found = _NUMBER.fullmatch(text)
    if key not in KEYS:
        raise UsageError(f"{key!r} is not one of {', '.join(KEYS)}")
    if found is None:
        raise _error(key, text)
    number, unit = float(found[1]), found[2].lower()
    if not number and not unit:
        return 0
    if key == "loss":
        if unit != "%" or number > 100:
            raise _error(key, text)
        return round(number * 10_000)
    units = _RATES if key == "rate" else _TIMES
    value = round(number * units[unit]) if unit in units else -1
    if value < 0 or (key == "rate" and value and not LEAST_RATE <= value <= MOST_RATE):
        raise _error(key, text)
    if key != "rate" and value > MOST_TIME:
        raise _error(key, text)
    return value


def _error(key: str, text: str) -> UsageError:
    wanted = {"loss": "0% to 100%", "rate": "8kbit to 400gbit"}.get(key, "0 to 60s, as 10ms or 250us")
    return UsageError(f"{key} {text!r} must be {wanted}")


def _written(value: int, units: dict[str, int]) -> str:
    unit = max((unit for unit, size in units.items() if size <= max(value, 1)), key=lambda unit: units[unit])
    return f"{value / units[unit]:.9g}{unit}"
