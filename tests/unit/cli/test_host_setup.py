# SPDX-License-Identifier: Apache-2.0
"""What ``asap2 host setup`` takes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from asap2.cli import host_setup
from asap2.cli.host_steps import Shown
from asap2.errors import InterruptError, UsageError
from asap2.host.setup.steps import SetVfs


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
    monkeypatch.setattr(host_setup, "need_root", lambda _: None)
    config = tmp_path / "config.toml"
    config.write_text('[[nic]]\npf = "p0"\n')
    with pytest.raises(UsageError, match=r"^say what is wanted in --config or in options, not in both$"):
        host_setup.setup(config=config, **options)


def test_what_is_under_way_goes_on_when_the_reader_of_a_pipe_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        shown = Shown(False)
        shown.say("nobody reads it")
        shown.say("nor this")


def test_ctrl_c_says_whether_something_was_changed() -> None:
    shown = Shown(True)
    with pytest.raises(InterruptError, match=r"^interrupted: nothing was changed$"), shown.interruptible():
        raise KeyboardInterrupt
    shown.begin(SetVfs("0000:03:00.0", 4))
    with pytest.raises(InterruptError, match=r"run again, and `asap2 host undo` takes back"), shown.interruptible():
        raise KeyboardInterrupt
