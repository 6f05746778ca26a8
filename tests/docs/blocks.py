# SPDX-License-Identifier: Apache-2.0
"""The fenced blocks of the documentation, and what the comments above each say of running it.

A comment is an HTML comment directly above the block, so that no reader sees it:

``<!-- not run: REASON -->``
    This block is not run, because of the reason.
``<!-- lab: TOPOLOGY -->``
    From this block on, the page runs in a lab of that topology; ``none`` takes down the last one.
``<!-- at: NAME -->``
    This block runs in that node or guest instead of on the machine.
``<!-- before: COMMAND -->``
    This command runs first, on the machine: what the page takes for granted, such as another host.
``<!-- file: NAME -->``
    This block is saved as that file before what follows runs.
``<!-- status: N -->``
    The last command of the block ends with that exit status.

Without ``not run``, a block of sh is run by bash, which stops at the first command that fails; of console, each line
after ``$`` is run and its output compared with what follows, in which ``...`` or ``…`` stands for anything; a program
in Python is run, by pytest if its name, in its first line, begins with ``test_``; TOML is read as a topology or as
settings of ``asap2 host setup``; JSON is read, and follows its schema if it names one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

TOP: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (
    *sorted((TOP / "docs").glob("*.md")),
    *(TOP / name for name in ("README.md", "CONTRIBUTING.md", "ansible/README.md", "bench/README.md")),
)
"""All pages of the documentation."""
LANGUAGES: Final = frozenset({"sh", "console", "python", "toml", "json"})
"""Those whose blocks can be run."""
NOTES: Final = frozenset({"not run", "lab", "at", "before", "file", "status"})
_NOTE: Final = re.compile(r"<!--\s*([a-z ]+):\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: ``line`` is where it begins, from 1; ``notes`` are what the comments above it say."""

    page: Path
    line: int
    language: str
    text: str
    notes: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.page.relative_to(TOP)}:{self.line}" if self.page.is_relative_to(TOP) else f"line {self.line}"

    @property
    def is_run(self) -> bool:
        """Whether it is to be run."""
        return "not run" not in self.notes

    def fault(self) -> str | None:
        """What is wrong with it: that it is neither run nor marked why not, or a note that means nothing."""
        unknown = self.notes.keys() - NOTES
        if unknown:
            return f"{self}: there is no note {', '.join(sorted(unknown))!r}"
        if empty := [name for name, value in self.notes.items() if not value]:
            return f"{self}: the note {empty[0]!r} says nothing"
        if self.is_run and self.language not in LANGUAGES and "file" not in self.notes:
            what = self.language or "no language"
            return f"{self}: a block of {what} cannot be run: say `<!-- not run: REASON -->` above it"
        if self.language == "console" and self.is_run and not self.text.startswith("$ "):
            return f"{self}: a console begins with a command after `$ `"
        if not self.text.strip():
            return f"{self}: the block is empty"
        return None


def blocks(page: Path, text: str | None = None) -> Iterator[Block]:
    """The fenced blocks of *page*, also those in lists, without the directives of the site's generator."""
    tokens = MarkdownIt("commonmark").parse(page.read_text() if text is None else text)
    notes: dict[str, str] = {}
    for token in tokens:
        if token.type == "html_block":
            notes |= {name: " ".join(value.split()) for name, value in _NOTE.findall(token.content)}
            continue
        language = token.info.strip()
        if token.type in ("fence", "code_block") and not language.startswith("{"):
            line = (token.map or [0])[0] + 1
            yield Block(page, line, language, token.content, notes)
        notes = {}


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console, each with the output that is stated for it. A line that ends with a backslash goes on
    in the next one."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if found and found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line.removeprefix('> ')}", [])
        elif line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]
