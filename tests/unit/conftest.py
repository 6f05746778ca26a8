# SPDX-License-Identifier: Apache-2.0
"""What unit tests have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.lab.layout import ROOT_VARIABLE


@pytest.fixture(autouse=True)
def no_lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No lab is up, whatever runs on the machine meanwhile."""
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "lab"))
