# SPDX-License-Identifier: Apache-2.0
"""What commands print in colours and tables: the one module that uses rich.

A string is text and never markup: ``[red]`` and ``:ab:`` are printed as they are. What has a style is said so, with
:func:`styled`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table as _Table
from rich.text import Text

from asap2.output import line, visible

__all__ = ["Group", "Live", "Part", "Screen", "Table", "Text", "styled", "table"]

WIDTH = 160
"""Characters of a line, where the output is no terminal."""
_UNBOUNDED = 100000
_GAP = 2
"""Columns between two cells."""
Part = str | tuple[str, str]
"""Text, or text with a style."""


class Screen(Console):
    """A console that takes every string for text, and shows an escape for what a terminal would obey."""

    def __init__(self, *, file: TextIO | None = None, stderr: bool = False, wrap: bool = False) -> None:
        """*wrap* breaks lines at the terminal's width, as tables want."""
        super().__init__(file=file, stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=not wrap)
        columns = os.environ.get("COLUMNS", "")
        if not self.is_terminal and not (columns.isdecimal() and int(columns)):
            self.width = WIDTH

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich's, of whatever it is: what no caller has made visible is made so here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Have the command line end as it does without rich."""
        raise BrokenPipeError

    def say(self, *parts: Part, style: str = "") -> None:
        """A line of text, each of its *parts* in its style."""
        self.print(styled(*parts, style=style))


class Table(_Table):
    """A table whose cells are text. A narrow terminal has its long cells in several lines, but no word cut; where not
    even the longest words have room beside each other, each row is a paragraph with a line for each cell."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it in the one way or the other."""
        sizes = [_size(console, options, [column.header, *column.cells]) for column in self.columns]
        room = options.max_width - _GAP * (len(sizes) - 1)
        least, most = sum(size.minimum for size in sizes), sum(size.maximum for size in sizes)
        if least > room:
            yield from self._paragraphs()
            return
        for column, size in zip(self.columns, sizes, strict=True):
            extra = size.maximum - size.minimum
            column.width = size.minimum + (extra if most <= room else extra * (room - least) // (most - least))
        yield from super().__rich_console__(console, options)

    def _paragraphs(self) -> Iterator[Text]:
        if self.title:
            yield _text(self.title)
        heads = [_text(column.header) for column in self.columns]
        for number, row in enumerate(zip(*(column.cells for column in self.columns), strict=True)):
            if number:
                yield Text()
            for head, cell in zip(heads, map(_text, row), strict=True):
                if cell.plain:
                    lines = Text(", ").join(cell.split())
                    yield Text.assemble(head, ": ", lines) if head.plain else lines

    def add_row(self, *cells: Any, **how: Any) -> None:
        """A row; a string may have several lines."""
        super().add_row(*(Text(visible(one)) if isinstance(one, str) else one for one in cells), **how)


def _text(cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


def _size(console: Console, options: ConsoleOptions, cells: list[RenderableType]) -> Measurement:
    """The longest word and the longest line."""
    sizes = [Measurement.get(console, options.update_width(_UNBOUNDED), cell) for cell in cells]
    return Measurement(max(size.minimum for size in sizes), max(size.maximum for size in sizes))


def styled(*parts: Part, style: str = "") -> Text:
    """A line of *parts*; *style* is that of the whole."""
    made = Text(style=style)
    for one in parts:
        text, own = one if isinstance(one, tuple) else (one, "")
        made.append(line(text), own or None)
    return made


def table(title: str, *columns: str) -> Table:
    """An empty table in the style of all of ours; without a title when that is empty."""
    made = Table(title=styled(title, style="bold") if title else None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        made.add_column(styled(column))
    return made
