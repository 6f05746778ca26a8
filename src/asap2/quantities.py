# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them on a terminal."""

from __future__ import annotations

_LARGER = ("k", "M", "G", "T", "P")


def short(number: float) -> str:
    """*number* with three significant digits, in at most five characters: ``18.8M``."""
    size, unit = float(number), ""
    for larger in _LARGER:
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g}{unit}"


def significant(number: float, digits: int = 3) -> str:
    """*number* with so many significant digits, or all of its whole part, and never with an exponent: ``1,090``."""
    rounded = float(f"{number:.{digits}g}")
    return f"{number:,.0f}" if abs(rounded) >= 10**digits else f"{rounded:.12f}".rstrip("0").rstrip(".")


def percent(part: float | None) -> str:
    """A *part* from 0 to 1 in percent, in at most five characters; empty for None. Only all of it is ``100``, and only
    nothing is ``0``."""
    if part is None:
        return ""
    if 0 < part < 0.001:
        return "<0.1"
    return f"{min(99.9, 100 * part):.1f}" if 0 < part < 1 else f"{100 * part:.0f}"
