# SPDX-License-Identifier: Apache-2.0
"""Terminals: narrow ones, progress, pages that follow each other."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

import asap2
from asap2.cli import lab_tables
from asap2.cli.host_status import follow
from asap2.progress import Progress
from asap2.screen import Group, Screen, Text, table
from tests.unit.test_output import lab


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_word_of_a_lab_is_cut_on_a_terminal_of_any_width(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lab_tables.print_lab(lab("0000:03:00.0 enp3s0f0v0"))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line.rstrip()) <= columns for line in lines)
    assert "…" not in "".join(lines)
    words = " ".join(lines).replace(",", "").split()
    assert {"0000:03:00.0", "enp3s0f0v0", "2"} <= set(words)


def shown(columns: int) -> list[str]:
    made = table("T", "name", "what")
    made.add_row("a", "one two")
    made.add_row("b", "")
    file = io.StringIO()
    screen = Screen(file=file, wrap=True)
    screen.width = columns
    screen.print(made)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_row_is_a_paragraph_where_words_have_no_room_beside_each_other() -> None:
    assert shown(40) == ["T", "name  what", "a     one two", "b"]
    assert shown(10) == ["T", "name  what", "a     one", "      two", "b"]
    assert shown(9) == ["T", "name: a", "what: one", "two", "", "name: b"]


def test_progress_is_one_line_of_a_terminal_and_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Terminal()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")
    with Progress() as progress:
        progress.step("making a node with a very long name")
        progress.say("a line")
        progress.step("\x1b]0;owned\x07")
    first, line, last = file.getvalue().replace("a line\n", "|a line|").split("|")
    assert line == "a line"
    assert len(first.replace("\r\x1b[K", "")) < 30
    assert "\x1b]0" not in last
    assert last.endswith("\r\x1b[K")


def test_progress_is_silent_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with Progress() as progress:
        progress.step("making a node")
    assert file.getvalue() == ""


def pages(screen: Screen, *heights: int) -> None:
    """Follow pages of so many lines, until Ctrl-C."""
    left = list(heights)

    def look() -> Group:
        if not left:
            raise KeyboardInterrupt
        return Group(*(Text(f"line {number}") for number in range(left.pop(0))))

    with pytest.raises(KeyboardInterrupt):
        follow(look, screen, lambda: None)


def test_pages_follow_each_other_in_a_pipe() -> None:
    file = io.StringIO()
    pages(Screen(file=file, wrap=True), 1, 2)
    assert file.getvalue() == "line 0\nline 0\nline 1\n"


def test_a_page_replaces_the_last_on_a_terminal_and_scrolls_where_it_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setenv("COLUMNS", "80")
    file = Terminal()
    pages(Screen(file=file, wrap=True), 2, 2)
    assert "\x1b[1A" in file.getvalue()  # up a line: over the last page
    file = Terminal()
    pages(Screen(file=file, wrap=True), 9, 9)
    assert file.getvalue().count("line 8\n") == 2
    assert "\x1b[" not in file.getvalue()


def test_every_style_that_a_program_asks_for_is_one() -> None:
    names = "|".join(("bold", "dim", "italic", "underline", "red", "green", "yellow", "blue", "magenta", "cyan"))
    package = Path(asap2.__file__).parent
    asked = {
        style
        for path in package.rglob("*.py")
        for style in re.findall(rf'"((?:{names})(?: (?:{names}))*)"', path.read_text())
    }
    assert "bold cyan" in asked
    for style in asked:
        Screen(file=io.StringIO()).say(("text", style))


def test_a_serial_line_has_the_usual_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(Screen, "is_terminal", True)
    monkeypatch.setattr("os.get_terminal_size", lambda _fd: (0, 0))
    with open("/dev/null", "w") as line:
        assert Screen(file=line).width == 80
