# SPDX-License-Identifier: Apache-2.0
"""Findings about settings: as those of `asap2 host check`, their subject a place in a file."""

from __future__ import annotations

from asap2.host.check.finding import Finding, Verdict


def ok(id: str, found: str, place: str | None = None) -> Finding:
    """It is right."""
    return Finding(id, Verdict.OK, found, "", None, place)


def warn(id: str, found: str, why: str, fix: str | None = None, place: str | None = None) -> Finding:
    """It works, and may be meant otherwise."""
    return Finding(id, Verdict.WARN, found, why, fix, place)


def fail(id: str, found: str, why: str, fix: str | None = None, place: str | None = None) -> Finding:
    """It is not what it seems to be, or stands in the way."""
    return Finding(id, Verdict.FAIL, found, why, fix, place)


def unknown(id: str, found: str, why: str, fix: str | None = None, place: str | None = None) -> Finding:
    """It cannot be told."""
    return Finding(id, Verdict.UNKNOWN, found, why, fix, place)
