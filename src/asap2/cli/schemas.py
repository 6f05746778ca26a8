# SPDX-License-Identifier: Apache-2.0
"""``python -m asap2.cli.schemas``: write docs/schemas, the JSON Schemas (2020-12) of all answers and of topologies."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any

from asap2.answers import identity
from asap2.cli.shapes import SHAPES
from asap2.lab.topology_schema import topology

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DIRECTORY = Path(__file__).resolve().parents[3] / "docs" / "schemas"
_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def of_type(kind: Any) -> dict[str, Any]:
    """The schema of values of a type, as :func:`asap2.host.records.to_data` writes them."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    if origin is typing.NotRequired:
        return of_type(arguments[0])
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [of_type(one) for one in arguments]}
    if origin is dict:
        return {"type": "object", "additionalProperties": of_type(arguments[1])}
    if origin is list or (origin is tuple and arguments[1:] == (...,)):
        return {"type": "array", "items": of_type(arguments[0])}
    if origin is tuple:
        size = len(arguments)
        return {"type": "array", "prefixItems": [of_type(one) for one in arguments], "minItems": size, "maxItems": size}
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        return {"enum": [one.value for one in kind]}
    return _object(kind)


def _object(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(hints)
    required = [name for name in names if typing.get_origin(hints[name]) is not typing.NotRequired]
    return {
        "description": " ".join((inspect.getdoc(kind) or "").split()),
        "type": "object",
        "properties": {name: of_type(hints[name]) for name in names},
        "required": required,
        "additionalProperties": False,
    }


def answer_schema(kind: str) -> dict[str, Any]:
    """The schema of answers of a *kind*."""
    made = _object(SHAPES[kind])
    made["properties"] = {"schema": {"const": identity(kind)}, **made["properties"]}
    made["required"] = ["schema", *made["required"]]
    return {"$schema": DIALECT, "$id": identity(kind), **made}


def files() -> dict[str, str]:
    """The text of each file of docs/schemas, by its name."""
    made = {f"{kind}.json": answer_schema(kind) for kind in SHAPES}
    made["topology.json"] = {"$schema": DIALECT, "$id": identity("topology"), **topology()}
    return {name: json.dumps(schema, indent=1) + "\n" for name, schema in made.items()}


def main() -> None:
    """Write all files."""
    DIRECTORY.mkdir(exist_ok=True)
    for path in DIRECTORY.glob("*.json"):
        path.unlink()
    for name, text in files().items():
        (DIRECTORY / name).write_text(text)


if __name__ == "__main__":
    main()
