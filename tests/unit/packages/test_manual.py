# SPDX-License-Identifier: Apache-2.0
"""The reference of the commands says what their help says; the site and the manual pages are made from it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from asap2.cli.main import VERBS, main
from asap2.cli.verbs import COMPLETION, root

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))
import manual  # noqa: E402
import reference  # noqa: E402

PAGES = {name: text for name, (_, text) in reference.pages().items()}


def plain(text: str) -> str:
    """A page without its markup."""
    return " ".join(re.sub(r"\\(?=[*\[<])", "", text).replace("`", "").split())


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and those below it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


EVERY = list(commands(root(VERBS), ("asap2",)))


def test_every_verb_has_a_page() -> None:
    assert set(PAGES) == {"asap2", *(f"asap2-{verb}" for verb in VERBS)}
    assert reference.section_of("asap2-host") == 8
    assert reference.section_of("asap2-lab") == 1


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[" ".join(path) for path, _ in EVERY])
def test_every_command_and_option_is_on_a_page_with_its_help(path: tuple[str, ...], command: Any) -> None:
    page = plain(PAGES["-".join(path[:2])])
    assert " ".join(path) in page
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in page
            assert " ".join((parameter.help or "").replace("`", "").split()) in page


def test_the_manual_has_a_page_of_each_verb_and_document(tmp_path: Path) -> None:
    listed = manual.prepare(tmp_path / "source")
    names = {name for _, name, *_ in listed}
    assert names == {*PAGES, *(name for name, _, _ in manual.DOCUMENTS.values())}
    for document, _name, about, _, section in listed:
        assert (tmp_path / f"source/{document}.md").exists()
        assert about
        assert section in (1, 5, 7, 8)


def test_a_page_refers_to_the_others_and_not_to_itself() -> None:
    said = manual.see_also("asap2-host")
    assert "**asap2-lab**(1), " in said
    assert "**asap2-operator**(7)" in said
    assert "asap2-host" not in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_ask_the_program_for_its_completion(shell: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked = re.search(rf"{COMPLETION}=(\w+) asap2", manual.completion(shell))
    assert asked
    monkeypatch.setenv(COMPLETION, asked[1])
    assert main([]) == 0
    assert "_asap2_completion" in capsys.readouterr().out
