# SPDX-License-Identifier: Apache-2.0
"""Commands that are functions with annotations."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import click
import pytest
from click.testing import CliRunner

from asap2.cli import typer


class Kind(enum.Enum):
    SMALL = "small"
    LARGE = "large"


app = typer.Typer()


@app.command()
def do_it(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Who.")] = None,
    number: Annotated[int, typer.Option(min=1, max=9, help="How many.")] = 3,
    kind: Annotated[Kind, typer.Option(help="Which.")] = Kind.SMALL,
    file_name: Annotated[Path | None, typer.Option(metavar="FILE", help="Where.")] = None,
    word: Annotated[list[str] | None, typer.Option(help="What.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even so.")] = False,
    color: Annotated[bool, typer.Option(help="In colours.")] = True,
) -> None:
    """Do it. At once.

    All of it."""
    GIVEN.update(locals())


GIVEN: dict[str, Any] = {}


def given(*words: str) -> dict[str, Any]:
    GIVEN.clear()
    result = CliRunner().invoke(typer.get_command(app), words, standalone_mode=False)
    if result.exception:
        raise result.exception
    return GIVEN


def test_what_is_not_given_has_its_default() -> None:
    assert given() == {
        "names": None,
        "number": 3,
        "kind": Kind.SMALL,
        "file_name": None,
        "word": None,
        "force": False,
        "color": True,
    }


def test_what_is_given_has_its_type() -> None:
    words = "a b --number 9 --kind large --file-name /x --word p --word q --force --no-color"
    assert given(*words.split()) == {
        "names": ["a", "b"],
        "number": 9,
        "kind": Kind.LARGE,
        "file_name": Path("/x"),
        "word": ["p", "q"],
        "force": True,
        "color": False,
    }


@pytest.mark.parametrize("words", ["--number 10", "--number x", "--kind huge", "--no-force", "--other"])
def test_what_makes_no_sense_is_refused(words: str) -> None:
    with pytest.raises(click.UsageError):
        given(*words.split())


def test_help_has_arguments_options_and_defaults() -> None:
    text = " ".join(CliRunner().invoke(typer.get_command(app), ["--help"], **typer.settings()).output.split())
    for part in (
        "[NAME]… Who.",
        "--number INTEGER RANGE How many.",
        "--kind [small|large] Which.",
        "--color / --no-color In colours.",
        "Do it. At once. All of it.",
    ):
        assert part in text


def test_a_list_of_commands_has_the_first_sentence_of_each() -> None:
    assert typer.get_command(app).get_short_help_str() == "Do it."
