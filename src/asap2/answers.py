# SPDX-License-Identifier: Apache-2.0
"""Answers for programs: JSON objects that name their schema, a file of docs/schemas, in the key ``schema``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asap2.output import say_json

VERSION = 1
"""Of all schemas. It grows when a key goes, or changes its meaning; new keys come without."""
_given = False


def identity(kind: str) -> str:
    """The ``$id`` of the schema of that *kind* (RFC 8141)."""
    return f"urn:asap2:{kind}:{VERSION}"


def marked(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """*data* with its schema."""
    return {"schema": identity(kind), **data}


def answer(kind: str, data: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Print *data*, of a *kind* that docs/schemas has, as JSON; of one line when *indent* is None."""
    global _given
    _given = True
    say_json(marked(kind, data), indent=indent)


def fail(text: str, status: int) -> None:
    """Print the error that a command ended with, unless it has answered already. *text* is what is wrong and, after a
    semicolon, what to do."""
    if not _given:
        wrong, _, remedy = text.partition("; ")
        answer("error", {"error": wrong, "what_to_do": remedy or None, "status": status})


def begin() -> None:
    """A command begins: it has not answered yet."""
    global _given
    _given = False
