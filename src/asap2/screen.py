# SPDX-License-Identifier: Apache-2.0
"""What commands print in colours and tables.

A string is text and never markup: ``[red]`` and escape sequences are printed as characters. What has a style is said
so, with :func:`styled`. Colours are for terminals; NO_COLOR turns them off, and FORCE_COLOR has them in a pipe too.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, TextIO

from asap2.output import line, visible

__all__ = ["Group", "Live", "Part", "Screen", "Table", "Text", "styled", "table"]

WIDTH = 160
"""Characters of a line, where the output is no terminal."""
GAP = 2
"""Spaces between columns."""
Part = str | tuple[str, str]
"""Text, or text with a style."""
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_CODES = {"bold": "1", "dim": "2", "reverse": "7", **{name: str(30 + number) for number, name in enumerate(_COLOURS)}}
"""The styles, which can be combined ("bold red"): ECMA-48, SGR."""
_RESET = "\x1b[0m"
_SIMPLE: dict[str, str | int | None] = {
    **dict.fromkeys("─━", "-"),
    **dict.fromkeys("═", "="),
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯", "+"),
    **dict.fromkeys("█▉▊▋▌", "#"),
    **dict.fromkeys("▍▎▏", "|"),
    "▶": ">",
    "◀": "<",
    "▲": "^",
    "▼": "v",
    "✓": "+",
    "✗": "x",
    "…": "...",
}
"""What stands for the characters that we draw with, where the output's encoding does not have them all."""
_UP_AND_ERASE = "\x1b[1A\x1b[2K"
_USUAL_SIZE = (80, 24)
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"

_Line = list[tuple[str, str]]
"""Pieces of a line that is to be printed, each with its style."""


class Text:
    """Text of one line or more, in pieces that have a style each."""

    def __init__(self, text: str = "", style: str = "") -> None:
        self.pieces: _Line = [(text, style)] if text else []

    def append(self, text: str, style: str = "") -> None:
        """Add a piece."""
        self.pieces.append((text, style))

    def lines(self) -> list[_Line]:
        """The lines, with an escape for each character that a terminal would obey."""
        lines: list[_Line] = [[]]
        for text, style in self.pieces:
            first, *others = visible(text).split("\n")
            lines[-1].append((first, style))
            lines += [[(other, style)] for other in others]
        return lines


Cell = str | Text


@dataclass
class Column:
    """A column of a table: its heading, and how its cells are shown."""

    heading: str
    justify: Literal["left", "right"] = "left"
    no_wrap: bool = False
    """Whether its cells are in one line even where there is room for their words alone."""


@dataclass
class Table:
    """A table whose cells are text. A narrow terminal has its long cells in several lines, but no word cut; where not
    even the longest words have room beside each other, each row is a paragraph with a line for each cell."""

    title: str
    columns: list[Column] = field(default_factory=list)
    rows: list[list[Text]] = field(default_factory=list)

    def add_row(self, *cells: Cell) -> None:
        """A row; a cell may have several lines."""
        self.rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def lines(self, width: int) -> Iterator[_Line]:
        """The lines, none of them wider than *width* where that can be."""
        if self.title:
            yield [(self.title, "bold")]
        heads = [Text(column.heading, "bold") for column in self.columns]
        rows = [[cell.lines() for cell in row] for row in (heads, *self.rows)]
        least, most = self._sizes(rows)
        room = width - GAP * (len(self.columns) - 1)
        if sum(least) > room:
            yield from self._paragraphs(rows, width)
            return
        flexible = sum(most) - sum(least)
        share = min(flexible, room - sum(least))
        widths = [
            few + ((many - few) * share // flexible if flexible else 0) for few, many in zip(least, most, strict=True)
        ]
        for row in rows:
            broken = [_broken(cell, fits) for cell, fits in zip(row, widths, strict=False)]
            for number in range(max(map(len, broken), default=0)):
                yield self._line([cell[number] if number < len(cell) else [] for cell in broken], widths)

    def _sizes(self, rows: list[list[list[_Line]]]) -> tuple[list[int], list[int]]:
        """For each column its longest word, or line where it must not be broken; and its longest line."""
        cells = [[one for row in rows if place < len(row) for one in row[place]] for place in range(len(self.columns))]
        most = [max(map(_cells, lines), default=0) for lines in cells]
        words = [max(map(_longest_word, lines), default=0) for lines in cells]
        least = [many if column.no_wrap else few for few, many, column in zip(words, most, self.columns, strict=True)]
        return least, most

    def _paragraphs(self, rows: list[list[list[_Line]]], width: int) -> Iterator[_Line]:
        heads, *others = rows
        for number, row in enumerate(others):
            if number:
                yield []
            for (head, *_), cell in zip(heads, row, strict=False):
                words = [[*([(", ", "")] if place else []), *one] for place, one in enumerate(cell)]
                text = [piece for line in words for piece in line]
                if _cells(text):
                    yield from _broken([[*head, (": ", ""), *text] if head else text], width)

    def _line(self, parts: list[_Line], widths: list[int]) -> _Line:
        made: _Line = []
        for place, (part, column) in enumerate(zip(parts, self.columns, strict=False)):
            room = " " * (widths[place] - _cells(part))
            made += [(room, ""), *part] if column.justify == "right" else [*part, (room, "")]
            made.append((" " * GAP, ""))
        return _without_end(made)


@dataclass
class Group:
    """Texts and tables, one below the other."""

    parts: Sequence[Cell | Table]

    def __init__(self, *parts: Cell | Table) -> None:
        self.parts = parts


Shown = Cell | Table | Group


class Screen:
    """Where a command prints: standard output, standard error or *file*."""

    def __init__(self, *, file: TextIO | None = None, stderr: bool = False, wrap: bool = False) -> None:
        """*wrap* breaks lines at the terminal's width, as tables want."""
        self._file = file
        self._stderr = stderr
        self._wrap = wrap
        self.quiet = False
        self.width = _number("COLUMNS") or (self._size()[0] if self.is_terminal else WIDTH)
        """Characters in a line."""

    @property
    def file(self) -> TextIO:
        """What is written to."""
        return self._file or (sys.stderr if self._stderr else sys.stdout)

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it."""
        return bool(os.environ.get("FORCE_COLOR")) or self.file.isatty()

    @property
    def _draws(self) -> bool:
        """Whether the encoding of the output has all that we draw with."""
        try:
            "".join(_SIMPLE).encode(getattr(self.file, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            return False
        return True

    @property
    def height(self) -> int:
        """Lines of the terminal."""
        return _number("LINES") or self._size()[1]

    def _size(self) -> tuple[int, int]:
        try:
            width, height = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):
            return _USUAL_SIZE
        return width or _USUAL_SIZE[0], height or _USUAL_SIZE[1]  # a serial line does not tell: 0

    def say(self, *parts: Part, style: str = "") -> None:
        """A line of text, each of its *parts* in its style."""
        self.print(styled(*parts, style=style))

    def print(self, *what: Shown, end: str = "\n") -> None:
        """Print each of *what*, at once."""
        self.write("".join(self._coloured(one) + end for one in self.lines(*what)))

    def lines(self, *what: Shown) -> list[_Line]:
        """The lines of *what*, as wide as the screen where lines are broken."""
        found: list[_Line] = []
        for one in what:
            if isinstance(one, Table):
                found += one.lines(self.width)
            elif isinstance(one, Group):
                found += self.lines(*one.parts)
            else:
                lines = (one if isinstance(one, Text) else Text(one)).lines()
                found += _broken(lines, self.width) if self._wrap else lines
        return found

    def coloured(self, lines: Iterable[_Line]) -> str:
        """*lines* as they are written to the terminal or file."""
        return "".join(f"{self._coloured(one)}\n" for one in lines)

    def _coloured(self, pieces: _Line) -> str:
        plain = not self.is_terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown")
        made = ""
        for text, style in pieces:
            codes = ";".join(_CODES[name] for name in style.split())
            made += f"\x1b[{codes}m{text}{_RESET}" if codes and text and not plain else text
        return made

    def write(self, text: str) -> None:
        """Write *text* as it is, at once."""
        if self.quiet:
            return
        try:
            self.file.write(text if self._draws else text.translate(str.maketrans(_SIMPLE)))
            self.file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Nobody reads any more: the command line ends the program."""
        raise BrokenPipeError


class Live:
    """A page on *console* that is replaced by the next one; of a page that is too long, the first lines are shown."""

    def __init__(self, page: Shown, *, console: Screen) -> None:
        self._console = console
        self._page = page
        self._shown = 0

    def __enter__(self) -> Live:
        self._console.write(_HIDE_CURSOR)
        self.update(self._page)
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._console.write(_SHOW_CURSOR)

    def update(self, page: Shown) -> None:
        """Show *page*."""
        lines = self._console.lines(page)[: max(1, self._console.height - 1)]
        self._console.write(_UP_AND_ERASE * self._shown + self._console.coloured(lines))
        self._shown = len(lines)


def styled(*parts: Part, style: str = "") -> Text:
    """A line of *parts*; *style* is that of the whole."""
    made = Text()
    for one in parts:
        text, own = one if isinstance(one, tuple) else (one, "")
        made.append(line(text), f"{style} {own}".strip())
    return made


def table(title: str, *columns: str) -> Table:
    """An empty table in the style of all of ours; without a title when that is empty."""
    return Table(line(title), [Column(line(column)) for column in columns])


def _number(variable: str) -> int:
    """The number in an environment variable; 0 for what is none."""
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 0


# ---- widths


def _width(character: str) -> int:
    """The cells of a terminal that a character takes (Unicode TR 11)."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cells(pieces: _Line) -> int:
    return sum(len(text) if text.isascii() else sum(map(_width, text)) for text, _ in pieces)


def _longest_word(pieces: _Line) -> int:
    words = "".join(text for text, _ in pieces).split(" ")
    return max(1, *(_cells([(word, "")]) for word in words))


def _broken(lines: list[_Line], width: int) -> list[_Line]:
    """*lines* with those that are wider than *width* broken at spaces, or within words that are wider themselves."""
    return [part for one in lines for part in (_parts(one, width) if _cells(one) > width else [one])]


def _parts(pieces: _Line, width: int) -> Iterator[_Line]:
    characters = [(character, style) for text, style in pieces for character in text]
    while characters:
        used, end = 0, 0
        while end < len(characters) and (used := used + _width(characters[end][0])) <= width:
            end += 1
        end = max(end, 1)
        if end < len(characters):
            spaces = [place for place in range(1, end + 1) if characters[place][0] == " "]
            end = spaces[-1] if spaces else end
        yield _without_end([*characters[:end]])
        while end < len(characters) and characters[end][0] == " ":
            end += 1
        characters = characters[end:]


def _without_end(pieces: _Line) -> _Line:
    """*pieces*, those of one style together, without spaces at the end."""
    made: _Line = []
    for text, style in pieces:
        if made and made[-1][1] == style:
            made[-1] = (made[-1][0] + text, style)
        elif text:
            made.append((text, style))
    while made and not made[-1][0].rstrip(" "):
        made.pop()
    if made:
        made[-1] = (made[-1][0].rstrip(" "), made[-1][1])
    return made
