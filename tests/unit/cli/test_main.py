# SPDX-License-Identifier: Apache-2.0
"""The command line: what it refuses, in how many words, and with which exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asap2.cli.main import VERBS, main
from asap2.lab.layout import ROOT_VARIABLE, layout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dance"], "No such command 'dance'; `asap2 --help` shows the usage"),
        (["lab", "dance"], "No such command 'dance'; `asap2 lab --help` shows the usage"),
        (["lab", "up"], "a TOPOLOGY or --nodes N: one is needed; `asap2 lab topologies` lists topologies"),
        (["lab", "up", "vlan", "--nodes", "2"], "a TOPOLOGY or --nodes N: only one can be given"),
        (["lab", "up", "--nodes", "33"], "Invalid value for '--nodes'"),
        (["lab", "up", "nonesuch"], "there is no topology 'nonesuch'; there is bad-cable, "),
        (["--lab"], "--lab needs a NAME; `asap2 lab ls` lists labs"),
        (["lab", "ls", "--lab", "Blue"], "'Blue' cannot be a lab's name; it may have at most 32 lower-case letters"),
        (
            ["--lab", "t-blue", "exec", "hv1", "true"],
            "there is no hv1: no lab is up as t-blue; `asap2",
        ),
        (["exec", "--lab=t-blue", "hv1", "true"], "there is no hv1: no lab is up as t-blue; `asap2"),
        (["exec"], "Missing argument 'NODE|GUEST'; `asap2 exec --help` shows the usage"),
        (["exec", "hv1"], "Missing argument 'CMD…'; `asap2 exec --help` shows the usage"),
        (["exec", "hv1", "--"], "which command is to run in hv1? `asap2 exec hv1 CMD…`"),
        (["exec", "hv1", "true"], "there is no hv1: no lab is up as /"),
        (["shell", "hv1"], "there is no hv1: no lab is up as /"),
        (["lab", "up", "/nonexistent"], "/nonexistent cannot be read: No such file or directory"),
        (["bench", "--rounds", "0"], "Invalid value for '--rounds'"),
        (["demo", "--loud"], "No such option"),
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
    assert json.loads(capsys.readouterr().out)["labs"] == []


def test_down_without_a_lab_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "down"]) == 0
    assert capsys.readouterr().err == "no lab is up\n"


def test_ctrl_c_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_file: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("asap2.host.capture.read", interrupted)
    assert main(["host", "check", "--from", "capture.json"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "words",
    [
        ["lab", "up", "vlan"],
        ["lab", "down"],
        ["lab", "ls"],
        ["exec", "hv1", "true"],
        ["shell", "hv1"],
        ["bench"],
        ["demo"],
        ["openstack", "up"],
        ["openstack", "down"],
        ["openstack", "ls"],
        ["openstack", "start", "x", "y"],
        ["openstack", "stop", "x", "y"],
        ["openstack", "config", "--network", "ovn"],
        ["host", "check"],
        ["host", "setup", "--vfs", "2", "eth0"],
        ["host", "undo"],
        ["host", "status"],
        ["host", "verify", "eth0", "10.0.0.1"],
        ["host", "explain"],
        ["host", "metrics"],
        ["host", "persist"],
        ["host", "capture", "x.json"],
    ],
    ids=" ".join,
)
def test_who_is_not_root_is_told_so_first(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(words) == 1
    said = capsys.readouterr().err
    start, _, rest = said.partition(" …`")
    assert start.startswith("asap2: this needs root; say `sudo asap2 ")
    assert " ".join(words).startswith(start.removeprefix("asap2: this needs root; say `sudo asap2 "))
    assert rest in ("\n", ", or give --from FILE\n")


def test_a_lab_has_a_name_or_the_path_of_its_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"default": "/run/asap2", "": "/run/asap2", "blue": "/run/asap2.blue", "/tmp/x": "/tmp/x"}
    for name, root in names.items():
        monkeypatch.setenv(ROOT_VARIABLE, name)
        assert str(layout().root) == root
        assert layout().name == (name or "default")
