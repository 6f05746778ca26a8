# SPDX-License-Identifier: Apache-2.0
"""A lab of which little is known is described, too: it may be coming, going, or another version's."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.lab.description import describe
from asap2.lab.layout import Layout


@pytest.mark.parametrize(
    ("record", "state"),
    [
        (None, "half up"),
        ("", "of another version"),
        ('{"nodes": [{"name": "a"}]}', "half up"),
        ('{"nodes": [], "guests": []}', "of another version"),
        ('{"nodes": [], "guests": [], "cables": [["a/nic0/p0", "b/nic0/p0"]]}', "of another version"),
    ],
)
def test_it_has_a_state(record: str | None, state: str, tmp_path: Path) -> None:
    if record is not None:
        (tmp_path / "lab.json").write_text(record)
    found = describe(Layout(tmp_path))
    assert (found["state"], found["nodes"], found["root"]) == (state, [], str(tmp_path))
