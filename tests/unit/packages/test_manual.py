# SPDX-License-Identifier: Apache-2.0
"""The manual pages say what the commands' help says; they are written from it whenever a package is made."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from asap2.cli.main import VERBS, main
from asap2.cli.verbs import COMPLETION, root

ROOT = Path(__file__).parents[3]
MANUAL = runpy.run_path(str(ROOT / "scripts/manual.py"))
PAGES: dict[str, str] = MANUAL["pages"]()


def plain(page: str) -> str:
    """A page without fonts and escapes."""
    return re.sub(r"\\f[BP]|\\&", "", page).replace("\\-", "-").replace("\\e", "\\").replace("\\(dq", '"')


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and those below it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


EVERY = list(commands(root(VERBS), ("asap2",)))


def test_every_verb_has_a_page() -> None:
    assert {"asap2.1", *(f"asap2-{verb}.{8 if verb == 'host' else 1}" for verb in VERBS)} <= set(PAGES)


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[" ".join(path) for path, _ in EVERY])
def test_every_command_and_option_is_on_a_page_with_its_help(path: tuple[str, ...], command: Any) -> None:
    name = "-".join(path[:2])
    page = " ".join(plain(PAGES[f"{name}.{8 if path[1:2] == ('host',) else 1}"]).split())
    assert " ".join(path) in page
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in page
            assert " ".join((parameter.help or "").replace("`", "").split()) in page


def test_a_document_is_a_page_as_a_whole() -> None:
    page = plain(PAGES["asap2-operator.7"])
    for heading in re.findall(r"^## (.*)$", (ROOT / "docs/operator.md").read_text(), re.MULTILINE):
        assert f'.SH "{heading.upper()}"' in page
    assert "```" not in page
    assert "\n|" not in page


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_in_the_form_of_man(name: str) -> None:
    if shutil.which("mandoc"):
        done = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "warning"], input=PAGES[name], capture_output=True, text=True
        )
        assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []
    assert PAGES[name].startswith('\'\\" -*- coding: UTF-8 -*-\n.\\" Written by')
    macros = set(re.findall(r"^\.([A-Za-z\\]+)", PAGES[name], re.MULTILINE))
    assert macros <= {"TH", "SH", "SS", "PP", "TP", "IP", "RS", "RE", "nf", "fi", "\\"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_ask_the_program_for_its_completion(shell: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked = re.search(rf"{COMPLETION}=(\w+) asap2", MANUAL["completion"](shell))
    assert asked
    monkeypatch.setenv(COMPLETION, asked[1])
    assert main([]) == 0
    assert "_asap2_completion" in capsys.readouterr().out
