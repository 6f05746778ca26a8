# SPDX-License-Identifier: Apache-2.0
"""Answers of commands, checked against docs/schemas."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

DIRECTORY = Path(__file__).resolve().parents[1] / "docs" / "schemas"


@cache
def validators() -> dict[str, Draft202012Validator]:
    """Each schema's validator, by its ``$id``."""
    schemas = [json.loads(path.read_text()) for path in DIRECTORY.glob("*.json")]
    return {schema["$id"]: Draft202012Validator(schema) for schema in schemas}


def answer(text: str) -> dict[str, Any]:
    """The answer that a command has printed as *text*; it is one object, as its schema says."""
    data: dict[str, Any] = json.loads(text)
    errors = [f"{error.json_path}: {error.message}" for error in validators()[data["schema"]].iter_errors(data)]
    assert errors == []
    return data
