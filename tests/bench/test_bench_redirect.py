# SPDX-License-Identifier: Apache-2.0
"""The suite of redirected requests measures all that it should, in numbers that say nothing about speed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from asap2.lab.bench.redirect import run as suite
from asap2.lab.bench.redirect.plot import plot
from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from tests.system.netlink.static_programs import BUILT


def test_all_that_is_promised_is_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "TURNS", 1)
    monkeypatch.setenv("GOCACHE", str(BUILT / "go-cache"))
    root = Path(f"/run/t-redirect-{tmp_path.parent.name}")
    result = suite.run(Lab(Layout(root)), 1, lambda _line: None, count=10)
    assert not root.exists()
    assert {way: set(figures) for way, figures in result["figures"].items()} == {
        way: set(suite.REQUESTS) for way in suite.WAYS
    }
    assert all(figure["median"] > 0 for figures in result["figures"].values() for figure in figures.values())
    assert set(result["ratios"]) == {ratio.name for ratio in suite.RATIOS + suite.GO_RATIOS}
    assert {target.name for target in suite.TARGETS + suite.GO_TARGETS} < set(result["targets"])
    plot(result, tmp_path / "plot.png")
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert suite._compiled(tmp_path) is None
    del result["figures"]["go"]
    plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
