# SPDX-License-Identifier: Apache-2.0
"""What a shell is offered."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.cli import complete
from asap2.cli.main import main
from asap2.cli.verbs import COMPLETION
from asap2.lab.layout import ROOT_VARIABLE


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("host", "host"),
        ("host ch", "check"),
        ("lab up two-n", "two-nodes"),
        ("host check --stri", "--strict"),
        ("openstack config --format pl", "plain"),
        ("exec hv", "hv1"),
        ("shell vm", "vm1"),
    ],
)
def test_what_may_come_next_is_offered(
    words: str, offered: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("nodes/hv1", "guests/vm1"):
        (tmp_path / place / "ns").mkdir(parents=True)
        (tmp_path / place / "ns/net").touch()
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    monkeypatch.setenv(COMPLETION, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"asap2 {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == [f"plain,{offered}"]


def test_pfs_are_devices_that_have_vfs() -> None:
    assert all(Path("/sys/class/net", name, "device/sriov_totalvfs").exists() for name in complete.pfs())
