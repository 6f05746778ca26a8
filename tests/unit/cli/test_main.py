# SPDX-License-Identifier: Apache-2.0
"""The command line: what it refuses, in how many words, and with which exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.cli.main import VERBS, main
from asap2.lab.layout import ROOT_VARIABLE


@pytest.fixture(autouse=True)
def _no_lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "lab"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dance"], "No such command 'dance'; `asap2 --help` shows the usage"),
        (["lab", "dance"], "No such command 'dance'; `asap2 lab --help` shows the usage"),
        (["lab", "up"], "Missing argument 'FILE'; `asap2 lab up --help` shows the usage"),
        (["exec"], "Missing argument 'NODE|GUEST'; `asap2 exec --help` shows the usage"),
        (["exec", "hv1"], "Missing argument 'CMD…'; `asap2 exec --help` shows the usage"),
        (["exec", "hv1", "--"], "which command is to run in hv1? `asap2 exec hv1 CMD…`"),
        (["exec", "hv1", "true"], "there is no hv1: no lab is up; `asap2 lab up FILE` makes one"),
        (["shell", "hv1"], "there is no hv1: no lab is up; `asap2 lab up FILE` makes one"),
        (["lab", "up", "/nonexistent"], "/nonexistent cannot be read: No such file or directory"),
        (["bench", "--rounds", "0"], "Invalid value for '--rounds'"),
        (["demo", "--loud"], "No such option: --loud"),
    ],
)
def test_bad_usage_is_one_sentence_and_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"asap2: {said}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(verb in output for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert "Usage: asap2" in capsys.readouterr().out


def test_ls_without_a_lab_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "ls"]) == 0
    assert capsys.readouterr().err == "no lab is up\n"
    assert main(["lab", "ls", "--json"]) == 0
    assert capsys.readouterr().out == "null\n"


def test_down_without_a_lab_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "down"]) == 0
    assert capsys.readouterr().err == "no lab is up\n"


def test_ctrl_c_is_told_in_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_file: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("asap2.host.capture.read", interrupted)
    assert main(["host", "check", "--from", "capture.json"]) == 130
    assert capsys.readouterr().err == "asap2: interrupted\n"
