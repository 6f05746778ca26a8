# SPDX-License-Identifier: Apache-2.0
"""Tables and colours."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

import asap2
from asap2.screen import Group, Live, Screen, Text, styled, table

SOURCES = Path(asap2.__file__).parent
BOLD, RED, RESET = "\x1b[1m", "\x1b[31m", "\x1b[0m"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def printed(*what: object, columns: int | None = None, wrap: bool = True) -> str:
    with pytest.MonkeyPatch.context() as patch:
        if columns:
            patch.setenv("COLUMNS", str(columns))
        file = io.StringIO()
        Screen(file=file, wrap=wrap).print(*what)  # type: ignore[arg-type]
        return file.getvalue()


def test_columns_are_as_wide_as_their_cells() -> None:
    shown = table("Things", "name", "n", "what")
    shown.columns[1].justify = "right"
    shown.add_row("a", "1", "one\ntwo")
    shown.add_row("longer", "100", "")
    assert printed(shown) == "Things\nname      n  what\na         1  one\n             two\nlonger  100\n"


def test_a_wide_table_breaks_between_words_and_spares_what_is_not_to_be_broken() -> None:
    shown = table("", "address", "about")
    shown.columns[0].no_wrap = True
    shown.add_row("03:00.2 x", "one two three four")
    assert printed(shown, columns=18) == "address    about\n03:00.2 x  one two\n           three\n           four\n"


def test_wide_characters_take_two_cells() -> None:
    shown = table("", "a", "b")
    shown.add_row("文字", "x")
    shown.add_row("abcd", "y")
    assert printed(shown) == "a     b\n文字  x\nabcd  y\n"


@pytest.mark.parametrize("wrap", [False, True])
def test_text_is_broken_only_where_that_is_asked_for(wrap: bool) -> None:
    assert printed("one two three", columns=8, wrap=wrap) == ("one two\nthree\n" if wrap else "one two three\n")


def test_styles_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    words = styled(("bad", "red"), " news", style="bold")
    assert printed(words) == "bad news\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert printed(words) == f"\x1b[1;31mbad{RESET}{BOLD} news{RESET}\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed(words) == "bad news\n"


def test_a_group_is_one_below_the_other() -> None:
    shown = table("", "a")
    assert printed(Group("x", Text(), shown)) == "x\n\na\n"


def test_a_page_replaces_the_one_before() -> None:
    file = io.StringIO()
    with Live("one\ntwo", console=Screen(file=file)) as live:
        live.update("three")
    assert file.getvalue() == "\x1b[?25lone\ntwo\n" + 2 * "\x1b[1A\x1b[2K" + "three\n\x1b[?25h"


def test_every_style_in_the_program_is_known() -> None:
    """Styles are strings beside text, so that a wrong one would be found only where it is printed."""
    words = r"(?:bold|dim|italic|underline|reverse|black|red|green|yellow|blue|magenta|cyan|white|bright_\w+)"
    pattern = re.compile(rf'"({words}(?: {words})*)"')
    styles = {style for path in SOURCES.rglob("*.py") for style in pattern.findall(path.read_text())}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORCE_COLOR", "1")
        for style in styles:
            assert printed(styled(("x", style))).startswith("\x1b["), style
    assert "bold cyan" in styles
