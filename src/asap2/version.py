# SPDX-License-Identifier: Apache-2.0
"""Which asap2 this is."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path


def version() -> str:
    """The version that is installed; in a checkout, with the commit."""
    try:
        installed = importlib.metadata.version("asap2")
    except importlib.metadata.PackageNotFoundError:
        installed = "unknown"
    commit = _commit(Path(__file__).resolve().parents[2])
    return f"{installed} ({commit})" if commit else installed


def _commit(top: Path) -> str | None:
    """What git says of the checkout *top*; None where that is none."""
    if not (top / ".git").exists():
        return None
    command = ["git", "-c", f"safe.directory={top}", "-C", str(top), "describe", "--always", "--dirty", "--tags"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
