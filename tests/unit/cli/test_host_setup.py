# SPDX-License-Identifier: Apache-2.0
"""What ``asap2 host setup`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asap2.cli import host_setup
from asap2.errors import UsageError


@pytest.mark.parametrize(
    "options",
    [
        {"pfs": ["p0"]},
        {"vfs": 2},
        {"order": "vfs-first"},
        {"bridge": "br0"},
        {"uplink": False},
        {"representors": True},
        {"restart": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_beside_a_configuration_is_an_error_and_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(host_setup, "need_root", lambda: None)
    config = tmp_path / "config.toml"
    config.write_text('[[nic]]\npf = "p0"\n')
    with pytest.raises(UsageError, match=r"^say what is wanted in --config or in options, not in both$"):
        host_setup.setup(config=config, **options)
