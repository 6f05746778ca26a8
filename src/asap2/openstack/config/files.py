# SPDX-License-Identifier: Apache-2.0
"""Files of settings: their text, and how they come to the terminal or into a directory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from asap2.errors import Asap2Error

Section = tuple[str, tuple[tuple[str, str], ...]]
"""A section's name and its options."""


@dataclass(frozen=True, slots=True)
class File:
    """A file for *node* (or "deploy": where a deployment tool runs), by its path from the root there."""

    node: str
    path: str
    text: str


def ini(about: Iterable[str], sections: Iterable[Section]) -> str:
    """An INI file that begins with the lines *about* as comments; sections without options are left out."""
    lines = [f"# {line}" for line in about]
    for name, options in sections:
        if options:
            lines += ["", f"[{name}]", *(f"{key} = {value}".rstrip() for key, value in options)]
    return "\n".join(lines) + "\n"


def shown(files: list[File]) -> str:
    """*files* for the terminal: a single one as it is."""
    if len(files) == 1:
        return files[0].text
    return "\n".join(f"=== {one.node}: /{one.path}\n{one.text}" for one in files)


def write(files: list[File], directory: Path, *, force: bool = False) -> list[Path]:
    """Write *files* below *directory*, by node; Asap2Error, and nothing written, where another file is already."""
    places = {directory / one.node / one.path: one.text for one in files}
    for path, text in places.items():
        if not force and path.exists() and path.read_text(errors="replace") != text:
            raise Asap2Error(f"{path} is there and says something else; nothing was written (--force writes over it)")
    for path, text in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(places)
