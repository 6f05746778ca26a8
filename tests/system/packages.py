# SPDX-License-Identifier: Apache-2.0
"""Packages of which set-up has said that this distribution has none."""

from __future__ import annotations

from pathlib import Path

import pytest

_LEFT_OUT = Path(__file__).parents[2] / "build/stamps/left-out"
"""Rows of scripts/packages, as scripts/setup-steps writes them."""


def skip_without(package: str) -> None:
    """Skip the test where the distribution has no such package; where it has, its absence is a failure."""
    rows = _LEFT_OUT.read_text().split() if _LEFT_OUT.exists() else []
    if package in {name for row in rows for name in row.partition("=")[0].split("|")}:
        pytest.skip(f"this distribution has no package {package}")
